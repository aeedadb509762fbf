"""A log-mel as a small image: what is kept of a window to be shown to people, a few kilobytes that no sound can be made of.

Owns the size of a picture element in time, frequency and level.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.features.log_mel import ENERGY_FLOOR, FEATURE, MEL_BINS
from asd_daemon.waveform import SAMPLE_RATE_HZ

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
FRAMES = 4
"""Frames of 10 ms that are one column."""
COLUMN_S = FRAMES * 0.01
_FLOOR = float(np.log(ENERGY_FLOOR))
_STEP = 0.1  # of natural logarithm of power: 0.43 dB, 255 of them are 110 dB


def spectrogram_image(features: F32) -> U8:
    """A log-mel, float32 (T, 128) → levels in steps of 0.43 dB above the floor; uint8 (T // 4, 128), frequency rising."""
    columns = features.shape[0] // FRAMES
    mean = features[: columns * FRAMES].reshape(columns, FRAMES, MEL_BINS).mean(axis=1)
    return np.asarray(np.clip((mean - _FLOOR) / _STEP, 0, 255), np.uint8)


def row_of(hz: float) -> float:
    """Which row of an image a frequency lies in, counted from 0 at the lowest; rows are equally wide on the mel scale."""
    low, high, at = (
        1127 * np.log1p(f / 700) for f in (FEATURE.low_hz, min(FEATURE.high_hz, SAMPLE_RATE_HZ / 2), max(hz, 0.0))
    )
    return float(np.clip((at - low) / (high - low) * (MEL_BINS + 1) - 0.5, 0, MEL_BINS))
