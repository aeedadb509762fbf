"""Is this machine's window fit to judge, knowing what its windows usually are? Adds history to `quality`.

Owns the usual level and how long a machine has been deaf. It knows no clock but that of the windows.
"""

from __future__ import annotations

import logging
import statistics
from dataclasses import dataclass
from datetime import datetime

from asd_daemon.hear.sources.source_memory import SourceMemory
from asd_daemon.hear.windows.quality import UnfitReason, unfit_reason
from asd_daemon.hear.windows.window import Window
from asd_daemon.waveform import rms_level_dbfs

_LOG = logging.getLogger(__name__)
_LEARN_WINDOWS = 12  # two minutes: a machine's cycle, not a passing lorry


@dataclass(frozen=True)
class FitnessLimits:
    """Where usable ends."""

    below_db: float = 20.0
    """So far below the usual level a window is not this machine at work: it is switched off, or the microphone is covered."""
    above_db: float = 40.0
    """So far above it is a microphone whose gain was changed; machines that fail are louder too, so this is wide."""
    off_below_dbfs: float | None = None
    """Up to this level the machine is off, whatever is usual; None: nobody has said so."""
    quiet_for_s: float = 4 * 86_400.0
    """So long, a long week-end, a machine may be that quiet; from then on its microphone is in doubt."""
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
        self._quiet_since: datetime | None = None
        self._told = False

    def check(self, window: Window) -> UnfitReason | None:
        """Why a window can't be judged; None where it can.

        Learns the usual level from the first windows that can be, and anew from as many in a row that are much louder: the machine was
        off before. Softer ones teach nothing, or a microphone that goes deaf slowly would never be found.
        """
        found = unfit_reason(window.sound, window.gap_samples) or self._rate_reason(window)
        if found is not None:
            return found
        level_dbfs = rms_level_dbfs(window.sound)
        if self._limits.off_below_dbfs is not None and level_dbfs <= self._limits.off_below_dbfs:
            return UnfitReason.OFF
        if self._memory is None:
            return None
        reason = self._level_reason(self._memory, level_dbfs)
        if reason is not UnfitReason.QUIET:
            self._quiet_since = None
            return reason
        at = window.started_at
        if self._quiet_since is None or at < self._quiet_since:
            self._quiet_since = at
        return reason if (at - self._quiet_since).total_seconds() < self._limits.quiet_for_s else UnfitReason.LEVEL

    def _rate_reason(self, window: Window) -> UnfitReason | None:
        """Whether samples come at another rate than they say."""
        if window.rate_error is None:
            return UnfitReason.RATE_UNKNOWN
        return UnfitReason.RATE if abs(window.rate_error) > self._limits.rate_error else None

    def _level_reason(self, memory: SourceMemory, level_dbfs: float) -> UnfitReason | None:
        """Whether a level is far from the usual one, which is learned on the way."""
        if memory.level_dbfs is None:
            self._learn(memory, level_dbfs)
            return None
        above_db = level_dbfs - memory.level_dbfs
        if above_db > self._limits.below_db:
            self._learn(memory, level_dbfs)
        else:
            self._levels_dbfs.clear()
        if above_db < -self._limits.below_db:
            return UnfitReason.QUIET
        return UnfitReason.LEVEL if above_db > self._limits.above_db else None

    def change_limits(self, limits: FitnessLimits) -> None:
        """Let usable end elsewhere from the next window on; the usual level stays."""
        self._limits = limits

    def mark_usable(self) -> None:
        """A window was fit: deafness is over."""
        self._deaf_since, self._told = None, False

    def mark_off(self) -> None:
        """The machine is known to be off: it may be quiet for as long as it likes."""
        self._quiet_since = None

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
            _LOG.info("usual level %.1f dBFS", memory.level_dbfs)
