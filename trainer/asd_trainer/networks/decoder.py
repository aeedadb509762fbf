"""The decoder of pre-training: from the patches that the student saw to predictions for those it did not see.

Owns the throw-away convolutions over the map of patches (EAT, arXiv 2401.03497, after data2vec 2.0). It knows no loss.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asd_daemon.errors import SettingsError
from asd_trainer.networks.eat import MEL_PATCHES
from asd_trainer.recipe.pretraining import DecoderRecipe


class Decoder(nn.Module):
    """Grouped convolutions with residuals over the map of patches, then a projection of the masked ones."""

    def __init__(self, dim: int, settings: DecoderRecipe) -> None:
        super().__init__()
        self._settings = settings
        self.convolutions = nn.ModuleList(
            nn.Conv2d(dim, dim, settings.kernel, padding=settings.kernel // 2, groups=settings.groups)
            for _ in range(settings.layers)
        )
        self.proj = nn.Linear(dim, dim)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw fresh weights and biases as torch does, which the released code leaves to it: uniform in ±1 / √(inputs of a unit)."""
        for layer in (*self.convolutions, self.proj):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)

    def load(self, released: Mapping[str, Tensor]) -> None:
        """Take the weights of a released decoder, `blocks.N.0.*` and `proj.*`.

        Raises:
            SettingsError: they are of a decoder of another make.
        """
        renamed = {
            re.sub(r"^blocks\.(\d+)\.0\.", r"convolutions.\1.", name): tensor for name, tensor in released.items()
        }
        own = {name: tensor.shape for name, tensor in self.state_dict().items()}
        differing = sorted(
            name for name in {*own, *renamed} if own.get(name) != getattr(renamed.get(name), "shape", None)
        )
        if differing:
            raise SettingsError(
                f"pretrain.decoder: {self._settings.layers} layers of kernel {self._settings.kernel} in "
                f"{self._settings.groups} groups do not fit the decoder among the weights ({', '.join(differing[:4])} differ)"
            )
        self.load_state_dict(renamed)

    def forward(self, seen: Tensor, kept: Tensor, masked: Tensor, noise: Tensor) -> Tensor:
        """Predictions for masked patches, (S, M, dim).

        Args:
            seen: the student's output for the kept patches, (S, K, dim).
            kept: where they belong, int64 (S, K).
            masked: the patches to predict, int64 (S, M); K + M is all patches.
            noise: what stands in their places, (S, M, dim).
        """
        patches = unshuffle(seen, noise.to(seen.dtype), kept, masked)  # (S, L, dim)
        S, L, D = patches.shape
        # Tokens in a row are a map in channels-last order, so neither side of a convolution copies anything.
        maps = patches.view(S, L // MEL_PATCHES, MEL_PATCHES, D)
        for convolution in self.convolutions:
            filtered = convolution(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (S, T, 8, dim)
            maps = maps + F.gelu(F.layer_norm(filtered, (D,)))
        predictions: Tensor = self.proj(pick(maps.reshape(S, L, D), masked))
        return predictions


def unshuffle(seen: Tensor, noise: Tensor, kept: Tensor, masked: Tensor) -> Tensor:
    """Tokens (S, K, C) and noise (S, M, C) in the places that `kept` (S, K) and `masked` (S, M) say, (S, K + M, C)."""
    places = torch.cat([kept, masked], dim=1).unsqueeze(-1).expand(-1, -1, seen.shape[-1])
    tokens = torch.cat([seen, noise], dim=1)
    return torch.empty_like(tokens).scatter(1, places, tokens)


def pick(tokens: Tensor, places: Tensor) -> Tensor:
    """Tokens (S, L, C) at places (S, N) → (S, N, C)."""
    return tokens.gather(1, places.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
