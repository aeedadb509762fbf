"""Every size of every network with what it costs: the table of `asd-train models`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from asd_daemon.judge.features.log_mel import EAT_FRAMES, MEL_BINS
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_S, WINDOW_SAMPLES
from asd_trainer.networks.complexity import count, of_embedder
from asd_trainer.networks.eat import SIZES
from asd_trainer.networks.embedder import Embedder, EmbedderShape
from asd_trainer.networks.encoders.interface import EncoderShape, TokenEncoder
from asd_trainer.networks.encoders.registry import NAMED, build_encoder
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
    return (
        *(embedder_cost(size) for size in SIZES),
        *(_encoder_row(name) for name in NAMED),
        *(separator_cost(size) for size in SEPARATOR_SIZES),
    )


@dataclass(frozen=True)
class EncoderCost:
    """What an encoder costs for a window of 10 s."""

    parameters: int
    macs: float
    """Multiply-accumulates of matrix products and convolutions, those of the front end among them."""
    front_end_macs: float


def encoder_cost(shape: EncoderShape) -> EncoderCost:
    """Cost of an encoder without pooling; counted on shapes alone."""
    with torch.device("meta"):
        encoder = build_encoder(shape)
    front_end = getattr(encoder, "front_end", None)
    whole = of_embedder(encoder, encoder.hears)
    before = 0.0 if front_end is None else of_embedder(front_end, encoder.hears).macs_per_second
    return EncoderCost(whole.parameters, whole.macs_per_second * WINDOW_S, before * WINDOW_S)


def window_of(encoder: TokenEncoder) -> Tensor:
    """A silent window as an encoder hears it, with its batch axis."""
    return torch.zeros(1, EAT_FRAMES, MEL_BINS) if encoder.hears == "features" else torch.zeros(1, WINDOW_SAMPLES)


def _encoder_row(name: str) -> Network:
    cost = encoder_cost(NAMED[name].shape)
    return Network("encoder", name, cost.parameters, cost.macs / WINDOW_S / 1e9)


def embedder_cost(size: str) -> Network:
    """Cost of an embedder with the recipe's own pooling, over a 10 s window; counted on shapes alone, without memory for weights."""
    pooling = EmbeddingRecipe()
    with torch.device("meta"):
        embedder = Embedder(EmbedderShape(SIZES[size], pooling.dimensions, pooling.attention_dim))
    cost = of_embedder(embedder, "features")
    return Network("embedder", size, cost.parameters, cost.macs_per_second / 1e9)


def separator_cost(size: str) -> Network:
    """Cost of a separator, over 1 s of sound as published figures are; counted on shapes alone."""
    with torch.device("meta"):
        separator = Separator(SEPARATOR_SIZES[size])
    cost = count(separator, SAMPLE_RATE_HZ)
    return Network("separator", size, cost.parameters, cost.macs_per_second / 1e9)
