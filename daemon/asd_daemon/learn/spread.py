"""Windows spread over hours or days: one of each slot of time, at a moment of its own by chance.

A machine that works by the clock is heard at all its hours, and what is interrupted is still of use: each slot is done when it is over.
Owns the slots; it hears nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np

from asd_daemon.waveform import WINDOW_S


class SpreadSchedule:
    """When to take a window.

    Args:
        windows: how many slots.
        over_s: how long all of them last; a slot holds at least one window.
        rng: draws the moment in each slot; None: a new draw each time.

    Raises:
        ValueError: no window, or slots shorter than a window.
    """

    def __init__(self, windows: int, over_s: float, rng: np.random.Generator | None = None) -> None:
        if windows < 1 or over_s < windows * WINDOW_S:
            raise ValueError(f"{windows} windows of {WINDOW_S:g} s do not fit into {over_s:g} s")
        self.windows, self.over_s, self.slot_s = windows, over_s, over_s / windows
        self._moments_s = (rng or np.random.default_rng()).uniform(0, max(0.0, self.slot_s - WINDOW_S), windows)
        self._begin: datetime | None = None
        self._taken = -1

    @property
    def is_over(self) -> bool:
        """Whether the last slot has its window."""
        return self._taken >= self.windows - 1

    def begin(self, at: datetime, taken: int) -> None:
        """Begin, where that has not been done: at a UTC time, up to a slot (-1: none) that has its window already."""
        if self._begin is None:
            self._begin, self._taken = at, taken

    def slot(self, at: datetime) -> int:
        """Which slot a UTC time lies in; after the last one where the time is over.

        A clock that is set back begins the slot behind the last one that was taken; nothing is heard twice as often for it.
        """
        if self._begin is None:
            raise ValueError("not begun")
        if at < self._begin + timedelta(seconds=self._taken * self.slot_s):
            self._begin = at - timedelta(seconds=(self._taken + 1) * self.slot_s)
        return int((at - self._begin).total_seconds() // self.slot_s)

    def wants(self, at: datetime) -> bool:
        """Whether a window that began then shall be taken, where it is usable."""
        slot = self.slot(at)
        if self._begin is None or slot <= self._taken or slot >= self.windows:
            return False
        into_s = (at - self._begin).total_seconds() - slot * self.slot_s
        return into_s >= float(self._moments_s[slot])

    def took(self, slot: int) -> None:
        """A slot has its window."""
        self._taken = slot


def duration_words(seconds: float) -> str:
    """A span of time in its largest fitting unit."""
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} seconds"
