"""What is usual for a machine: middle and spread of the figures of its recent normal windows.

Owns what several `WindowSummary` have in common. It judges nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.features.window_summary import FIRST_LAG, WindowSummary

F32 = NDArray[np.float32]
LEAST_LEVEL_STD_DB, LEAST_THIRD_OCTAVE_STD_DB, LEAST_DEPTH_STD, LEAST_REGULARITY_STD = 0.3, 0.5, 0.01, 0.03
SPEED_TOLERANCE = 0.025
"""How far a tone may move, as a fraction of its frequency, and still be the same tone."""
LAG_TOLERANCE = 4
"""Hundredths of a second that strokes may come early or late and still be on time."""
_LOUDEST, _MIDDLE = 5, 2  # places in LEVELS
_LEAST_PERIOD = 30  # hundredths of a second above the shortest lag


@dataclass(frozen=True)
class UsualSound:
    """Medians and standard deviations over normal windows; shapes and units as in `WindowSummary`."""

    third_octaves_db: F32
    third_octaves_std_db: F32
    envelopes_db: F32
    envelopes_std_db: F32
    sharpness_db: F32
    """(4,): how far the loudest level of a band lies above its middle."""
    sharpness_std_db: F32
    modulation: F32
    modulation_std: F32
    likeness: F32
    peaks_db: F32
    tones_db: F32
    loudest_tones_db: F32
    """(2049,): the most that any normal window has had there, or within the tolerance of speed."""
    period: int
    """Place in `repetition` after which strokes come again; the shortest that explains them."""
    regularity: float
    """How well they do."""
    regularity_std: float


def usual_sound(windows: Sequence[WindowSummary]) -> UsualSound:
    """What some windows, one or more, have in common."""
    octaves = np.stack([w.third_octaves_db for w in windows])
    envelopes = np.stack([w.envelopes_db for w in windows])
    modulation = np.stack([w.modulation for w in windows])
    tones = np.stack([w.tones_db for w in windows])
    repetition = np.stack([w.repetition for w in windows])
    sharpness = sharpness_db(envelopes)
    period = _period(np.median(repetition, axis=0))
    on_time = np.array([regularity(r, period) for r in repetition])
    return UsualSound(
        third_octaves_db=np.median(octaves, axis=0),
        third_octaves_std_db=np.maximum(octaves.std(axis=0), LEAST_THIRD_OCTAVE_STD_DB),
        envelopes_db=np.median(envelopes, axis=0),
        envelopes_std_db=np.maximum(envelopes.std(axis=0), LEAST_LEVEL_STD_DB),
        sharpness_db=np.median(sharpness, axis=0),
        sharpness_std_db=np.maximum(sharpness.std(axis=0), LEAST_LEVEL_STD_DB),
        modulation=np.median(modulation, axis=0),
        modulation_std=np.maximum(modulation.std(axis=0), LEAST_DEPTH_STD),
        likeness=np.median([w.likeness for w in windows], axis=0),
        peaks_db=np.median([w.peaks_db for w in windows], axis=0),
        tones_db=np.median(tones, axis=0),
        loudest_tones_db=_loudest_nearby(tones.max(axis=0)),
        period=period,
        regularity=float(np.median(on_time)),
        regularity_std=max(float(on_time.std()), LEAST_REGULARITY_STD),
    )


def sharpness_db(envelopes_db: F32) -> F32:
    """How far the loudest level lies above the middle; (…, 6) → (…)."""
    return np.asarray(envelopes_db[..., _LOUDEST] - envelopes_db[..., _MIDDLE], np.float32)


def regularity(repetition: F32, period: int) -> float:
    """How well strokes come again after a period, a place in `repetition`."""
    return float(repetition[max(0, period - LAG_TOLERANCE) : period + LAG_TOLERANCE + 1].max())


def _period(repetition: F32) -> int:
    best = _LEAST_PERIOD + int(np.argmax(repetition[_LEAST_PERIOD:]))
    for parts in (4, 3, 2):  # every second stroke is on time too
        shorter = round((best + FIRST_LAG) / parts) - FIRST_LAG
        if shorter >= _LEAST_PERIOD and regularity(repetition, shorter) > 0.8 * repetition[best]:
            return shorter
    return best


def _loudest_nearby(tones_db: F32) -> F32:
    """Running maximum over a range that grows with frequency."""
    lines = np.arange(tones_db.shape[0])
    width = 2 + (lines * SPEED_TOLERANCE).astype(np.int64)
    loudest = tones_db.copy()
    for shift in range(1, int(width.max()) + 1):
        up, down = np.roll(tones_db, shift), np.roll(tones_db, -shift)
        up[:shift], down[-shift:] = -np.inf, -np.inf
        loudest = np.where(width >= shift, np.maximum(loudest, np.maximum(up, down)), loudest)
    return loudest
