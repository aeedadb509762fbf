"""Poolings of an embedder that learns: tokens → one vector, and the tokens of several blocks → one of each.

Owns what is between encoder and projection. Those of an encoder that learns nothing are `frozen`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asd_trainer.networks.eat import MEL_PATCHES, NORM_EPSILON
from asd_trainer.networks.encoders.eat_tokens import WHOLE_PATCHES

VARIANCE_FLOOR = 1e-6
QUANTILES = (0.0, 0.1, 0.5)


class AttentiveStatisticsPooling(nn.Module):
    """Weighted mean and deviation of tokens (B, L, C) → (B, 2C); every channel has its own attention over the tokens.

    Okabe et al., arXiv 1803.10963, in the form of ECAPA-TDNN (arXiv 2005.07143): the attention of a token also sees the
    plain mean and deviation of the clip.
    """

    def __init__(self, channels: int, attention_dim: int) -> None:
        super().__init__()
        self.token = nn.Linear(channels, attention_dim)
        self.context = nn.Linear(
            2 * channels, attention_dim, bias=False
        )  # the same for all tokens: computed once a clip
        self.score = nn.Linear(attention_dim, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool, (B, L, C) → (B, 2C)."""
        uniform = torch.full_like(tokens, 1.0 / tokens.shape[1])
        context = self.context(weighted_statistics(tokens, uniform)).unsqueeze(1)  # (B, 1, attention_dim)
        weights = self.score(torch.tanh(self.token(tokens) + context)).softmax(dim=1)  # (B, L, C), sums to 1 over L
        return weighted_statistics(tokens, weights)


class QuantilePooling(nn.Module):
    """Low quantiles over time of the tokens of each row of patches, side by side: (B, T · F, C) → (B, Q · F · C).

    Background noise comes and goes, and only adds power: the quiet moments show the machine (minimum statistics: Martin, IEEE Trans.
    Speech and Audio Processing 9(5), 2001). Rows stay apart, as noise fills some and not others. Ours; there is nothing to learn in it.
    """

    def __init__(self, bands: int = MEL_PATCHES, moments: int | None = WHOLE_PATCHES) -> None:
        """`bands` is F, `moments` how many of the T are ranked; None: all."""
        super().__init__()
        self.bands, self.moments = bands, moments

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool, (B, T · F, C), time-major as the encoder gives them, → (B, Q · F · C)."""
        B, L, C = tokens.shape
        series = tokens.reshape(B, L // self.bands, self.bands * C)[:, : self.moments].transpose(1, 2)  # (B, F · C, T)
        ranks = [round(q * (series.shape[2] - 1)) for q in QUANTILES]
        # Sorting the values themselves would send a gradient through every one of them
        order = series.detach().contiguous().argsort(dim=2)
        return series.gather(2, order[:, :, ranks]).transpose(1, 2).reshape(B, -1)


def weighted_statistics(tokens: Tensor, weights: Tensor) -> Tensor:
    """Mean and deviation over tokens, both (B, L, C) with weights that sum to 1 over L → (B, 2C)."""
    mean = (weights * tokens).sum(dim=1, keepdim=True)
    variance = (weights * (tokens - mean).square()).sum(dim=1)
    return torch.cat([mean.squeeze(1), variance.clamp_min(VARIANCE_FLOOR).sqrt()], dim=1)


class LayerAggregation(nn.Module):
    """Tokens of all blocks, each (B, L, C) → one token (B, L, C) each: side by side, layer norm, and two layers with GELU between.

    AISTAT's submission to DCASE 2025 Task 2, where it raised Ω by 1.4 points with EAT.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(depth * channels, eps=NORM_EPSILON)
        self.narrow = nn.Linear(depth * channels, channels)
        self.mix = nn.Linear(channels, channels)

    def forward(self, layers: Sequence[Tensor]) -> Tensor:
        """Join, the first block's tokens first."""
        joined: Tensor = self.mix(F.gelu(self.narrow(self.norm(torch.cat(list(layers), dim=2)))))
        return joined
