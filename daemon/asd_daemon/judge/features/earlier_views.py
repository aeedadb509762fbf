"""Views by which earlier versions (0.1 and 0.2) judged: kept so that what they learned is judged on.

Statistics over time of log-mel spectra, free of their common level. Nothing new is learned by them. NumPy only, no file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from asd_daemon.judge.features.power_spectrum import HOP_SAMPLES
from asd_daemon.waveform import SAMPLE_RATE_HZ

F32 = NDArray[np.float32]

PARTS = 3
"""A window is also described by its thirds: they tell how much noise moves the vector while the machine stays the same."""
POWER_FLOOR = 1e-9
DEAF_BAND = (
    3  # lies between two FFT bins and never leaves the floor of the logarithm, so it would show the recording's gain
)
FINE_SAMPLES, FINE_HOP_SAMPLES, FINE_SMOOTHING_FRAMES = 512, 128, 5  # 31 Hz bins, smoothed over 64 ms
RHYTHM_BANDS = 16
RHYTHM_EDGES_HZ = np.geomspace(0.6, 50, 18)


def floor(power: F32, smoothing_frames: int) -> F32:
    """Logarithm of the least smoothed power of every band: (T, F) → (F,)."""
    total = np.cumsum(power, axis=0, dtype=np.float64)
    sums = total[smoothing_frames - 1 :].copy()
    sums[1:] -= total[:-smoothing_frames]
    return np.asarray(np.log(sums.min(axis=0) / smoothing_frames + POWER_FLOOR), np.float32)


def _level_free(vector: F32) -> F32:
    """Gains of recordings differ; the mean of a log spectrum is its level."""
    return np.asarray(vector - vector.mean(dtype=np.float64), np.float32)


@dataclass(frozen=True)
class Spectrogram:
    """A log-mel with what several views take from it."""

    mel: F32  # (T, 128)
    power: F32  # (T, 128), the log-mel's exponential
    ranked: F32  # (128, T), every band from quiet to loud

    @classmethod
    def of(cls, mel: F32) -> Spectrogram:
        """Take a log-mel (T, 128) apart."""
        return cls(mel, np.exp(mel), np.sort(np.ascontiguousarray(mel.T), axis=1))

    def quantiles(self, *percent: float) -> F32:
        """Percentiles over time, linear between ranks: (len(percent) · 128,), free of their common level."""
        places = np.array(percent) / 100 * (self.ranked.shape[1] - 1)
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, self.ranked.shape[1] - 1)
        taken = self.ranked[:, low] + (places - low) * (self.ranked[:, high] - self.ranked[:, low])
        return _level_free(np.asarray(taken.T.ravel(), np.float32))


def _moments(spectrogram: Spectrogram) -> F32:
    return np.concatenate([_level_free(spectrogram.mel.mean(axis=0)), spectrogram.mel.std(axis=0)])


def _rhythm(spectrogram: Spectrogram) -> F32:
    """Spectrum of each band's ups and downs in steps of equal ratio, as natural logarithm of power."""
    frames = spectrogram.mel.shape[0]
    bands = spectrogram.mel.reshape(frames, RHYTHM_BANDS, -1).mean(axis=2)
    moving = (bands - bands.mean(axis=0)) * np.hanning(frames).astype(np.float32)[:, None]
    power = np.abs(np.fft.rfft(moving, axis=0)) ** 2 / frames
    hz = np.arange(power.shape[0]) * (SAMPLE_RATE_HZ / HOP_SAMPLES / frames)
    starts = np.minimum(np.searchsorted(hz, RHYTHM_EDGES_HZ), hz.shape[0] - 1)
    steps = [power[start : max(end, start + 1)].mean(axis=0) for start, end in pairwise(starts)]
    return np.asarray(np.log(np.stack(steps) + 1e-6), np.float32).ravel()


VIEWS: Mapping[str, Callable[[Spectrogram], F32]] = {
    "floor-short": lambda spectrogram: _level_free(floor(spectrogram.power, 3)),
    "floor-long": lambda spectrogram: _level_free(floor(spectrogram.power, 8)),
    "quiet": lambda spectrogram: spectrogram.quantiles(1, 10),
    "middle": lambda spectrogram: spectrogram.quantiles(25, 50),
    "loud": lambda spectrogram: spectrogram.quantiles(90, 99),
    "moments": _moments,
    "rhythm": _rhythm,
}
"""Pieces of a window → vector, by name."""
FINE_FLOOR = "floor-fine"
EARLIER_VIEW_NAMES = (*VIEWS, FINE_FLOOR)


def earlier_view_vectors(waveform: F32, mel: F32, views: Collection[str], *, parts: bool) -> dict[str, F32]:
    """Views of a window (N,) with its log-mel (T, 128): name → (1 + PARTS, D), or (1, D) without `parts`."""
    audible_mel = mel.copy()
    audible_mel[:, DEAF_BAND] = mel[:, DEAF_BAND + 1]
    count = 1 + PARTS if parts else 1
    described: dict[str, F32] = {}
    wanted = [name for name in VIEWS if name in views]
    if wanted:
        pieces = [Spectrogram.of(part) for part in _whole_and_parts(audible_mel)[:count]]
        described = {name: np.stack([VIEWS[name](piece) for piece in pieces]) for name in wanted}
    if FINE_FLOOR in views:
        power = _whole_and_parts(_fine_power(waveform))[:count]
        described[FINE_FLOOR] = np.stack([_level_free(floor(part, FINE_SMOOTHING_FRAMES)) for part in power])
    return described


def _whole_and_parts(spectrogram: F32) -> list[F32]:
    third = spectrogram.shape[0] // PARTS
    return [spectrogram, *(spectrogram[n * third : (n + 1) * third] for n in range(PARTS))]


def _fine_power(waveform: F32) -> F32:
    """Power (T, 255) without the two lowest bins, where removing a frame's DC leaves nothing."""
    frames = sliding_window_view(waveform.astype(np.float32, copy=False), FINE_SAMPLES)[::FINE_HOP_SAMPLES]
    spectrum = np.fft.rfft(frames * np.hanning(FINE_SAMPLES).astype(np.float32), axis=1)[:, 2:]
    return (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
