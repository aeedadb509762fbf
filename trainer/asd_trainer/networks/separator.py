"""The separator: SepReformer (arXiv 2406.05983), which splits a recording into the machine and the noise around it.

Owns the network and its sizes. It knows no loss, no training data and no file. What is ours and not the paper's: the
order of the two outputs is fixed, so no permutation is searched; they sum to the recording and keep its level; and
the `edge` size, whose encoder is a short-time Fourier transform with a mask instead of a learned one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asd_trainer.networks.separator_blocks import (
    BatchNorm,
    CrossSourceBlock,
    FramewiseConvolution,
    GlobalBlock,
    LocalBlock,
    RelativePosition,
    SequenceNorm,
    hold,
)
from asd_trainer.networks.separator_fronts import FourierFront, LearnedFront, SeparatorSize
from asd_trainer.training.recomputation import Recomputable

__all__ = ["SIZES", "SOURCES", "Separation", "Separator", "SeparatorSize"]

SOURCES = ("machine", "noise")
_LEVEL_FLOOR = 1e-5  # full scale is 1; a 16-bit recording's least step is 3e-5


def _published(name: str, features: int, stages: int, stride: int, dropout: float = 0.05) -> SeparatorSize:
    return SeparatorSize(name, "learned", 4 * stride, stride, 256, features, stages, dropout=dropout)


SIZES: dict[str, SeparatorSize] = {
    size.name: size
    for size in (
        _published("tiny", features=64, stages=4, stride=4),
        _published("small", features=64, stages=5, stride=2),
        _published("base", features=128, stages=4, stride=4),
        _published("medium", features=128, stages=5, stride=2),
        _published("large", features=256, stages=4, stride=4, dropout=0.1),
        SeparatorSize(
            "edge",
            front="fourier",
            kernel_samples=1024,  # 64 ms tell tones apart: classical masks gain 0.7 to 2.4 dB over 32 ms
            stride_samples=512,
            channels=513,
            features=64,
            stages=3,
            encoder_blocks=1,
            decoder_blocks=1,
            heads=4,
            local_frames=33,
            reach_frames=100,
            dropout=0.0,
            layer_scale=0.1,
        ),
    )
}


@dataclass(frozen=True)
class Separation:
    """What training looks at: the sources, and what every decoder stage would have said.

    sources and each of stages: float32, shape (B, 2, samples), in the order of SOURCES.
    """

    sources: Tensor
    stages: tuple[Tensor, ...]


class SourceSplit(Recomputable, nn.Module):
    """The early split: one sequence becomes one per source. (B, T, F) → (B·J, T, F)."""

    def __init__(self, features: int, sources: int) -> None:
        super().__init__()
        self.sources = sources
        self.widen = nn.Linear(features, 4 * features * sources)
        self.narrow = nn.Linear(2 * features * sources, features * sources)
        self.norm = SequenceNorm(features)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, F) → (B·J, T, F), the J sources of a mixture next to each other."""
        B, T, width = frames.shape
        split: Tensor = self.narrow(F.glu(self.widen(frames), dim=-1)).view(B, T, self.sources, width)
        out: Tensor = self.norm(split.transpose(1, 2).reshape(B * self.sources, T, width))
        return out


class EncoderStage(nn.Module):
    """Global and local blocks at one frame rate, in turn."""

    def __init__(self, size: SeparatorSize) -> None:
        super().__init__()
        width, drop, scale = size.features, size.dropout, size.layer_scale
        self.global_blocks = nn.ModuleList(
            GlobalBlock(width, size.heads, drop, scale) for _ in range(size.encoder_blocks)
        )
        self.local_blocks = nn.ModuleList(
            LocalBlock(width, size.local_frames, drop, scale) for _ in range(size.encoder_blocks)
        )

    def forward(self, frames: Tensor, positions: Tensor) -> Tensor:
        """(B, T, F) → (B, T, F)."""
        for attend, look in zip(self.global_blocks, self.local_blocks, strict=True):
            frames = look(attend(frames, positions))
        return frames


class DecoderStage(nn.Module):
    """Doubles the frame rate, takes in the encoder's frames of that rate, and refines the sources together."""

    def __init__(self, size: SeparatorSize) -> None:
        super().__init__()
        width, drop, scale = size.features, size.dropout, size.layer_scale
        self.fuse = nn.Linear(2 * width, width)
        blocks = range(size.decoder_blocks)
        self.global_blocks = nn.ModuleList(GlobalBlock(width, size.heads, drop, scale) for _ in blocks)
        self.local_blocks = nn.ModuleList(LocalBlock(width, size.local_frames, drop, scale) for _ in blocks)
        self.cross_blocks = nn.ModuleList(
            CrossSourceBlock(width, size.heads, len(SOURCES), drop, scale) for _ in blocks
        )

    def forward(self, frames: Tensor, skip: Tensor, positions: Tensor) -> Tensor:
        """(B·J, T / 2, F) and the skip (B·J, T, F) → (B·J, T, F)."""
        frames = self.fuse(torch.cat([hold(frames, 2), skip], dim=-1))
        for attend, look, cross in zip(self.global_blocks, self.local_blocks, self.cross_blocks, strict=True):
            frames = cross(look(attend(frames, positions)))
        return frames


class OutputLayer(Recomputable, nn.Sequential):
    """From the frames of the sources to what the front makes sound of."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__(nn.Linear(features, 4 * features), nn.GLU(dim=-1), nn.Linear(2 * features, outputs))


class Separator(nn.Module):
    """SepReformer of one size; see SIZES.

    The recording is brought to unit level for the network and its level given back to the sources. It is padded with
    zeros inside, so that any length of at least one sample goes in and the same length comes out.
    """

    def __init__(self, size: SeparatorSize) -> None:
        super().__init__()
        self.size = size
        self.front: LearnedFront | FourierFront = (LearnedFront if size.front == "learned" else FourierFront)(size)
        self.norm = SequenceNorm(size.channels)
        self.project = nn.Linear(size.channels, size.features, bias=False)
        self.positions = RelativePosition(size.features // size.heads, size.reach_frames)
        self.encoder = nn.ModuleList(EncoderStage(size) for _ in range(size.stages + 1))
        self.down = nn.ModuleList(
            nn.Sequential(FramewiseConvolution(size.features, 5, stride=2), BatchNorm(size.features), nn.GELU())
            for _ in range(size.stages)
        )
        self.split = SourceSplit(size.features, len(SOURCES))
        self.decoder = nn.ModuleList(DecoderStage(size) for _ in range(size.stages))
        self.output = OutputLayer(size.features, self.front.outputs)
        self.auxiliary = nn.ModuleList(  # in training only
            OutputLayer(size.features, self.front.outputs) for _ in range(size.stages)
        )

    def forward(self, mixture: Tensor) -> Tensor:
        """Split recordings float32 (B, samples) into (B, 2, samples): machine, noise. Their sum is the recording."""
        level, coefficients, frames = self._hear(mixture)
        last, _ = self._separate(frames)
        return self._sources(self.output, last, coefficients, mixture, level, direct=True)

    def with_stages(self, mixture: Tensor) -> Separation:
        """The same with the auxiliary head at the input of every decoder stage, for training."""
        level, coefficients, frames = self._hear(mixture)
        last, inputs = self._separate(frames)
        heads = zip(self.auxiliary, inputs, strict=True)
        return Separation(
            sources=self._sources(self.output, last, coefficients, mixture, level, direct=True),
            stages=tuple(
                self._sources(head, entering, coefficients, mixture, level, direct=False) for head, entering in heads
            ),
        )

    @property
    def shortest_samples(self) -> int:
        """Sound that fills the two frames which the bottleneck needs to compare anything."""
        return (2 << self.size.stages) * self.size.stride_samples

    def padded_frames(self, samples: int) -> int:
        """Frames that a recording of so many samples is padded to: every sample in kernel / stride frames, at least
        two frames at the bottleneck and no remainder at any stage.
        """
        block = 1 << self.size.stages
        frames = (
            math.ceil(samples / self.size.stride_samples) + self.size.kernel_samples // self.size.stride_samples - 1
        )
        return block * max(2, math.ceil(frames / block))

    def _hear(self, mixture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, samples) → level (B, 1), coefficients (B, T, …) and features (B, T, F)."""
        level = torch.sqrt(mixture.square().mean(dim=1, keepdim=True) + _LEVEL_FLOOR**2)
        hop, T = self.size.stride_samples, self.padded_frames(mixture.shape[1])
        parts = self.size.kernel_samples // hop
        left = (parts - 1) * hop
        padded = F.pad(mixture / level, (left, T * hop - mixture.shape[1]))
        blocks = padded.view(mixture.shape[0], T + parts - 1, hop)
        frames = torch.cat([blocks[:, part : part + T] for part in range(parts)], dim=-1)  # (B, T, kernel)
        coefficients, seen = self.front.encode(frames)
        return level, coefficients, self.project(self.norm(seen))

    def _separate(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, T, F) → the last frames of the sources (B·J, T, F) and what entered each decoder stage, coarsest first."""
        positions = self.positions(frames.shape[1] // 2**self.size.stages)
        skips: list[Tensor] = []
        for stage, down in zip(self.encoder, self.down, strict=False):
            frames = stage(frames, positions)
            skips.append(self.split(frames))
            frames = down(frames)
        frames = self.split(self.encoder[-1](frames, positions))
        inputs: list[Tensor] = []
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            inputs.append(frames)
            frames = stage(frames, skip, positions)
        return frames, inputs

    def _sources(
        self, head: nn.Module, frames: Tensor, coefficients: Tensor, mixture: Tensor, level: Tensor, *, direct: bool
    ) -> Tensor:
        """Frames of the sources (B·J, T', F) → waveforms (B, J, samples) that sum to the mixture.

        What is missing or too much is shared equally among the sources (mixture consistency, arXiv 1811.08521).
        With two sources that is half the mixture plus and minus half the difference, so only the difference is decoded.
        """
        B, samples = mixture.shape
        T, hop = coefficients.shape[1], self.size.stride_samples
        output = head(hold(frames, T // frames.shape[1]))
        output = output.view(B, len(SOURCES), T, self.front.outputs)
        sources = (self.front.estimate if direct else self.front.mask)(output, coefficients)
        pieces = self.front.decode(sources[:, 0] - sources[:, 1])  # (B, T, kernel)
        parts = self.size.kernel_samples // hop
        shifted = [
            F.pad(pieces[..., part * hop : (part + 1) * hop], (0, 0, part, parts - 1 - part)) for part in range(parts)
        ]
        left = (parts - 1) * hop
        half = 0.5 * level * torch.stack(shifted).sum(dim=0).reshape(B, -1)[:, left : left + samples]
        return torch.stack([0.5 * mixture + half, 0.5 * mixture - half], dim=1)
