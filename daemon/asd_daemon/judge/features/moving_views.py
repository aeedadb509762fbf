"""Views of what moves above the steady part of a window, for machines that click, slide and turn.

How fast bands go up and down (rhythm), what a stroke sounds like (strokes), whether strokes keep time (clock), which bands move together
(coupling), how fast bands change (texture). Levels are relative to the steady part's. NumPy only, no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.features.power_spectrum import HOP_SAMPLES
from asd_daemon.judge.features.steady_part import LevelledLogMels
from asd_daemon.waveform import SAMPLE_RATE_HZ

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
FRAMES_PER_SECOND = SAMPLE_RATE_HZ / HOP_SAMPLES  # 100
COARSE_BANDS = 16
RHYTHM_EDGES_HZ = np.geomspace(0.6, 50, 18)
STROKE_BANDS, STROKES, STROKE_GAP_FRAMES = 64, 15, 10
STROKE_LAG_FRAMES = (1, 5)  # where a stroke's spectrum is taken, after its onset
STROKE_MARGIN_FRAMES = (6, 20)  # from the ends of the window
CLOCK_LAG_FRAMES = np.unique(np.geomspace(4, 300, 60).astype(int))
COUPLING_HZ = (3.0, 50.0)
TEXTURE_LAG_FRAMES = (1, 3, 8, 20)
TINY = 1e-9


@dataclass(frozen=True)
class Movement:
    """What several views take from levelled log-mels of T frames."""

    window: F32
    """(T, 128), the window's own log-mel."""
    coarse: F32
    """(T, 16), the same in coarse bands."""
    coarse_above: F32
    """(T, 16), how far it lies above the median of the steady part, in coarse bands; 0 below."""
    stroke_bands: F32
    """(T, 64), how far it lies above that median, in finer bands."""
    onset: F32
    """(T,), how much louder the bands have become within 20 ms, smoothed."""

    @classmethod
    def of(cls, mels: LevelledLogMels) -> Movement:
        """Take levelled log-mels apart."""
        above = np.asarray(mels.window - np.median(mels.steady, axis=0), np.float32)
        stroke_bands = _band_means(above, STROKE_BANDS)
        rise = np.maximum(stroke_bands[2:] - stroke_bands[:-2], 0).mean(axis=1)
        onset = np.convolve(np.pad(rise, 1), [0.25, 0.5, 0.25], "same")
        coarse_above = _band_means(np.maximum(above, 0), COARSE_BANDS)
        coarse = _band_means(mels.window, COARSE_BANDS)
        return cls(mels.window, coarse, coarse_above, stroke_bands, np.asarray(onset, np.float32))


def _rhythm(movement: Movement) -> F32:
    """Modulation spectrum of every coarse band in 17 steps of equal ratio, natural logarithm of power: (272,)."""
    frames = movement.coarse_above.shape[0]
    power = np.abs(_modulation_spectrum(movement.coarse_above)) ** 2 / frames
    starts = np.minimum(np.searchsorted(_modulation_hz(frames), RHYTHM_EDGES_HZ), power.shape[0] - 1)
    ends = np.maximum(starts[1:], starts[:-1] + 1)
    total = np.cumsum(np.pad(power, ((1, 0), (0, 0))), axis=0, dtype=np.float64)
    means = (total[ends] - total[starts[:-1]]) / (ends - starts[:-1])[:, None]
    return np.asarray(np.log(means + 1e-6).ravel(), np.float32)


def _strokes(movement: Movement) -> F32:
    """Mean spectrum of the strongest strokes, 10 and 50 ms after their onsets: (128,)."""
    onsets = _strongest_onsets(movement.onset)
    return np.concatenate([movement.stroke_bands[onsets + lag].mean(axis=0) for lag in STROKE_LAG_FRAMES])


def _strongest_onsets(onset: F32) -> NDArray[np.int64]:
    """Frames of the highest peaks that lie apart, at most STROKES; the middle of the window where there is none."""
    peaks = np.flatnonzero((onset[1:-1] >= onset[:-2]) & (onset[1:-1] > onset[2:])) + 1
    before, after = STROKE_MARGIN_FRAMES
    peaks = peaks[(peaks > before) & (peaks < onset.shape[0] - after)]
    is_free = np.ones(onset.shape[0], bool)
    found: list[int] = []
    for peak in peaks[np.argsort(-onset[peaks], kind="stable")]:
        if is_free[peak]:
            found.append(int(peak))
            is_free[max(0, peak - STROKE_GAP_FRAMES) : peak + STROKE_GAP_FRAMES + 1] = False
        if len(found) == STROKES:
            break
    return np.array(sorted(found) or [onset.shape[0] // 2], np.int64)


def _clock(movement: Movement) -> F32:
    """Autocorrelation of the onsets at lags of equal ratio up to 3 s."""
    frames = movement.onset.shape[0]
    centred = movement.onset - movement.onset.mean()
    correlation = np.fft.irfft(np.abs(np.fft.rfft(centred, 2 * frames)) ** 2)[:frames]
    correlation = correlation / max(float(correlation[0]), TINY)
    lags = CLOCK_LAG_FRAMES[frames - 2 > CLOCK_LAG_FRAMES]
    return np.asarray((correlation[lags - 1] + correlation[lags] + correlation[lags + 1]) / 3, np.float32)


def _coupling(movement: Movement) -> F32:
    """Correlation of every two coarse bands' ups and downs from 3 to 50 Hz, as inverse hyperbolic tangent: (120,)."""
    spectrum = _modulation_spectrum(movement.coarse)
    hz = _modulation_hz(movement.coarse.shape[0])
    inside = spectrum[(hz >= COUPLING_HZ[0]) & (hz < COUPLING_HZ[1])]
    covariance = (inside.conj().T @ inside).real
    scale = np.sqrt(np.diag(covariance)) + 1e-6
    upper = np.triu_indices(COARSE_BANDS, 1)
    return np.asarray(np.arctanh(np.clip((covariance / scale[:, None] / scale)[upper], -0.98, 0.98)), np.float32)


def _texture(movement: Movement) -> F32:
    """Mean change of every band over 10, 30, 80 and 200 ms, as natural logarithm: (512,)."""
    mel = movement.window
    changes = [np.abs(mel[lag:] - mel[:-lag]).mean(axis=0) for lag in TEXTURE_LAG_FRAMES]
    return np.asarray(np.log(np.concatenate(changes) + 1e-6), np.float32)


MOVING_VIEWS: Mapping[str, Callable[[Movement], F32]] = {
    "moving-rhythm": _rhythm,
    "moving-strokes": _strokes,
    "moving-clock": _clock,
    "moving-coupling": _coupling,
    "moving-texture": _texture,
}
"""Movement of a window → vector, by name."""


def _band_means(mel: F32, bands: int) -> F32:
    return np.asarray(mel.reshape(mel.shape[0], bands, -1).mean(axis=2), np.float32)


def _modulation_spectrum(bands: F32) -> NDArray[np.complex128]:
    frames = bands.shape[0]
    return np.asarray(np.fft.rfft((bands - bands.mean(axis=0)) * np.hanning(frames)[:, None], axis=0))


def _modulation_hz(frames: int) -> F64:
    return np.asarray(np.arange(frames // 2 + 1) * (FRAMES_PER_SECOND / frames), np.float64)
