"""Front ends of released encoders: windows of 16 kHz → their own log-mels, in torch operations that any ONNX runtime has.

Owns the spectra (a Fourier transform as one convolution, in which framing, window, DC removal and pre-emphasis are folded), the mel
filters of each family and its scaling. Nothing here learns, and nothing of it is part of the released weights.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from asd_daemon.judge.features.log_mel import ENERGY_FLOOR, filter_weights
from asd_daemon.waveform import SAMPLE_RATE_HZ

F64 = NDArray[np.float64]


class PowerSpectrum(nn.Module):
    """Power (B, bins, T) of frames of a waveform (B, N): |DFT of `frame_map` applied to each frame|², frames `hop` samples apart."""

    basis: Tensor

    def __init__(self, frame_map: F64, hop: int, bins: int) -> None:
        """`frame_map` (fft, L): what becomes of the L samples of a frame before the transform, window included."""
        super().__init__()
        self.hop = hop
        fft = frame_map.shape[0]
        turns = np.outer(np.arange(bins), np.arange(fft)) % fft * (2 * np.pi / fft)
        parts = np.concatenate([np.cos(turns), -np.sin(turns)]) @ frame_map  # (2 · bins, L)
        self.register_buffer("basis", torch.from_numpy(parts.astype(np.float32))[:, None], persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """Analyse."""
        real, imaginary = F.conv1d(waveform[:, None], self.basis, stride=self.hop).chunk(2, dim=1)
        power: Tensor = real.square() + imaginary.square()
        return power


class FrontEnd(nn.Module):
    """Waveforms (B, 160 000) → log-mels (B, T, M) as a family's encoders want them."""

    filters: Tensor

    def __init__(self, frame_map: F64, hop: int, filters: F64) -> None:
        """`filters` (M, fft/2 + 1); bins above the last that any of them uses are not computed."""
        super().__init__()
        bins = int(np.flatnonzero(filters.any(axis=0))[-1]) + 1
        self.spectrum = PowerSpectrum(frame_map, hop, bins)
        kept = torch.from_numpy(filters[:, :bins].astype(np.float32))
        self.register_buffer("filters", kept, persistent=False)

    def mel(self, waveform: Tensor) -> Tensor:
        """Mel power, (B, M, T)."""
        mel: Tensor = self.filters @ self.spectrum(waveform)
        return mel


class KaldiFrontEnd(FrontEnd):
    """BEATs (Chen et al., arXiv 2212.09058): Kaldi's filter bank of samples of 16 bit, its Povey window, 25 ms frames every 10 ms."""

    SCALE, MEAN, DEVIATION = 2.0**15, 15.41663, 6.55582

    def __init__(self) -> None:
        filters = np.zeros((128, 257))
        filters[:, 1:256] = filter_weights().T
        super().__init__(self.SCALE * kaldi_frame_map(400, 512), 160, filters)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, 998, 128)."""
        logarithm = self.mel(waveform).clamp_min(ENERGY_FLOOR).log()
        return ((logarithm - self.MEAN) / (2 * self.DEVIATION)).transpose(1, 2)


class DecibelFrontEnd(FrontEnd):
    """CED (Dinkel et al., arXiv 2308.11957) and Dasheng (arXiv 2406.06992): 64 mel bands to 8 kHz in dB, at most 120 below the loudest."""

    FLOOR, RANGE_DB = 1e-10, 120.0

    def __init__(self) -> None:
        self.fft = 512
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.fft) / self.fft)
        super().__init__(np.diag(window), 160, htk_filters(64, self.fft, SAMPLE_RATE_HZ))

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, 1001, 64)."""
        padded = F.pad(waveform[:, None], (self.fft // 2, self.fft // 2), mode="reflect")[:, 0]
        decibel = 10 * self.mel(padded).clamp_min(self.FLOOR).log10()
        loudest = decibel.amax(dim=(1, 2), keepdim=True)
        return torch.maximum(decibel, loudest - self.RANGE_DB).transpose(1, 2)


class DoubledRateFrontEnd(FrontEnd):
    """EfficientAT (Schmid et al., arXiv 2211.04772): at 32 kHz, 128 mel bands to 15 kHz; sound of 16 kHz leaves the upper empty."""

    PREEMPHASIS, FLOOR, SHIFT, SCALE = 0.97, 1e-5, 4.5, 5.0
    FFT, FRAME, HOP = 1024, 800, 320
    SILENT_HZ = 9000.0  # from here on nothing is left of what the interpolation mirrors at 8 kHz

    interpolation: Tensor

    def __init__(self) -> None:
        rate_hz = 2 * SAMPLE_RATE_HZ
        window = np.diag(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.FRAME) / (self.FRAME - 1)))
        padding = np.zeros((self.FFT - self.FRAME, self.FRAME))
        filters = kaldi_filters(128, self.FFT, rate_hz, 15_000)
        filters[:, round(self.SILENT_HZ * self.FFT / rate_hz) :] = 0
        super().__init__(np.concatenate([window, padding]), self.HOP, filters)
        self.register_buffer("interpolation", torch.from_numpy(half_sample_filter())[None, None], persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, 1000, 128)."""
        fast = self.doubled(waveform)
        emphasised = fast[:, 1:] - self.PREEMPHASIS * fast[:, :-1]
        padded = F.pad(emphasised[:, None], (self.FRAME // 2, self.FRAME // 2), mode="reflect")[:, 0]
        return ((self.mel(padded) + self.FLOOR).log().transpose(1, 2) + self.SHIFT) / self.SCALE

    def doubled(self, waveform: Tensor) -> Tensor:
        """The waveform (B, N) at twice its rate, (B, 2N): its samples, and between them a windowed sinc's."""
        reach = self.interpolation.shape[2] // 2
        between = F.conv1d(F.pad(waveform[:, None], (reach - 1, reach)), self.interpolation)
        return torch.stack([waveform, between[:, 0]], dim=2).flatten(1)


class YamnetFrontEnd(FrontEnd):
    """YAMNet: magnitudes, 64 mel bands from 125 to 7500 Hz, patches of 0.96 s every 0.48 s."""

    OFFSET, PATCH, HOP = 0.001, 96, 48

    def __init__(self) -> None:
        length, fft = 400, 512
        window = np.zeros((fft, length))
        window[:length] = np.diag(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length))
        super().__init__(window, 160, kaldi_filters(64, fft, SAMPLE_RATE_HZ, 7500, low_hz=125))

    def forward(self, waveform: Tensor) -> Tensor:
        """Patches, (B, P, 96, 64)."""
        magnitude = self.spectrum(waveform).sqrt()
        logarithm = (self.filters @ magnitude + self.OFFSET).log()  # (B, 64, T)
        patches: Tensor = logarithm.unfold(2, self.PATCH, self.HOP)  # (B, 64, P, 96)
        return patches.permute(0, 2, 3, 1)


def kaldi_frame_map(length: int, fft: int) -> F64:
    """DC removal, pre-emphasis 0.97, Povey window and zero padding of a frame as one matrix (fft, length) (Kaldi's compute-fbank-feats)."""
    centred = np.eye(length) - 1 / length
    emphasis = np.eye(length) - 0.97 * np.eye(length, k=-1)
    emphasis[0, 0] = 1 - 0.97
    povey = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))) ** 0.85
    mapped = np.zeros((fft, length))
    mapped[:length] = povey[:, None] * (emphasis @ centred)
    return mapped


def htk_filters(bands: int, fft: int, rate_hz: int) -> F64:
    """Triangles equally wide on the mel scale and straight in hertz, from 0 to the Nyquist frequency; (bands, fft/2 + 1)."""
    hz = np.linspace(0, rate_hz / 2, fft // 2 + 1)
    top = 2595 * math.log10(1 + rate_hz / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    rising = (hz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - hz) / np.diff(edges)[1:, None]
    filters: F64 = np.maximum(0, np.minimum(rising, falling))
    return filters


def kaldi_filters(bands: int, fft: int, rate_hz: int, high_hz: float, low_hz: float = 0.0) -> F64:
    """Triangles equally wide and straight on the mel scale; the Nyquist bin is in none; (bands, fft/2 + 1)."""
    low, high = (1127 * math.log1p(edge / 700) for edge in (low_hz, high_hz))
    edges = np.linspace(low, high, bands + 2)
    mel = 1127 * np.log1p(np.arange(fft // 2) * (rate_hz / fft) / 700)
    step = edges[1] - edges[0]
    filters = np.zeros((bands, fft // 2 + 1))
    filters[:, :-1] = np.maximum(0, np.minimum(mel - edges[:-2, None], edges[2:, None] - mel) / step)
    return filters


def half_sample_filter(reach: int = 32, beta: float = 8.0) -> NDArray[np.float32]:
    """A Kaiser-windowed sinc of 2 · reach taps that gives the values half-way between samples."""
    at = np.arange(-reach + 0.5, reach)
    window = np.i0(beta * np.sqrt(np.maximum(0, 1 - (at / reach) ** 2))) / np.i0(beta)
    taps = np.sinc(at) * window
    return np.asarray(taps / taps.sum(), np.float32)
