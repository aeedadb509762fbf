"""Where an anomalous window differs from the nearest normal one: which bands and which seconds, for people.

Owns a short memory of recent normal windows as coarse spectra (seconds × mel bands). The anomalous window is compared with the one of
them whose mean spectrum is nearest; a band's excess is measured in the standard deviations that the band has among the normal
windows, so that a band which always wanders counts less. It explains a score and makes none; NumPy only, no clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.features.log_mel import FEATURE, MEL_BINS, log_mel
from asd_daemon.judge.features.spectrogram_image import U8, spectrogram_image
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_S

F32 = NDArray[np.float32]
SECONDS = int(WINDOW_S)
GROUP = 4  # mel bands that are told as one: 32 groups, a third of an octave or finer above 300 Hz
LEAST_STD = 0.25  # natural logarithm of power; about 1 dB: no band is steadier than a microphone's hiss
_IMAGES = 8
DB = 10 / np.log(10)  # decibel per unit of natural logarithm of power


@dataclass(frozen=True)
class Band:
    """A range of frequencies that differs."""

    low_hz: float
    high_hz: float
    difference_db: float
    """Louder than in the nearest normal window where positive, quieter where negative."""
    deviations: float
    """The same in standard deviations among recent normal windows."""


@dataclass(frozen=True)
class Difference:
    """How a window differs from the nearest normal one."""

    bands: tuple[Band, ...]
    """The most telling first."""
    seconds: tuple[int, ...]
    """Seconds of the window, counted from 0, that differ most; the most telling first."""
    compared_with: int
    """How many normal windows are remembered."""


class RecentNormalWindows:
    """The last normal windows of one machine.

    Args:
        most: how many are remembered.
        every: of the normal windows only each so-many-th is taken once half of the places are filled.
    """

    def __init__(self, most: int = 64, every: int = 6) -> None:
        self._windows: deque[F32] = deque(maxlen=most)
        self._images: deque[U8] = deque(maxlen=_IMAGES)  # of the last of them, 32 kB each
        self._every, self._passed = every, 0

    def __len__(self) -> int:
        return len(self._windows)

    def add(self, waveform: F32) -> None:
        """Remember a normal window, float32 (160 000,), if it is its turn."""
        self._passed += 1
        if len(self._windows) < (self._windows.maxlen or 0) // 2 or self._passed % self._every == 0:
            features = log_mel(waveform)
            self._windows.append(_coarse(features))
            self._images.append(spectrogram_image(features))

    def nearest_image(self, waveform: F32) -> U8 | None:
        """Image (249, 128) of the one of the last few normal windows that is nearest to a window, float32 (160 000,)."""
        if not self._images:
            return None
        normal = np.stack(list(self._windows))
        means, mean = _mean_power(normal), _mean_power(coarse_spectrum(waveform))
        std = np.maximum(means.std(axis=0), LEAST_STD)
        distances = np.square((means[-len(self._images) :] - mean) / std).sum(axis=1)
        return self._images[int(np.argmin(distances))]

    def compare(self, waveform: F32, most_bands: int = 3, most_seconds: int = 3) -> Difference | None:
        """How a window, float32 (160 000,), differs; None until a few normal ones are known."""
        if len(self._windows) < 3:
            return None
        window = coarse_spectrum(waveform)  # (S, G)
        normal = np.stack(list(self._windows))  # (N, S, G)
        means = _mean_power(normal)  # (N, G)
        std = np.maximum(means.std(axis=0), LEAST_STD)  # (G,)
        mean = _mean_power(window)
        nearest = int(np.argmin(np.square((means - mean) / std).sum(axis=1)))
        excess = mean - means[nearest]  # (G,)
        deviations = excess / std
        # A second by itself wanders more than the mean of ten
        std_of_second = np.maximum(normal.std(axis=(0, 1)), LEAST_STD)
        strange = np.square((window - means[nearest]) / std_of_second).mean(axis=1)  # (S,)
        return Difference(
            _bands(excess, deviations, most_bands),
            tuple(int(second) for second in np.argsort(-strange, kind="stable")[:most_seconds]),
            len(normal),
        )


def coarse_spectrum(waveform: F32) -> F32:
    """Natural logarithm of the mean power of each second in each group of mel bands; float32 (10, 32)."""
    return _coarse(log_mel(waveform))


def _coarse(features: F32) -> F32:
    power = np.exp(features)  # (T, 128)
    groups = power.reshape(power.shape[0], -1, GROUP).mean(axis=2)  # (T, G)
    seconds = np.array_split(groups, SECONDS)
    return np.asarray(np.log(np.stack([second.mean(axis=0) for second in seconds])), np.float32)


def _mean_power(seconds: F32) -> F32:
    """Logarithm of the power of whole windows, so that one loud second shows; (…, S, G) → (…, G)."""
    return np.asarray(np.log(np.exp(seconds).mean(axis=-2)), np.float32)


def _bands(excess: F32, deviations: F32, most: int) -> tuple[Band, ...]:
    """The groups that differ most, neighbours that differ alike told as one."""
    telling = np.argsort(-np.abs(deviations), kind="stable")[: 2 * most]
    telling = telling[np.abs(deviations[telling]) >= max(1.0, 0.25 * float(np.abs(deviations).max()))]
    edges = _edges_hz()
    bands: list[Band] = []
    for first, last in _runs(sorted(int(g) for g in telling), deviations):
        inside = slice(first, last + 1)
        peak = first + int(np.argmax(np.abs(deviations[inside])))
        difference_db, std = float(excess[peak] * DB), float(deviations[peak])
        bands.append(Band(edges[first], edges[last + 1], round(difference_db, 1), round(std, 1)))
    return tuple(sorted(bands, key=lambda band: -abs(band.deviations))[:most])


def _runs(groups: list[int], deviations: F32) -> list[tuple[int, int]]:
    """Neighbouring groups of the same sign, as first and last."""
    runs: list[tuple[int, int]] = []
    for group in groups:
        if runs and group == runs[-1][1] + 1 and deviations[group] * deviations[group - 1] > 0:
            runs[-1] = (runs[-1][0], group)
        else:
            runs.append((group, group))
    return runs


@lru_cache(maxsize=1)
def _edges_hz() -> tuple[float, ...]:
    """Limits of the groups, in whole Hz: mel bands are equally wide on the mel scale and overlap by half."""
    low, high = (1127 * np.log1p(hz / 700) for hz in (FEATURE.low_hz, min(FEATURE.high_hz, SAMPLE_RATE_HZ / 2)))
    step = (high - low) / (MEL_BINS + 1)
    edges = low + step * (np.arange(0, MEL_BINS + 1, GROUP) + 0.5)
    return tuple(float(round(hz)) for hz in 700 * np.expm1(edges / 1127))
