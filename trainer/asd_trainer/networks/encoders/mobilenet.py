"""EfficientAT's MobileNetV3 (Schmid et al., arXiv 2211.04772; Howard et al., ICCV 2019): log-mel at 32 kHz → maps of channels.

Owns the architecture as released: inverted residuals with squeeze-and-excitation over channels, bands, or both at once (of which the larger
holds). Parameters bear the released names. The classifier is left out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from asd_trainer.networks.encoders.front_ends import DoubledRateFrontEnd
from asd_trainer.networks.encoders.interface import EncoderShape, LogMelEncoder

MEL_BANDS = 128
NORM_EPSILON, NORM_MOMENTUM = 1e-3, 0.01
SQUEEZE = 4
LAST_EXPANSION = 6
AXES = {"c": 1, "f": 2}


class Stage(NamedTuple):
    """An inverted residual at width 1."""

    kernel: int
    expanded: int
    out: int
    excites: bool
    hard: bool
    """Hard-swish instead of ReLU."""
    stride: int


STAGES = (
    Stage(3, 16, 16, excites=False, hard=False, stride=1),
    Stage(3, 64, 24, excites=False, hard=False, stride=2),
    Stage(3, 72, 24, excites=False, hard=False, stride=1),
    Stage(5, 72, 40, excites=True, hard=False, stride=2),
    Stage(5, 120, 40, excites=True, hard=False, stride=1),
    Stage(5, 120, 40, excites=True, hard=False, stride=1),
    Stage(3, 240, 80, excites=False, hard=True, stride=2),
    Stage(3, 200, 80, excites=False, hard=True, stride=1),
    Stage(3, 184, 80, excites=False, hard=True, stride=1),
    Stage(3, 184, 80, excites=False, hard=True, stride=1),
    Stage(3, 480, 112, excites=True, hard=True, stride=1),
    Stage(3, 672, 112, excites=True, hard=True, stride=1),
    Stage(5, 672, 160, excites=True, hard=True, stride=2),
    Stage(5, 960, 160, excites=True, hard=True, stride=1),
    Stage(5, 960, 160, excites=True, hard=True, stride=1),
)
FIRST_CHANNELS = 16


@dataclass(frozen=True)
class MobileNetSize:
    """What tells one from another."""

    width: float
    """Factor on all channels."""
    excited: str = "c"
    """Axes of squeeze-and-excitation: c channels, f bands."""


class MobileNet(LogMelEncoder):
    """Windows (B, 160 000) → tokens (B, 32, 4, C); its layers are the parts of `features`."""

    family = "efficientat"

    def __init__(self, size: MobileNetSize) -> None:
        channels, bands = scaled(FIRST_CHANNELS, size.width), halved(MEL_BANDS)
        parts: list[nn.Module] = [convolution(1, channels, 3, stride=2, activation=nn.Hardswish())]
        for stage in STAGES:
            bands = halved(bands) if stage.stride == 2 else bands
            parts.append(InvertedResidual(channels, stage, size, bands))
            channels = scaled(stage.out, size.width)
        last = LAST_EXPANSION * channels
        parts.append(convolution(channels, last, 1, activation=nn.Hardswish()))
        super().__init__(EncoderShape(self.family, asdict(size)), channels=last, depth=len(parts), bands=bands)
        self.front_end = DoubledRateFrontEnd()
        self.features = nn.Sequential(*parts)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw fresh weights by the fan-out of each convolution, as the authors do; with others sound dies away in so many of them."""
        super().initialise(generator)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", generator=generator)

    def encode(self, mel: Tensor) -> list[Tensor]:
        """Tokens of every part, from a log-mel (B, frames, 128); the grid grows coarser and the channels more."""
        maps, found = mel.transpose(1, 2)[:, None], []  # (B, 1, bands, frames)
        for part in self.features:
            maps = part(maps)
            found.append(maps.permute(0, 3, 2, 1))
        return found


class InvertedResidual(nn.Module):
    """Widen, filter each channel, excite, narrow; added to what came in where the shape stays."""

    def __init__(self, channels: int, stage: Stage, size: MobileNetSize, bands: int) -> None:
        super().__init__()
        expanded, out = scaled(stage.expanded, size.width), scaled(stage.out, size.width)
        activation = nn.Hardswish if stage.hard else nn.ReLU
        parts: list[nn.Module] = []
        if expanded != channels:
            parts.append(convolution(channels, expanded, 1, activation=activation()))
        parts.append(
            convolution(expanded, expanded, stage.kernel, stride=stage.stride, groups=expanded, activation=activation())
        )
        if stage.excites:
            parts.append(Excitations({"c": expanded, "f": bands}, size.excited))
        parts.append(convolution(expanded, out, 1))
        self.block = nn.Sequential(*parts)
        self.adds = stage.stride == 1 and channels == out

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, bands, frames) → (B, C', bands', frames')."""
        made: Tensor = self.block(maps)
        return made + maps if self.adds else made


class Excitations(nn.Module):
    """Squeeze-and-excitation (Hu et al., CVPR 2018) of each axis alone; of several the larger holds."""

    def __init__(self, widths: dict[str, int], axes: str) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList(Excitation(widths[axis], AXES[axis]) for axis in axes)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, bands, frames), each scaled."""
        every = [excitation(maps) for excitation in self.conc_se_layers]
        return torch.stack(every).amax(dim=0) if len(every) > 1 else every[0]


class Excitation(nn.Module):
    """A factor for each place of one axis, from the means over the others."""

    def __init__(self, width: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        narrow = divisible(width // SQUEEZE)
        self.fc1, self.fc2 = nn.Linear(width, narrow), nn.Linear(narrow, width)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, bands, frames), scaled."""
        others = [axis for axis in (1, 2, 3) if axis != self.axis]
        factor = self.fc2(self.fc1(maps.mean(dim=others)).relu()).sigmoid()
        shape = [maps.shape[0], 1, 1, 1]
        shape[self.axis] = -1
        excited: Tensor = factor.view(shape) * maps
        return excited


def convolution(
    channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1, activation: nn.Module | None = None
) -> nn.Sequential:
    """A convolution that keeps the size up to its stride, with batch norm and activation."""
    conv = nn.Conv2d(channels, out, kernel, stride, padding=(kernel - 1) // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(out, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)
    return nn.Sequential(conv, norm, *([] if activation is None else [activation]))


def scaled(channels: int, width: float) -> int:
    """Channels at a width, a multiple of 8."""
    return divisible(channels * width)


def divisible(number: float, divisor: int = 8) -> int:
    """The nearest multiple of 8, but never less than nine tenths (MobileNet's rule)."""
    rounded = max(divisor, int(number + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * number else rounded


def halved(size: int) -> int:
    """Places of an axis after a stride of 2."""
    return (size + 1) // 2
