"""Is this machine's window fit to judge, knowing what its windows usually are? Adds history to `quality`.

Owns the usual level and how long a machine has been deaf. It knows no clock but that of the windows.
"""

from __future__ import annotations

import logging
import statistics
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from asd_daemon.hear.sources.source_memory import SourceMemory
from asd_daemon.hear.windows.quality import UnfitReason, unfit_reason
from asd_daemon.hear.windows.window import Window

_LOG = logging.getLogger(__name__)
_LEARN_WINDOWS = 12  # two minutes: a machine's cycle, not a passing lorry


@dataclass(frozen=True)
class FitnessLimits:
    """Where usable ends."""

    below_db: float = 20.0
    """So far below the usual level a window is not this machine at work: covered, turned away, switched off."""
    above_db: float = 40.0
    """So far above it is a microphone whose gain was changed; machines that fail are louder too, so this is wide."""
    rate_error: float = 0.05
    """Samples that come so much faster or slower than promised have another rate than they say, or are missing."""
    deaf_after_s: float = 600.0
    """So long without a usable window is an event of its own."""


class WindowFitness:
    """One machine's."""

    def __init__(self, limits: FitnessLimits | None = None, memory: SourceMemory | None = None) -> None:
        """Start with what is remembered; None learns no level, for recordings that may be of anything."""
        self._limits, self._memory = limits or FitnessLimits(), memory
        self._levels_dbfs: list[float] = []
        self._deaf_since: datetime | None = None
        self._told = False

    def check(self, window: Window) -> UnfitReason | None:
        """Why a window can't be judged; None where it can.

        Learns the usual level from the first windows that can be, and anew from as many in a row that are much louder: the machine was
        off before. Softer ones teach nothing, or a microphone that goes deaf slowly would never be found.
        """
        found = unfit_reason(window.sound, window.gap_samples)
        if found is not None:
            return found
        if window.rate_error is None:
            return UnfitReason.RATE_UNKNOWN
        if abs(window.rate_error) > self._limits.rate_error:
            return UnfitReason.RATE
        if self._memory is None:
            return None
        level_dbfs = rms_level_dbfs(window.sound)
        if self._memory.level_dbfs is None:
            self._learn(self._memory, level_dbfs)
            return None
        above_db = level_dbfs - self._memory.level_dbfs
        if above_db > self._limits.below_db:
            self._learn(self._memory, level_dbfs)
        else:
            self._levels_dbfs.clear()
        return UnfitReason.LEVEL if not -self._limits.below_db <= above_db <= self._limits.above_db else None

    def change_limits(self, limits: FitnessLimits) -> None:
        """Let usable end elsewhere from the next window on; the usual level stays."""
        self._limits = limits

    def mark_usable(self) -> None:
        """A window was fit: deafness is over."""
        self._deaf_since, self._told = None, False

    def mark_unusable(self, at: datetime) -> bool:
        """Note that there is nothing usable at a time; True once, when that has lasted too long."""
        if self._deaf_since is None or at < self._deaf_since:  # it begins now, or the clock was set back
            self._deaf_since = at
        if self._told or (at - self._deaf_since).total_seconds() < self._limits.deaf_after_s:
            return False
        self._told = True
        return True

    @property
    def deaf_text(self) -> str:
        """What to add to a reason when it has lasted too long; else nothing."""
        return f", and nothing usable for {self._limits.deaf_after_s:g} s" if self._told else ""

    def _learn(self, memory: SourceMemory, level_dbfs: float) -> None:
        self._levels_dbfs.append(level_dbfs)
        if len(self._levels_dbfs) == _LEARN_WINDOWS:
            memory.keep_level(round(statistics.median(self._levels_dbfs), 2))
            self._levels_dbfs.clear()
            _LOG.info("the usual level is %.1f dBFS", memory.level_dbfs)


def rms_level_dbfs(samples: NDArray[np.float32]) -> float:
    """Root mean square of float32 (N,) in dB below full scale; silence is -200."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if samples.shape[0] else 0.0
    return 10 * float(np.log10(max(power, 1e-20)))
