"""Every size of every network with what it costs: the table of `asd-train models`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from asd_daemon.judge.mel import EAT_FRAMES, MEL_BINS
from asd_daemon.waveform import WINDOW_S
from asd_trainer.eat import SIZES
from asd_trainer.embedder import Embedder, EmbedderShape
from asd_trainer.recipe import EmbeddingRecipe


@dataclass(frozen=True)
class Network:
    """One size of one network."""

    network: str
    size: str
    parameters: int
    gmac_per_second: float
    """Multiply-accumulates of matrix products and convolutions over a 10 s window, in 1e9 per second of sound."""

    def as_json(self) -> dict[str, str | int | float]:
        """The row for a program."""
        return {
            "network": self.network,
            "size": self.size,
            "parameters": self.parameters,
            "gmac_per_second": round(self.gmac_per_second, 4),
        }


def catalogue() -> tuple[Network, ...]:
    """Every network, smallest first."""
    return tuple(embedder_cost(size) for size in SIZES)


def embedder_cost(size: str) -> Network:
    """Cost of an embedder with the recipe's own pooling; counted on shapes alone, no memory is used for weights."""
    pooling = EmbeddingRecipe()
    with torch.device("meta"):
        embedder = Embedder(EmbedderShape(SIZES[size], pooling.dimensions, pooling.attention_dim)).eval()
        window = torch.empty(1, EAT_FRAMES, MEL_BINS)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        embedder(window)
    macs = counter.get_total_flops() / 2
    return Network("embedder", size, sum(p.numel() for p in embedder.parameters()), macs / WINDOW_S / 1e9)
