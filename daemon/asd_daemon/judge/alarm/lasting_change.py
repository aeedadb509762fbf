"""Whether the alert that is open may be a state of the machine that was never heard: it began at once, lasts, and is steady.

A new product begins so, and so do many faults: this tells people what to look at, and never takes an alert back. Pure: nothing is kept on
disk, no clock is asked.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass

UNKNOWN_STATE_WORDS = (
    "began at once, lasts and is steady: a state that was never heard, or a fault; say `asd-daemon alerts normal` or `fault`, by MQTT the"
    " command normal or fault; or give the state a normal of its own: `enroll --state NAME --add`"
)
WORSE, LEAST_DEVIATION = 4.0, 0.1
"""So many deviations, of scores, above its median a lasting change has become worse."""


@dataclass(frozen=True)
class LastingChangeRule:
    """When a change is one that lasts."""

    windows: int = 24
    """So many windows in a row are anomalous, four minutes …"""
    spread: float = 0.25
    """… with scores whose deviation is at most this fraction of how far their median lies above what is normal, 1 …"""
    begins_within: int = 3
    """… and within so many windows, since just before the alert opened, …"""
    begins_at: float = 0.5
    """… scores have once risen by this fraction of that height."""


class LastingChange:
    """One machine's; knows the alert that is open."""

    def __init__(self, rule: LastingChangeRule | None = None) -> None:
        self._rule = rule or LastingChangeRule()
        self._last: deque[float] = deque(maxlen=self._rule.begins_within)
        self._largest_rise = 0.0
        self._recent: deque[float] = deque(maxlen=self._rule.windows)
        self._usual_up_to = 0.0
        self.holds = False
        """Whether it is such a change; until the alert closes, or a window of it is normal."""

    def update(self, score: float, threshold: float, *, alert_open: bool, was_told: bool = False) -> bool:
        """Take in a window that was judged; whether it is known since this one that the change lasts.

        Args:
            score: of the window.
            threshold: above it the window is anomalous.
            alert_open: whether an alert is open after it.
            was_told: whether the change is known to have begun at once, from before a restart.
        """
        rise = score - min(self._last, default=score)
        self._last.append(score)
        if not alert_open:
            self.forget()
            return False
        self._largest_rise = max(self._largest_rise, rise)
        if score <= threshold:
            self._recent.clear()
            self.holds = False
            return False
        self._recent.append(score)
        if self.holds or len(self._recent) < self._rule.windows:
            return False
        self.holds = self._is_steady(threshold) and (was_told or self._began_at_once(threshold))
        middle, deviation = statistics.median(self._recent), statistics.pstdev(self._recent)
        self._usual_up_to = middle + WORSE * max(deviation, LEAST_DEVIATION)
        return self.holds

    def is_usual(self, score: float) -> bool:
        """Whether a window is no worse than the change was when it became known: nothing new to tell."""
        return self.holds and score <= self._usual_up_to

    def forget(self) -> None:
        """No alert is open."""
        self._largest_rise = 0.0
        self._recent.clear()
        self.holds = False

    def _is_steady(self, threshold: float) -> bool:
        return statistics.pstdev(self._recent) <= self._rule.spread * self._height(threshold)

    def _began_at_once(self, threshold: float) -> bool:
        return self._largest_rise >= self._rule.begins_at * self._height(threshold)

    def _height(self, threshold: float) -> float:
        """How far the change lies above what is normal."""
        return statistics.median(self._recent) - min(1.0, threshold)
