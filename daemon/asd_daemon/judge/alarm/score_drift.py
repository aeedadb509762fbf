"""The slow level of a machine's normal scores: does it creep towards the threshold?

A machine that wears, a microphone that gathers dust and a season that changes all raise the scores of windows that are still normal.
That is worth a word before it is an alert, and is no alert itself. The level is an exponential mean of the normal scores; it is
compared with where it was first, as a fraction of the way to the threshold. Pure: nothing is kept on disk, no clock is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True)
class ScoreDriftRule:
    """When a level has drifted."""

    reference_windows: int = 360
    """So many normal windows make the reference."""
    mean_windows: int = 360
    """Time constant of the level, in normal windows."""
    drifted: float = 0.35
    """A level that has gone this fraction of the way from the reference to the threshold has drifted …"""
    back: float = 0.2
    """… until it is back below this one."""


@dataclass(frozen=True)
class ScoreDriftMemory:
    """All that is known of a level; what survives a restart."""

    windows: int = 0
    """Normal windows so far, counted up to the reference's."""
    reference: float = 0.0
    """Mean score of the first normal windows."""
    level: float = 0.0
    threshold: float = 0.0
    """The one that the reference belongs to."""
    drifted_since: datetime | None = None
    """UTC time."""


class ScoreDrift:
    """One machine's level."""

    def __init__(self, rule: ScoreDriftRule, memory: ScoreDriftMemory | None = None) -> None:
        self._rule, self._memory = rule, memory or ScoreDriftMemory()

    @property
    def memory(self) -> ScoreDriftMemory:
        """All that is known."""
        return self._memory

    @property
    def drifted_since(self) -> datetime | None:
        """UTC time from which the level has drifted; None where it has not."""
        return self._memory.drifted_since

    @property
    def drift(self) -> float | None:
        """Which fraction of the way from reference to threshold the level has gone; None until there is a reference."""
        memory = self._memory
        room = memory.threshold - memory.reference
        if memory.windows < self._rule.reference_windows or room <= 0:
            return None
        return (memory.level - memory.reference) / room

    def update(self, score: float, threshold: float, at: datetime) -> bool:
        """Take in a window that was judged; whether drifting began or ended with it.

        Args:
            score: of the window; above the threshold it is not looked at.
            threshold: another one than before means another bundle, and the reference is made anew.
            at: UTC time of the window.
        """
        before = self.drifted_since
        if threshold != self._memory.threshold:
            self._memory = ScoreDriftMemory(threshold=threshold)
        if score <= threshold:
            self._learn(score)
            drift = self.drift
            if drift is not None:
                self._decide(drift, at)
        return (before is None) != (self.drifted_since is None)

    def _learn(self, score: float) -> None:
        memory = self._memory
        if memory.windows < self._rule.reference_windows:
            windows = memory.windows + 1
            mean = memory.reference + (score - memory.reference) / windows
            self._memory = replace(memory, windows=windows, reference=mean, level=mean)
        else:
            self._memory = replace(memory, level=memory.level + (score - memory.level) / self._rule.mean_windows)

    def _decide(self, drift: float, at: datetime) -> None:
        if self._memory.drifted_since is None and drift >= self._rule.drifted:
            self._memory = replace(self._memory, drifted_since=at)
        elif self._memory.drifted_since is not None and drift < self._rule.back:
            self._memory = replace(self._memory, drifted_since=None)
