"""Views of what moves above the steady part of a window, for machines that click, slide and turn.

How fast bands go up and down (rhythm), what a stroke sounds like (strokes), which bands move together (coupling), how fast bands change
(texture). Levels are relative to the steady part's. NumPy only, no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.features.power_spectrum import HOP_SAMPLES
from asd_daemon.judge.features.steady_part import LevelledLogMels
from asd_daemon.waveform import SAMPLE_RATE_HZ

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
FRAMES_PER_SECOND = SAMPLE_RATE_HZ / HOP_SAMPLES  # 100
BANDS = 16  # of eight mel bands each
RHYTHM_EDGES_HZ = np.geomspace(0.6, 50, 10)
RHYTHM_FLOOR = 1e-5
STROKES, STROKE_GAP_FRAMES, STROKE_RISE_FRAMES = 20, 10, 2
STROKE_SHARE = 0.7  # of the third strongest rise: a stroke that rises less is left out
STROKE_FRAMES = np.array([-2, 0, 1, 3, 6, 12])  # where a stroke's spectrum is taken, from its onset
COUPLING_HZ = (3.0, 50.0)
COUPLING_LIMIT = 0.98
TEXTURE_LAG_FRAMES = (1, 3, 8, 20)
TINY = 1e-6


@dataclass(frozen=True)
class Movement:
    """What several views take from levelled log-mels of T frames."""

    window: F32
    """(T, 128), the window's own log-mel."""
    above: F32
    """(T, 128), how far it lies above the mean of the steady part's."""

    @classmethod
    def of(cls, mels: LevelledLogMels) -> Movement:
        """Take levelled log-mels apart."""
        return cls(mels.window, np.asarray(mels.window - mels.steady.mean(axis=0), np.float32))


def _rhythm(movement: Movement) -> F32:
    """Power of every band's ups and downs above the steady part, in 9 steps of equal ratio, natural logarithm: (144,)."""
    spectrum, hz = _modulation_spectrum(_band_means(np.maximum(movement.above, 0)))
    power = spectrum.real**2 + spectrum.imag**2
    starts = np.minimum(np.searchsorted(hz, RHYTHM_EDGES_HZ), hz.shape[0] - 1)
    steps = [power[first : max(last, first + 1)].mean(axis=0) for first, last in pairwise(starts)]
    return np.asarray(np.log(np.stack(steps) / movement.above.shape[0] + RHYTHM_FLOOR).ravel(), np.float32)


def _strokes(movement: Movement) -> F32:
    """Mean of the spectra around the strongest onsets, from 20 ms before to 120 ms after: (96,)."""
    bands = _band_means(movement.above)
    frames = _strongest_onsets(movement.above)[:, None] + STROKE_FRAMES
    return np.asarray(bands[np.clip(frames, 0, bands.shape[0] - 1)].mean(axis=0).ravel(), np.float32)


def _strongest_onsets(above: F32) -> NDArray[np.int64]:
    """Frames at which most bands rise most, apart from each other and not much weaker than the third of them."""
    rise = np.zeros(above.shape[0], np.float32)
    rise[STROKE_RISE_FRAMES:] = np.maximum(above[STROKE_RISE_FRAMES:] - above[:-STROKE_RISE_FRAMES], 0).mean(axis=1)
    is_free = np.ones(rise.shape[0], bool)
    found: list[int] = []
    for frame in np.argsort(-rise, kind="stable"):
        if not is_free[frame]:
            continue
        if len(found) > 2 and rise[frame] < STROKE_SHARE * rise[found[2]]:
            break
        found.append(int(frame))
        if len(found) == STROKES:
            break
        is_free[max(frame - STROKE_GAP_FRAMES, 0) : frame + STROKE_GAP_FRAMES + 1] = False
    return np.array(found, np.int64)


def _coupling(movement: Movement) -> F32:
    """Correlation of every two bands' ups and downs from 3 to 50 Hz, as inverse hyperbolic tangent: (120,)."""
    spectrum, hz = _modulation_spectrum(_band_means(movement.window))
    inside = spectrum[(hz >= COUPLING_HZ[0]) & (hz < COUPLING_HZ[1])]
    covariance = (inside.conj().T @ inside).real
    scale = np.sqrt(np.diag(covariance)) + TINY
    correlation = (covariance / scale[:, None] / scale)[np.triu_indices(BANDS, 1)]
    return np.asarray(np.arctanh(np.clip(correlation, -COUPLING_LIMIT, COUPLING_LIMIT)), np.float32)


def _texture(movement: Movement) -> F32:
    """Mean change of every band over 10, 30, 80 and 200 ms, as natural logarithm: (512,)."""
    mel = movement.window
    changes = [np.abs(mel[lag:] - mel[:-lag]).mean(axis=0) for lag in TEXTURE_LAG_FRAMES]
    return np.asarray(np.log(np.concatenate(changes) + TINY), np.float32)


MOVING_VIEWS: Mapping[str, Callable[[Movement], F32]] = {
    "moving-rhythm": _rhythm,
    "moving-strokes": _strokes,
    "moving-coupling": _coupling,
    "moving-texture": _texture,
}
"""Movement of a window → vector, by name."""


def _band_means(mel: F32) -> F32:
    return np.asarray(mel.reshape(mel.shape[0], BANDS, -1).mean(axis=2), np.float32)


def _modulation_spectrum(bands: F32) -> tuple[NDArray[np.complex128], F64]:
    """Spectrum (K, BANDS) of bands over time, and its frequencies in Hz (K,)."""
    frames = bands.shape[0]
    spectrum = np.fft.rfft((bands - bands.mean(axis=0)) * np.hanning(frames)[:, None], axis=0)
    return np.asarray(spectrum), np.asarray(np.arange(spectrum.shape[0]) * (FRAMES_PER_SECOND / frames), np.float64)
