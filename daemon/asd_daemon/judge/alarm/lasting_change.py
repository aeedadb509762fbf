"""Whether the alert that is open may be a state of the machine that was never heard: it began at once, lasts, and is steady.

A new product begins so, and so do many faults: this tells people what to look at, and never takes an alert back. Pure: nothing is kept on
disk, no clock is asked.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass

WORSE, LEAST_DEVIATION = 4.0, 0.1
"""So many deviations, of scores, above its median a lasting change has become worse."""


@dataclass(frozen=True)
class LastingChangeRule:
    """When a change is one that lasts."""

    windows: int = 24
    """So many windows in a row are anomalous, four minutes …"""
    spread: float = 0.5
    """… with scores whose deviation is at most this fraction of how far their median lies above the threshold's lower end, 1 …"""
    begins_within: int = 3
    """… and among the first so many of the alert's windows is one …"""
    begins_at: float = 0.5
    """… that has gone this fraction of the way from the threshold to that median."""


class LastingChange:
    """One machine's; knows the alert that is open."""

    def __init__(self, rule: LastingChangeRule | None = None) -> None:
        self._rule = rule or LastingChangeRule()
        self._first: list[float] = []
        self._recent: deque[float] = deque(maxlen=self._rule.windows)
        self._usual_up_to = 0.0
        self.holds = False
        """Whether it is such a change; until the alert closes, or a window of it is normal."""

    def update(self, score: float, threshold: float, *, alert_open: bool) -> bool:
        """Take in a window that was judged; whether it is known since this one that the change lasts."""
        if not alert_open:
            self.forget()
            return False
        if score <= threshold:
            self._recent.clear()
            self.holds = False
            return False
        if len(self._first) < self._rule.begins_within:
            self._first.append(score)
        self._recent.append(score)
        if self.holds or len(self._recent) < self._rule.windows:
            return False
        self.holds = self._is_steady(threshold) and self._began_at_once(threshold)
        middle, deviation = statistics.median(self._recent), statistics.pstdev(self._recent)
        self._usual_up_to = middle + WORSE * max(deviation, LEAST_DEVIATION)
        return self.holds

    def is_usual(self, score: float) -> bool:
        """Whether a window is no worse than the change was when it became known: nothing new to tell."""
        return self.holds and score <= self._usual_up_to

    def forget(self) -> None:
        """No alert is open."""
        self._first.clear()
        self._recent.clear()
        self.holds = False

    def _is_steady(self, threshold: float) -> bool:
        middle = statistics.median(self._recent)
        return statistics.pstdev(self._recent) <= self._rule.spread * (middle - min(1.0, threshold))

    def _began_at_once(self, threshold: float) -> bool:
        middle = statistics.median(self._recent)
        return max(self._first) - threshold >= self._rule.begins_at * (middle - threshold)
