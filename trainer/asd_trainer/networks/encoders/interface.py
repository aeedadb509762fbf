"""What every encoder is to the rest of the trainer: sound → tokens on a grid of time and frequency.

Owns the face and how fresh weights are drawn. It knows no architecture, no pooling and no file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from asd_daemon.judge.features.log_mel import EAT_FRAMES, MEL_BINS
from asd_daemon.waveform import WINDOW_SAMPLES
from asd_trainer.networks.eat import initialise_layers

Hears = Literal["features", "waveform"]
"""EAT's normalised log-mels (B, 1024, 128) of `asd_daemon`, or windows (B, 160 000) that go through a front end of its own."""
POSITION_SPREAD = 0.02


@dataclass(frozen=True)
class EncoderShape:
    """All that is needed to build an encoder of the same shape; plain numbers and words, for json."""

    family: str
    size: dict[str, Any] = field(default_factory=dict)


class TokenEncoder(nn.Module, ABC):
    """An encoder; `forward` gives tokens (B, T, F, C), F = 1 where it has no axis of frequency."""

    family: str
    hears: Hears = "waveform"

    def __init__(self, shape: EncoderShape, *, channels: int, depth: int, bands: int) -> None:
        super().__init__()
        self.shape = shape
        """What `build_encoder` makes the same of."""
        self.channels = channels
        """C of its last layer."""
        self.depth = depth
        """Number of layers that tokens can be taken from, counted from 1."""
        self.bands = bands
        """F of its last layer."""

    @abstractmethod
    def layers(self, sound: Tensor) -> list[Tensor]:
        """Tokens (B, T, F, C) of every layer, the first first; the last after the final norm, where there is one."""

    def forward(self, sound: Tensor, chosen: Sequence[int] = ()) -> Tensor:
        """Tokens of the chosen layers side by side, of the last where none is named; (B, T, F, C), windows in their order of time."""
        every = self.layers(sound)
        return torch.cat([every[layer - 1] for layer in chosen or (self.depth,)], dim=3)

    def token_shape(self, chosen: Sequence[int] = ()) -> tuple[int, int]:
        """F and C of the tokens of the chosen layers, found by encoding a window; of an encoder on the meta device it costs nothing.

        Raises:
            RuntimeError: their grids do not fit on each other.
        """
        heard = (1, EAT_FRAMES, MEL_BINS) if self.hears == "features" else (1, WINDOW_SAMPLES)
        with torch.no_grad():
            tokens = self(torch.empty(heard, device=next(self.parameters()).device), chosen)
        return int(tokens.shape[2]), int(tokens.shape[3])

    def train(self, mode: bool = True) -> Self:
        """Learn or not; a batch norm whose weights do not learn keeps its statistics too."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()
        return self

    def initialise(self, generator: torch.Generator) -> None:
        """Draw fresh weights: Xavier-uniform matrices, zero biases, small positions."""
        initialise_layers(self, generator)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv1d | nn.Embedding):
                nn.init.normal_(module.weight, std=POSITION_SPREAD, generator=generator)
                if isinstance(module, nn.Conv1d) and module.bias is not None:
                    nn.init.zeros_(module.bias)
            for parameter in module.parameters(recurse=False):
                if parameter.ndim >= 3 and not isinstance(module, nn.Conv1d | nn.Conv2d):
                    nn.init.normal_(parameter, std=POSITION_SPREAD, generator=generator)


class LogMelEncoder(TokenEncoder):
    """One that makes a log-mel of its own of the windows that it hears."""

    front_end: nn.Module

    @abstractmethod
    def encode(self, mel: Tensor) -> list[Tensor]:
        """Tokens of every layer from the front end's log-mel (B, frames, mel bands)."""

    def layers(self, sound: Tensor) -> list[Tensor]:
        """See `TokenEncoder`."""
        return self.encode(self.front_end(sound))
