"""How loud the hall is beside a machine while it is learned, and whether it drowns the machine now.

A hall that is much louder than it ever was while the machine was learned, and louder than the machine itself, leaves nothing to judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asd_daemon.judge.hall.cancelling import WithoutHall
from asd_daemon.waveform import rms_level_dbfs

_USUAL_SHARE = 0.95  # of the windows that are learned, those in which the hall is no louder than usual
LOUDER_DB = 6.0
"""So far above the usual the hall is louder than it was ever heard to be …"""
ABOVE_MACHINE_DB = 3.0
"""… and drowns the machine, where it is so far above that too."""


@dataclass(frozen=True)
class UsualHall:
    """Levels at the near microphone."""

    hall_dbfs: float
    """Up to this level the hall was heard while the machine was learned, but for one window in twenty."""
    machine_dbfs: float
    """Median level of the machine without the hall."""
    share: float
    """Median share of the hall in a window's power."""

    @classmethod
    def of(cls, windows: Sequence[WithoutHall]) -> UsualHall:
        """From the windows that a machine is learned from, at least one."""
        hall = float(np.quantile([window.hall_dbfs for window in windows], _USUAL_SHARE))
        machine = float(np.median([rms_level_dbfs(window.sound) for window in windows]))
        return cls(round(hall, 2), round(machine, 2), round(float(np.median([window.share for window in windows])), 4))

    def is_drowned_by(self, hall_dbfs: float) -> bool:
        """Whether a hall of this level leaves nothing of the machine to judge."""
        return hall_dbfs > self.hall_dbfs + LOUDER_DB and hall_dbfs > self.machine_dbfs + ABOVE_MACHINE_DB
