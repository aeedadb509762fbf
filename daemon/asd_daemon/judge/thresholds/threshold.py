"""A threshold and how sure it is; and by which rule it is learned and may move.

Owns these words. It decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from asd_daemon.wording import counted, score_text

State = Literal["provisional", "calibrated", "fixed"]
Held = Literal["rise", "fall", "limit", "drift"]


@dataclass(frozen=True)
class EnrolledThreshold:
    """What enrolment knows of a machine's scores."""

    enrolment: str
    """Which one; another one begins the learning anew."""
    centre: float
    """Median score of held-out normal windows."""
    threshold: float
    """The provisional one, for the budget that is asked for."""


@dataclass(frozen=True)
class Threshold:
    """A threshold and how sure it is."""

    value: float
    state: State
    """provisional: by what was heard at enrolment; calibrated: by a week and more of listening; fixed: by the settings."""
    windows: int = 0
    """Windows that have taught it …"""
    days: int = 0
    """… and days on which they were heard."""
    wanted: float | None = None
    """What the tail alone asks for; None while too little is known of it."""
    held: Held | None = None
    """What keeps the value from that: so much a day upwards or downwards, the limit in all, or a drift of the usual score."""

    @property
    def words(self) -> str:
        """How sure it is, for people."""
        if self.state == "fixed":
            return "fixed by alarm.threshold"
        learned = (
            f"from {counted(self.windows, 'window')} on {counted(self.days, 'day')}"
            if self.windows
            else "by enrolment alone"
        )
        held = (
            ""
            if self.held is None or self.wanted is None
            else f"; it would be {score_text(self.wanted)} but {self._why}"
        )
        return f"{self.state}, {learned}{held}"

    @property
    def _why(self) -> str:
        """What holds it, for people."""
        if self.held == "drift":
            return "does not rise while scores have drifted"
        if self.held == "limit":
            is_early = self.state == "provisional" and (self.wanted or 0.0) < self.value
            return "does not fall before it is calibrated" if is_early else "goes no farther from the enrolled one"
        return f"{self.held}s a little a day only"


@dataclass(frozen=True)
class LearningRule:
    """What a threshold is learned for, and how far it may go."""

    open_after: int = 2
    of: int = 3
    hop_s: float = 10.0
    false_alarms_per_week: float = 1.0
    stretch_s: float = 3600.0
    """Peaks are the largest of so many seconds."""
    memory_days: int = 70
    """So many days of stretches that teach are remembered."""
    early_days: int = 2
    """From so many days heard on, the provisional threshold may rise."""
    least_days: int = 7
    """So many days make it calibrated: a week has all the hours that noise keeps to …"""
    least_windows: int = 10_000
    """… and so many windows."""
    rise_per_day: float = 0.035
    """Once calibrated the threshold rises at most this fraction of the enrolled room (centre to threshold) a day …"""
    move_per_day: float = 0.175
    """… and falls, or rises before it is calibrated, at most this one."""
    widest: float = 3.5
    """At most so many enrolled rooms above the centre …"""
    narrowest: float = 0.5
    """… and at least so many."""
    drifted: float = 0.35
    """Where the level of a day lies this fraction of the room above the usual one nothing teaches and nothing rises."""
    guard_s: float = 7200.0
    """Peaks of so long before an alert don't teach."""
    passing_s: float = 86_400.0
    """An alert that closed within so long counts as a false one; a longer one teaches nothing."""

    def __post_init__(self) -> None:
        positive = (
            self.hop_s,
            self.false_alarms_per_week,
            self.stretch_s,
            self.memory_days,
            self.rise_per_day,
            self.least_days,
        )
        if not 1 <= self.open_after <= self.of or min(positive) <= 0 or not 0 < self.narrowest <= 1 <= self.widest:
            raise ValueError(f"not a rule by which a threshold can be learned: {self}")

    def subject(self, enrolment: str) -> str:
        """Of what peaks are remembered: those of other scores, or of another count of windows, say nothing."""
        return f"{enrolment}, {self.open_after} of {self.of} every {self.hop_s:g} s"
