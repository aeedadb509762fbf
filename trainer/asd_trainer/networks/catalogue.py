"""Every size of every network with what it costs: the table of `asd-train models`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from asd_daemon.waveform import SAMPLE_RATE_HZ
from asd_trainer.networks.complexity import count, on_log_mels
from asd_trainer.networks.eat import SIZES
from asd_trainer.networks.embedder import Embedder, EmbedderShape
from asd_trainer.networks.separator import SIZES as SEPARATOR_SIZES
from asd_trainer.networks.separator import Separator
from asd_trainer.recipe.embedder import EmbeddingRecipe


@dataclass(frozen=True)
class Network:
    """One size of one network."""

    network: str
    size: str
    parameters: int
    gmac_per_second: float
    """Multiply-accumulates of matrix products and convolutions, in 1e9 per second of sound."""

    def as_json(self) -> dict[str, str | int | float]:
        """The row for a program."""
        return {
            "network": self.network,
            "size": self.size,
            "parameters": self.parameters,
            "gmac_per_second": round(self.gmac_per_second, 4),
        }


def catalogue() -> tuple[Network, ...]:
    """Every network in each of its sizes."""
    return (*(embedder_cost(size) for size in SIZES), *(separator_cost(size) for size in SEPARATOR_SIZES))


def embedder_cost(size: str) -> Network:
    """Cost of an embedder with the recipe's own pooling, over a 10 s window; counted on shapes alone, without memory for weights."""
    pooling = EmbeddingRecipe()
    with torch.device("meta"):
        embedder = Embedder(EmbedderShape(SIZES[size], pooling.dimensions, pooling.attention_dim))
    cost = on_log_mels(embedder)
    return Network("embedder", size, cost.parameters, cost.macs_per_second / 1e9)


def separator_cost(size: str) -> Network:
    """Cost of a separator, over 1 s of sound as published figures are; counted on shapes alone."""
    with torch.device("meta"):
        separator = Separator(SEPARATOR_SIZES[size])
    cost = count(separator, SAMPLE_RATE_HZ)
    return Network("separator", size, cost.parameters, cost.macs_per_second / 1e9)
