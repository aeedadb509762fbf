"""The hall, taken out of what the near microphone hears: complex least squares frequency by frequency, over two frames.

What is fitted is never the far microphone itself but what it hears besides the machine (crosstalk.py), so that the machine is no part of
what is taken away, however loud it gets; and what is taken away is bounded by how loud the hall can be at the near microphone. A window is
one piece of work: its weights follow a source that moves, and what was heard before it changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.hall.crosstalk import TINY, Crosstalk, solved
from asd_daemon.judge.hall.short_time_spectra import delayed, power_of, sound_of, spectra_of
from asd_daemon.waveform import rms_level_dbfs

F32 = NDArray[np.float32]

PIECES = 20
_OVERLAP = 1.5  # a piece's weights are fitted to so much of its neighbours' time
_LOADING = 0.01  # of the hall's power at the far microphone
_FAR_LOADING = 0.02  # of all that the far microphone hears: what is left of the machine there must not count
_MOST_HALL = 1.2  # of amplitude: how much louder than usual the near microphone can hear the hall beside the far one


@dataclass(frozen=True)
class WithoutHall:
    """A window of the near microphone less what it heard of the hall."""

    sound: F32
    """float32 (N,)."""
    hall: F32
    """float32 (N,), what was taken away."""
    share: float
    """Of the window's power that came from the hall, 0 to 1, as far as the far microphone tells."""
    hall_dbfs: float
    """How loud the hall is at the near microphone, judged by the far one: also what can't be taken away."""


def without_hall(near: F32, far: F32, crosstalk: Crosstalk) -> WithoutHall:
    """Take the hall away.

    Args:
        near: float32 (N,) at 16 kHz.
        far: float32 (N,), the same moment.
        crosstalk: what is known of the two microphones.
    """
    near_spectra, far_spectra = spectra_of(near), spectra_of(far)
    hall = crosstalk.far_without_machine(near_spectra, far_spectra)
    late = delayed(hall)
    fades, fitted_to = _pieces(near_spectra.shape[0])

    def mean(values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(fitted_to @ values)

    hall_power, late_power = mean(power_of(hall)), mean(power_of(late))
    near_power, far_power = mean(power_of(near_spectra)), mean(power_of(far_spectra))
    loading = _LOADING / 2 * (hall_power + late_power) + _FAR_LOADING * far_power
    conjugate, late_conjugate = hall.conj(), late.conj()
    weights = solved(
        hall_power,
        late_power,
        mean(hall * late_conjugate),
        mean(near_spectra * conjugate),
        mean(near_spectra * late_conjugate),
        loading,
    )
    size = np.sqrt(power_of(weights).sum(axis=0))
    weights *= np.minimum(1, _MOST_HALL / crosstalk.hall_gain / np.maximum(size, TINY)).astype(np.float32)
    weights *= _hall_belief(near_power / (far_power + TINY), crosstalk)
    heard = (fades @ weights[0]) * hall
    heard += (fades @ weights[1]) * late
    removed = sound_of(heard, near.shape[0])
    sound = near - removed
    whole, taken = (float(np.mean(np.square(x, dtype=np.float64))) for x in (near, removed))
    at_far = rms_level_dbfs(near) + 10 * float(
        np.log10((power_of(hall).sum() + TINY) / (power_of(near_spectra).sum() + TINY))
    )
    hall_dbfs = max(-200.0, at_far - 20 * float(np.log10(crosstalk.hall_gain)))
    return WithoutHall(sound, removed, min(1.0, taken / whole) if whole > 0 else 0.0, hall_dbfs)


def _hall_belief(near_above_far: NDArray[np.floating], crosstalk: Crosstalk) -> F32:
    """How far what both microphones hear can be the hall, 1 to 0: not where the near one is as much louder as the machine makes it.

    Args:
        near_above_far: ratio of their powers, any shape.
        crosstalk: what is known of them.
    """
    hall, machine = crosstalk.hall_gain**-2, 10 ** (-crosstalk.level_db / 10)
    middle = np.sqrt(hall * max(machine, 2 * hall))
    return np.asarray(np.clip((machine - near_above_far) / max(machine - middle, TINY), 0, 1), np.float32)


@cache
def _pieces(frames: int) -> tuple[F32, F32]:
    """Of so many frames: the pieces' share in each, (T, PIECES), and what each is fitted to, (PIECES, T), rows that add up to one."""
    middles = (np.arange(PIECES) + 0.5) * frames / PIECES
    away = np.abs(np.arange(frames) - middles[:, None]) / (frames / PIECES)
    fades = np.maximum(0, 1 - away)
    fades[0, : int(middles[0])] = fades[-1, int(np.ceil(middles[-1])) :] = 1
    fitted_to = np.maximum(0, 1 - away / _OVERLAP)
    fitted_to /= fitted_to.sum(axis=1, keepdims=True)
    return fades.T.astype(np.float32), fitted_to.astype(np.float32)
