"""An encoder that learns nothing as an embedder: its tokens, pooled over time band by band, as one unit vector.

Owns the poolings, which have nothing to learn in them. It reads no sound and no released file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asd_daemon.errors import StageError
from asd_trainer.networks.encoders.interface import EncoderShape, Hears, TokenEncoder
from asd_trainer.networks.encoders.registry import build_encoder, token_shape

FrozenPooling = Literal["mean", "statistics", "gem", "rdp", "rdp-gem", "quantiles"]
QUANTILES = (0.0, 0.1, 0.5)
TINY = 1e-12


@dataclass(frozen=True)
class FrozenShape:
    """All that is needed to build one of the same shape."""

    encoder: EncoderShape
    layers: tuple[int, ...] = ()
    """Layers whose tokens are pooled side by side, counted from 1; the last where none is named."""
    pooling: FrozenPooling = "mean"
    power: float = 3.0
    """Of the generalised mean."""
    gamma: float = 8.0
    """Of relative deviation pooling."""
    bands: Literal["joined", "averaged", "separate"] = "joined"
    """`separate` is joined too: whoever looks for neighbours takes the bands apart."""


class FrozenEmbedder(nn.Module):
    """Sound, as its encoder hears it, → embeddings (B, D) of unit length."""

    centre: Tensor
    spread: Tensor

    def __init__(self, shape: FrozenShape) -> None:
        """Raises StageError where the encoder has no such layers, or their grids do not fit on each other."""
        super().__init__()
        self.shape = shape
        self.encoder: TokenEncoder = build_encoder(shape.encoder)
        wrong = [layer for layer in shape.layers if not 1 <= layer <= self.encoder.depth]
        if wrong:
            raise StageError(f"frozen.layers: {wrong[0]} is none of the encoder's layers, 1 to {self.encoder.depth}")
        self.dimensions = pooled_size(shape)
        self.register_buffer("centre", torch.zeros(self.dimensions))
        self.register_buffer("spread", torch.ones(self.dimensions))

    @property
    def hears(self) -> Hears:
        """What `forward` takes."""
        return self.encoder.hears

    @property
    def neighbour_bands(self) -> int:
        """Equal parts of an embedding that look for neighbours each by itself."""
        return token_shape(self.shape.encoder, self.shape.layers)[0] if self.shape.bands == "separate" else 1

    def forward(self, sound: Tensor) -> Tensor:
        """Embed, (B, …) → (B, D)."""
        return self.embedded(self.encoder(sound, self.shape.layers))

    def embedded(self, tokens: Tensor) -> Tensor:
        """Embeddings (B, D) of the encoder's tokens (B, T, F, C)."""
        return F.normalize((self.pooled(tokens) - self.centre) / self.spread, dim=1, eps=TINY)

    def pooled(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, F, C) pooled over time, band after band, (B, D)."""
        if self.shape.bands == "averaged":
            tokens = tokens.mean(dim=2, keepdim=True)
        return pool_over_time(tokens, self.shape.pooling, self.shape.power, self.shape.gamma).flatten(1)


def pooled_size(shape: FrozenShape) -> int:
    """D of an encoder's pooled tokens; found on shapes alone."""
    try:
        bands, channels = token_shape(shape.encoder, shape.layers)
    except RuntimeError as e:
        raise StageError(f"frozen.layers: {list(shape.layers)}: their tokens lie on different grids; name one") from e
    several = {"statistics": 2, "quantiles": len(QUANTILES)}.get(shape.pooling, 1)
    return several * (1 if shape.bands == "averaged" else bands) * channels


def pool_over_time(tokens: Tensor, pooling: FrozenPooling, power: float, gamma: float) -> Tensor:
    """What becomes of each band's tokens over time: (B, T, F, C) → (B, F, C'), several statistics side by side."""
    mean = tokens.mean(dim=1)
    if pooling == "mean":
        return mean
    if pooling == "statistics":
        return torch.cat([mean, (tokens - mean[:, None]).square().mean(dim=1).sqrt()], dim=2)
    if pooling == "quantiles":
        ranked = tokens.sort(dim=1).values
        at = [round(q * (tokens.shape[1] - 1)) for q in QUANTILES]
        return torch.cat([ranked[:, rank] for rank in at], dim=2)
    if pooling == "gem":
        return generalised_mean(tokens, torch.full_like(tokens[..., :1], 1.0 / tokens.shape[1]), power)
    weights = relative_deviation_weights(tokens, mean, gamma)
    return generalised_mean(tokens, weights, power) if pooling == "rdp-gem" else (weights * tokens).sum(dim=1)


def generalised_mean(tokens: Tensor, weights: Tensor, power: float) -> Tensor:
    """(Σ w · max(x, 0)^p)^(1/p) over time (Radenović et al., TPAMI 2019), (B, T, F, C) → (B, F, C)."""
    return (weights * tokens.clamp_min(0).pow(power)).sum(dim=1).clamp_min(TINY).pow(1 / power)


def relative_deviation_weights(tokens: Tensor, mean: Tensor, gamma: float) -> Tensor:
    """Weights of the moments of each band, (B, T, F, 1), which sum to 1 over time.

    w ∝ (1 + d / max d)^γ, d the distance of a moment's token from the mean over time (relative deviation pooling, arXiv 2603.04605).
    """
    away = (tokens - mean[:, None]).norm(dim=3, keepdim=True)
    relative = away / away.amax(dim=1, keepdim=True).clamp_min(TINY)
    raised = (gamma * relative.log1p()).exp()
    weights: Tensor = raised / raised.sum(dim=1, keepdim=True)
    return weights
