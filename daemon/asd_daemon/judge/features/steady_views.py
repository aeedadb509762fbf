"""Views of what sounds all the time in a window, for machines that run: its spectrum at one level, whatever noise comes and goes over it.

Each view is a function of levelled log-mels, of a whole window or of a piece of one. NumPy only, no file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.features.steady_part import LevelledLogMels

F32 = NDArray[np.float32]
QUIET_PERCENT = (1, 10)
FLOOR_SMOOTHING_FRAMES = 5
TINY = 1e-9


def _steady_mean(mels: LevelledLogMels) -> F32:
    """Mean spectrum of the steady part, (128,)."""
    return np.asarray(mels.steady.mean(axis=0), np.float32)


def _steady_quiet(mels: LevelledLogMels) -> F32:
    """1st and 10th percentile over time of the steady part, linear between ranks: (256,)."""
    ranked = np.sort(np.ascontiguousarray(mels.steady.T), axis=1)
    places = np.array(QUIET_PERCENT) / 100 * (ranked.shape[1] - 1)
    low = places.astype(int)
    taken = ranked[:, low] + (places - low) * (ranked[:, low + 1] - ranked[:, low])
    return np.asarray(taken.T.ravel(), np.float32)


def _steady_floor(mels: LevelledLogMels) -> F32:
    """Logarithm of the least power of every band of the whole window, smoothed over 50 ms: (128,)."""
    total = np.cumsum(np.pad(np.exp(mels.window), ((1, 0), (0, 0))), axis=0, dtype=np.float64)
    least = (total[FLOOR_SMOOTHING_FRAMES:] - total[:-FLOOR_SMOOTHING_FRAMES]).min(axis=0)
    return np.asarray(np.log(np.maximum(least, TINY) / FLOOR_SMOOTHING_FRAMES), np.float32)


STEADY_VIEWS: Mapping[str, Callable[[LevelledLogMels], F32]] = {
    "steady-mean": _steady_mean,
    "steady-quiet": _steady_quiet,
    "steady-floor": _steady_floor,
}
"""Levelled log-mels → vector, by name."""
