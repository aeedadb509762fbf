"""How the far microphone hears the machine: learned from normal windows, so that what it hears besides is the hall alone.

Where the near microphone is loudest beside the far one, the machine sounds alone; there, frequency by frequency, the far microphone is
fitted from the near one by least squares over two frames. Where nothing of that kind is ever heard, the hall drowns the machine at this
frequency, and there the far microphone is taken as it is. Owns what is known of the two microphones; it takes nothing away.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import UNREADABLE_ARRAY, BundleError, DataSetError
from asd_daemon.judge.hall.short_time_spectra import BINS, delayed, power_of, spectra_of

F32 = NDArray[np.float32]
C64 = NDArray[np.complex64]
ReadWindow = Callable[[], F32]
"""Gives a window of both microphones, (N, 2)."""

TAPS = 2
"""Frames of 64 ms by which one microphone is told from the other."""
MOST_WINDOWS = 48  # eight minutes; more change nothing
LEAST_WINDOWS = 4
_ALONE_SHARE = 0.05  # of the frames, those in which the near microphone is loudest beside the far one
_HALL_SHARE = 0.9  # beyond this part of the frames, so ordered, the hall is what is heard
_SMOOTHING_FRAMES = 5
_LOADING = 1e-3
_MOST_CROSSTALK = 0.5  # of amplitude: what is heard by the far microphone louder than that is the hall's
_TOLD_APART_DB = (
    6.0  # the two microphones' ratio must change so much over the windows, or nobody knows which is the hall
)
TINY = 1e-12


@dataclass(frozen=True)
class Crosstalk:
    """What is known of a machine's two microphones."""

    weights: C64
    """(TAPS, BINS): the far microphone's part that comes from the machine, from this frame and the one before of the near one."""
    hall_gain: float
    """How much louder the far microphone hears the hall than the near one does, as a factor of amplitude."""
    level_db: float
    """How much softer it hears the machine, in the median over frequency; negative."""

    def far_without_machine(self, near: C64, far: C64) -> C64:
        """Spectra (T, BINS) of what the far microphone hears of the hall."""
        return np.asarray(far - self.weights[0] * near - self.weights[1] * delayed(near), np.complex64)

    def save(self, file: Path) -> None:
        """Write it as arrays."""
        with file.open("wb") as out:
            np.savez(out, weights=self.weights, numbers=np.array([self.hall_gain, self.level_db]))

    @classmethod
    def load(cls, file: Path) -> Crosstalk:
        """What `save` wrote.

        Raises:
            BundleError: it can't be read as that.
        """
        try:
            with np.load(file, allow_pickle=False) as arrays:
                weights, numbers = arrays["weights"], arrays["numbers"]
        except (*UNREADABLE_ARRAY, zipfile.BadZipFile) as e:
            raise BundleError(f"{file}: can't be read: {e}") from e
        if weights.shape != (TAPS, BINS) or numbers.shape != (2,):
            raise BundleError(f"{file}: holds arrays of {weights.shape} and {numbers.shape}, not of two microphones")
        if not (np.isfinite(weights).all() and np.isfinite(numbers).all() and numbers[0] > 0):
            raise BundleError(f"{file}: holds numbers that are not finite or out of range")
        return cls(weights.astype(np.complex64), float(numbers[0]), float(numbers[1]))


NO_CROSSTALK = Crosstalk(np.zeros((TAPS, BINS), np.complex64), 1.0, -60.0)
"""A far microphone that does not hear the machine at all, and the hall as loud as the near one."""


def learn_crosstalk(windows: Sequence[ReadWindow]) -> Crosstalk:
    """Learn how the far microphone hears the machine.

    Args:
        windows: of the machine at work, both microphones; of more than 48, evenly chosen ones are read, each twice.

    Raises:
        DataSetError: fewer than four windows, or a microphone that hears nothing.
    """
    if len(windows) < LEAST_WINDOWS:
        raise DataSetError(
            f"{len(windows)} windows of two microphones are too few; at least {LEAST_WINDOWS} are needed"
        )
    places = np.unique(np.linspace(0, len(windows) - 1, min(len(windows), MOST_WINDOWS)).round().astype(int))
    chosen = [windows[int(place)] for place in places]
    ratios = np.concatenate([_near_above_far_db(*_spectra(read())) for read in chosen])
    limits = np.quantile(ratios, (1 - _ALONE_SHARE, 1 - _HALL_SHARE), axis=0).astype(np.float32)
    alone_db, hall_db = limits
    if not np.isfinite(limits).all():
        raise DataSetError("one of two microphones hears nothing")
    is_told_apart = float(np.median(alone_db - hall_db)) >= _TOLD_APART_DB
    hall_gain = max(1.0, float(10 ** (-np.median(hall_db) / 20))) if is_told_apart else 1.0
    weights = _fitted(chosen, alone_db)
    size = np.sqrt(power_of(weights).sum(axis=0))
    is_heard = size <= _MOST_CROSSTALK * hall_gain
    level = float(np.median(size[is_heard])) if is_heard.any() else _MOST_CROSSTALK * hall_gain
    level_db = 20 * float(np.log10(max(level, 1e-3)))
    return Crosstalk(weights * is_heard, hall_gain, level_db)


def _spectra(window: F32) -> tuple[C64, C64]:
    return spectra_of(np.ascontiguousarray(window[:, 0])), spectra_of(np.ascontiguousarray(window[:, 1]))


def _near_above_far_db(near: C64, far: C64) -> NDArray[np.float16]:
    """By how much the near microphone is louder, (T, BINS), over five frames."""
    return np.asarray(10 * np.log10((_smooth(near) + TINY) / (_smooth(far) + TINY)), np.float16)


def _smooth(spectra: C64) -> F32:
    edge = _SMOOTHING_FRAMES // 2
    total = np.cumsum(np.pad(power_of(spectra), ((edge + 1, edge), (0, 0)), mode="edge"), axis=0, dtype=np.float64)
    return np.asarray((total[_SMOOTHING_FRAMES:] - total[:-_SMOOTHING_FRAMES]) / _SMOOTHING_FRAMES, np.float32)


def _fitted(windows: Sequence[ReadWindow], alone_db: F32) -> C64:
    """The far microphone from the near one, where that is loudest beside it; each frame counts alike, however loud it is."""
    now_now = now_late = late_late = far_now = far_late = np.zeros(BINS, np.complex128)
    for read in windows:
        near, far = _spectra(read())
        late = delayed(near)
        weight = (_near_above_far_db(near, far) >= alone_db) / (power_of(near) + TINY)
        now_now = now_now + (weight * power_of(near)).sum(axis=0)
        late_late = late_late + (weight * power_of(late)).sum(axis=0)
        now_late = now_late + (weight * near * late.conj()).sum(axis=0)
        far_now = far_now + (weight * far * near.conj()).sum(axis=0)
        far_late = far_late + (weight * far * late.conj()).sum(axis=0)
    return solved(now_now.real, late_late.real, now_late, far_now, far_late, _LOADING)


def solved(
    now_now: NDArray[np.floating],
    late_late: NDArray[np.floating],
    now_late: NDArray[np.complexfloating],
    wanted_now: NDArray[np.complexfloating],
    wanted_late: NDArray[np.complexfloating],
    loading: float | NDArray[np.floating],
) -> C64:
    """Weights of two frames that give what is wanted with the least square error; (TAPS, …).

    Args:
        now_now: mean of |x|², any shape.
        late_late: of the frame before.
        now_late: of x · conj(frame before).
        wanted_now: of wanted · conj(x).
        wanted_late: of wanted · conj(frame before).
        loading: what is added to both powers: a number is a fraction of their mean.
    """
    more = loading * (now_now + late_late) / 2 if isinstance(loading, float) else loading
    a, b = now_now + more + TINY, late_late + more + TINY
    determinant = np.maximum(a * b - (now_late * now_late.conj()).real, TINY * (a + b) + TINY * TINY)
    first = (wanted_now * b - wanted_late * now_late.conj()) / determinant
    second = (wanted_late * a - wanted_now * now_late) / determinant
    return np.stack([first, second]).astype(np.complex64)
