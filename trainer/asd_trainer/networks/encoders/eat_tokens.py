"""EAT behind the face of all encoders: its patch tokens on their grid, without the class token and without the patches of padding."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor

from asd_daemon.judge.features.power_spectrum import frame_count
from asd_daemon.waveform import WINDOW_SAMPLES
from asd_trainer.networks.eat import MEL_PATCHES, PATCH, Eat, EatSize
from asd_trainer.networks.encoders.interface import EncoderShape, Hears, TokenEncoder

WHOLE_PATCHES = frame_count(WINDOW_SAMPLES) // PATCH  # 62 in time; those after them hold padding


class EatTokens(TokenEncoder):
    """Normalised log-mels (B, 1024, 128) → tokens (B, 62, 8, dim)."""

    family = "eat"
    hears: Hears = "features"

    def __init__(self, size: EatSize) -> None:
        super().__init__(
            EncoderShape(self.family, asdict(size)), channels=size.dim, depth=size.depth, bands=MEL_PATCHES
        )
        self.eat = Eat(size)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw fresh weights as EAT does."""
        self.eat.initialise(generator)

    def layers(self, sound: Tensor) -> list[Tensor]:
        """Tokens of every block."""
        return [on_grid(layer.out[:, 1:]) for layer in self.eat.layers(sound)]


def on_grid(patches: Tensor) -> Tensor:
    """Patches in time-major order (B, 64 · 8, C) → (B, 62, 8, C)."""
    B, L, C = patches.shape
    return patches.reshape(B, L // MEL_PATCHES, MEL_PATCHES, C)[:, :WHOLE_PATCHES]
