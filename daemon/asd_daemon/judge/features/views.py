"""Views of a window that need no training: what a vector of each says about the machine, and how far a window is from normal ones.

Owns the statistics over time of spectra, and whitening with shrinkage. Background noise only adds power, so the minimum over time of
a smoothed power is the machine that runs steadily (minimum statistics: Martin, IEEE Trans. Speech and Audio Processing 9(5), 2001);
machines that click show in the loud moments instead. Which view is right is chosen elsewhere (fusion.py). NumPy only, no file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from asd_daemon.errors import BundleError
from asd_daemon.judge.features.log_mel import log_mel
from asd_daemon.judge.features.power_spectrum import FRAME_SAMPLES, HOP_SAMPLES
from asd_daemon.waveform import SAMPLE_RATE_HZ

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

PARTS = 3
"""A window is also described by its thirds: they tell how much noise moves the vector while the machine stays the same."""
POWER_FLOOR = 1e-9
DEAF_BAND = (
    3  # lies between two FFT bins and never leaves the floor of the logarithm, so it would show the recording's gain
)
FINE_SAMPLES, FINE_HOP_SAMPLES, FINE_SMOOTHING_FRAMES = 512, 128, 5  # 31 Hz bins, smoothed over 64 ms
RHYTHM_BANDS = 16
RHYTHM_EDGES_HZ = np.geomspace(0.6, 50, 18)
SHRINKAGE = 0.5


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
VIEW_NAMES = (*VIEWS, FINE_FLOOR)
FRAMES_NEEDED = 100  # of a log-mel, so that each third still holds a quarter of a second


def describe(
    waveform: F32, features: F32 | None = None, *, views: Collection[str] = VIEW_NAMES, parts: bool = True
) -> dict[str, F32]:
    """Views of a window: name → (1 + PARTS, D), the whole window first and then its thirds.

    Args:
        waveform: float32 (N,) at 16 kHz.
        features: its log-mel (T, 128), where it is at hand.
        views: which, all of them in VIEW_NAMES.
        parts: whether the thirds are wanted; (1, D) without.

    Raises:
        ValueError: shorter than FRAMES_NEEDED frames of 10 ms.
    """
    mel = log_mel(waveform) if features is None else features
    if mel.shape[0] < FRAMES_NEEDED:
        raise ValueError(f"a view needs {FRAMES_NEEDED} frames of 10 ms, got {mel.shape[0]}")
    hearing = mel.copy()
    hearing[:, DEAF_BAND] = mel[:, DEAF_BAND + 1]
    count = 1 + PARTS if parts else 1
    described: dict[str, F32] = {}
    wanted = [name for name in VIEWS if name in views]
    if wanted:
        pieces = [Spectrogram.of(part) for part in _whole_and_parts(hearing)[:count]]
        described = {name: np.stack([VIEWS[name](piece) for piece in pieces]) for name in wanted}
    if FINE_FLOOR in views:
        power = _whole_and_parts(_fine_power(waveform))[:count]
        described[FINE_FLOOR] = np.stack([_level_free(floor(part, FINE_SMOOTHING_FRAMES)) for part in power])
    return described


@cache
def view_sizes() -> Mapping[str, int]:
    """D of every view."""
    noise = np.random.default_rng(0).normal(size=FRAMES_NEEDED * HOP_SAMPLES + FRAME_SAMPLES).astype(np.float32)
    return {name: int(vectors.shape[1]) for name, vectors in describe(noise, parts=False).items()}


def _whole_and_parts(spectrogram: F32) -> list[F32]:
    third = spectrogram.shape[0] // PARTS
    return [spectrogram, *(spectrogram[n * third : (n + 1) * third] for n in range(PARTS))]


def _fine_power(waveform: F32) -> F32:
    """Power (T, 255) without the two lowest bins, where removing a frame's DC leaves nothing."""
    frames = sliding_window_view(waveform.astype(np.float32, copy=False), FINE_SAMPLES)[::FINE_HOP_SAMPLES]
    spectrum = np.fft.rfft(frames * np.hanning(FINE_SAMPLES).astype(np.float32), axis=1)[:, 2:]
    return (spectrum.real**2 + spectrum.imag**2).astype(np.float32)


@dataclass(frozen=True)
class Whitening:
    """Distances in units of how much normal vectors differ: covariance, shrunk towards its mean variance.

    x → (x - mean) · outside + ((x - mean) · axesᵀ) · (gain · axes); the part outside the axes keeps one factor.
    """

    mean: F64  # (D,)
    axes: F64  # (R, D), orthonormal
    gain: F64  # (R,), added to `outside` along each axis
    outside: float

    @classmethod
    def fit(cls, whole: F32, parts: F32 | None = None, shrinkage: float = SHRINKAGE) -> Whitening:
        """Fit to normal vectors.

        Args:
            whole: (N, D), one vector a window, N ≥ 2.
            parts: (N, P, D), vectors of pieces of the same windows: what varies inside a window is noise, and counts as much as what
                varies between windows.
            shrinkage: share of the isotropic covariance, in (0, 1].

        Raises:
            ValueError: fewer than two windows, or a shrinkage outside (0, 1].
        """
        if whole.shape[0] < 2 or not 0 < shrinkage <= 1:
            raise ValueError(f"whitening needs two windows and 0 < shrinkage ≤ 1, got {whole.shape[0]} and {shrinkage}")
        mean = whole.mean(axis=0, dtype=np.float64)
        rows = [whole - mean]
        if parts is not None:
            rows.append((parts - parts.mean(axis=1, keepdims=True, dtype=np.float64)).reshape(-1, whole.shape[1]))
        dims = whole.shape[1]
        scaled = [r * np.sqrt(dims / energy) for r in rows if (energy := float((r**2).sum())) > 0]
        if not scaled:  # all windows are the same: nothing to whiten
            return cls(mean, np.zeros((0, dims)), np.zeros(0), 1.0)
        joined = np.concatenate(scaled) / np.sqrt(len(scaled))  # mean variance 1
        singular, axes = principal_axes(joined)
        outside = 1 / np.sqrt(shrinkage)
        gain = 1 / np.sqrt((1 - shrinkage) * singular**2 + shrinkage) - outside
        return cls(mean, axes, gain, float(outside))

    def apply(self, vectors: F32) -> F32:
        """(Q, D) → (Q, D)."""
        centred = vectors - self.mean
        return np.asarray(centred * self.outside + ((centred @ self.axes.T) * self.gain) @ self.axes, np.float32)

    def arrays(self) -> dict[str, F64]:
        """Everything, as plain arrays."""
        return {"mean": self.mean, "axes": self.axes, "gain": self.gain, "outside": np.array([self.outside])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.floating]]) -> Whitening:
        """The inverse of `arrays`.

        Raises:
            BundleError: an array is missing or its shape does not fit the others.
        """
        try:
            mean, axes, gain = (np.asarray(arrays[k], np.float64) for k in ("mean", "axes", "gain"))
            outside = np.asarray(arrays["outside"], np.float64)
        except KeyError as e:
            raise BundleError(f"whitening: array {e.args[0]!r} is missing; make the bundle again") from e
        if mean.ndim != 1 or axes.shape != (gain.shape[0], mean.shape[0]) or gain.ndim != 1 or outside.shape != (1,):
            raise BundleError(f"whitening: shapes {mean.shape}, {axes.shape}, {gain.shape}, {outside.shape} do not fit")
        return cls(mean, axes, gain, float(outside[0]))


def principal_axes(rows: F64, least: float = 1e-6) -> tuple[F64, F64]:
    """Singular values (R,), falling, and right singular vectors (R, D) of rows (N, D), down to a fraction of the largest.

    By the eigenvectors of the smaller Gram matrix, for LAPACK's SVD may end with "did not converge" on finite data. What squaring costs in
    precision lies where shrinkage leaves nothing of it.
    """
    is_wide = rows.shape[0] < rows.shape[1]
    values, vectors = np.linalg.eigh(rows @ rows.T if is_wide else rows.T @ rows)
    singular = np.sqrt(np.maximum(values[::-1], 0))
    kept = singular > least * singular[0]
    singular, vectors = singular[kept], vectors[:, ::-1][:, kept]
    axes = (rows.T @ vectors / singular).T if is_wide else vectors.T
    return singular, np.ascontiguousarray(axes)


def euclidean(queries: F32, bank: F32) -> F32:
    """Distances (Q, N) between rows."""
    q, b = queries.astype(np.float64), bank.astype(np.float64)
    squares = (q**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * q @ b.T
    return np.asarray(np.sqrt(np.maximum(squares, 0)), np.float32)
