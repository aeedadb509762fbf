"""Between waveform and features: the learned filter bank of SepReformer, and a short-time Fourier transform.

Owns what a separator of a size hears and how its output becomes sound again. A front works on frames that are cut and
joined elsewhere, and has no memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class SeparatorSize:
    """What tells one separator from another. Frame counts are at the encoder's rate: sample rate / stride."""

    name: str
    front: Literal["learned", "fourier"]
    kernel_samples: int
    stride_samples: int
    channels: int
    """Outputs of the learned encoder, or frequencies of the Fourier transform."""
    features: int
    stages: int
    """Halvings of the frame rate between encoder and bottleneck."""
    encoder_blocks: int = 2
    """Pairs of global and local block in a stage before the split."""
    decoder_blocks: int = 3
    """Triples of global, local and cross-source block in a stage after it."""
    heads: int = 8
    local_frames: int = 65
    reach_frames: int = 2000
    dropout: float = 0.05
    layer_scale: float = 1e-5


class LearnedFront(nn.Module):
    """The paper's encoder and decoder: a learned filter bank, its GELU, and the filter bank back."""

    def __init__(self, size: SeparatorSize) -> None:
        super().__init__()
        self.outputs = size.channels
        self.analysis = nn.Linear(size.kernel_samples, size.channels, bias=False)
        self.synthesis = nn.Linear(size.channels, size.kernel_samples, bias=False)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, kernel) → coefficients, and features to look at; here the same, (B, T, channels)."""
        coefficients = F.gelu(self.analysis(frames))
        return coefficients, coefficients

    def estimate(self, output: Tensor, coefficients: Tensor) -> Tensor:
        """Direct mapping: the network's output (B, J, T, channels) is the coefficients of the sources."""
        del coefficients
        return output

    def mask(self, output: Tensor, coefficients: Tensor) -> Tensor:
        """What the auxiliary heads do: a mask on the coefficients (B, T, channels) → (B, J, T, channels)."""
        return F.relu(output) * coefficients.unsqueeze(1)

    def decode(self, coefficients: Tensor) -> Tensor:
        """(…, T, channels) → frames (…, T, kernel)."""
        frames: Tensor = self.synthesis(coefficients)
        return frames


class FourierFront(nn.Module):
    """A short-time Fourier transform as two fixed matrices; a source is a complex mask on it.

    A real mask keeps the phase of the noise: with the best one of all, a machine at −10 dB gains 15 dB and no more.
    """

    cosines: Tensor
    sines: Tensor
    inverse_cosines: Tensor
    inverse_sines: Tensor

    def __init__(self, size: SeparatorSize) -> None:
        super().__init__()
        K, hop = size.kernel_samples, size.stride_samples
        if size.channels != K // 2 + 1 or K % (2 * hop):
            raise ValueError(f"size {size.name}: {size.channels} frequencies, kernel {K}, stride {hop} don't fit")
        self.outputs = 2 * size.channels
        distance = torch.arange(K // 2, dtype=torch.float64)[:, None]  # samples from the middle of the frame
        angle = 2 * math.pi / K * distance * torch.arange(K // 2 + 1, dtype=torch.float64)
        window = torch.cos(math.pi * distance / K)  # its square, a Hann window, sums to K / 2·hop over the frames
        forth, back = math.sqrt(2 / K) * window, math.sqrt(2 / K) * hop / K * window
        weight = torch.full((K // 2 + 1,), 2.0, dtype=torch.float64)
        weight[0] = weight[-1] = 1.0  # the constant and the highest frequency have no mirror image
        self.register_buffer("cosines", (forth * angle.cos()).float(), persistent=False)
        self.register_buffer("sines", (-forth * angle.sin())[1:].float(), persistent=False)
        self.register_buffer("inverse_cosines", (back * angle.cos() * weight).T.float(), persistent=False)
        self.register_buffer("inverse_sines", (-back * angle.sin() * weight)[1:].T.float(), persistent=False)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, kernel) → real and imaginary parts (B, T, 2·channels), and log magnitudes (B, T, channels).

        The phase counts from the middle of the frame. So the real part sees the sum of the samples left and right of it
        and the imaginary part their difference: half the matrices, half the work. The window is zero at the first sample.
        """
        middle = frames.shape[-1] // 2
        before, after = frames[..., 1:middle].flip(-1), frames[..., middle + 1 :]
        real = torch.cat([frames[..., middle : middle + 1], after + before], dim=-1) @ self.cosines
        imaginary = (after - before) @ self.sines
        magnitudes = 0.5 * torch.log(real.square() + imaginary.square() + 1e-5)
        return torch.cat([real, imaginary], dim=-1), magnitudes

    def estimate(self, output: Tensor, coefficients: Tensor) -> Tensor:
        """Complex masks, from (B, J, T, 2·channels), times (B, T, 2·channels)."""
        real, imaginary = coefficients.unsqueeze(1).chunk(2, dim=-1)
        mask_real, mask_imaginary = output.chunk(2, dim=-1)
        return torch.cat(
            [mask_real * real - mask_imaginary * imaginary, mask_real * imaginary + mask_imaginary * real], dim=-1
        )

    def mask(self, output: Tensor, coefficients: Tensor) -> Tensor:
        """As estimate."""
        return self.estimate(output, coefficients)

    def decode(self, coefficients: Tensor) -> Tensor:
        """(…, T, 2·channels) → frames (…, T, kernel)."""
        real, imaginary = coefficients.chunk(2, dim=-1)
        even, odd = real @ self.inverse_cosines, imaginary @ self.inverse_sines
        middle, sides = even[..., :1], even[..., 1:]
        return torch.cat([torch.zeros_like(middle), (sides - odd).flip(-1), middle, sides + odd], dim=-1)
