"""Scores → alerts that open, change and close: k of n windows to open, a row of normal ones to close, a rest after that.

Pure: the clock and the maker of names are passed in, nothing is sent or kept on disk. It knows no microphone; a window that can't
be judged neither opens nor closes anything, but when no window can be judged any more, an open alert says so and ends as unknown after a
time: nobody shall wait for a machine that nobody hears. A clock that is set back never holds an alarm up: what would lie in the future is
over.

A machine whose level creeps through the threshold would open and close an alert a hundred times a day. An alert that comes back soon
is therefore harder to close than the one before, until it stays open through the lulls: one alert, not a storm.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from asd_daemon.judge.alarm.alarm_rule import AlarmRule

_MOST_RELAPSES = 9  # twice as much each time is then more than that from any beginning


class AlertKind(StrEnum):
    """What happened to an alert."""

    OPEN = "open"
    UPDATE = "update"
    CLOSE = "close"


class AlertOutcome(StrEnum):
    """How an alert ended."""

    NORMAL = "normal"
    """The machine has been quiet for long enough."""
    UNKNOWN = "unknown"
    """It could not be judged any more."""
    ACCEPTED = "accepted"
    """Somebody said that this is normal."""


@dataclass(frozen=True)
class AlertEvent:
    """One thing to tell about an alert."""

    kind: AlertKind
    event_id: str
    """The same from open to close."""
    started_at: datetime
    """UTC time of the first anomalous window that counted."""
    at: datetime
    """UTC time of the window that made this event."""
    score: float
    """Of that window."""
    peak_score: float
    """Highest score since the start."""
    threshold: float
    windows: int
    """Usable windows judged since the start, both ends included."""
    anomalous_windows: int
    """How many of them were anomalous."""
    unjudged_since: datetime | None = None
    """UTC time from which on the machine can't be judged; None where the last window was."""
    accepted: bool = False
    """Whether somebody said that this is normal."""

    @property
    def outcome(self) -> AlertOutcome | None:
        """How it ended; None where it has not."""
        if self.kind is not AlertKind.CLOSE:
            return None
        if self.accepted:
            return AlertOutcome.ACCEPTED
        return AlertOutcome.UNKNOWN if self.unjudged_since else AlertOutcome.NORMAL

    @property
    def headroom(self) -> float | None:
        """How far the peak lies above the threshold, as a fraction of the threshold; None where that is 0."""
        return None if self.threshold == 0 else (self.peak_score - self.threshold) / abs(self.threshold)


@dataclass(frozen=True)
class JudgedWindow:
    """A window that the alarm remembers."""

    at: datetime
    score: float
    anomalous: bool


@dataclass(frozen=True)
class AlarmMemory:
    """All that an alarm knows; what survives a restart."""

    recent: tuple[JudgedWindow, ...] = ()
    """The last windows, as long as no alert is open."""
    quiet_in_a_row: int = 0
    """Windows."""
    open: AlertEvent | None = None
    """As it stands now."""
    told_peak: float = 0.0
    told_at: datetime | None = None
    """UTC time of the window that was told last."""
    closed_at: datetime | None = None
    """UTC time of the window that closed the last alert."""
    relapses: int = 0
    """How often an alert has come back soon, without a longer peace in between."""


def _new_id() -> str:
    return str(uuid.uuid4())


class Alarm:
    """One machine's alarm."""

    def __init__(self, rule: AlarmRule, new_id: Callable[[], str] = _new_id, memory: AlarmMemory | None = None) -> None:
        memory = memory or AlarmMemory()
        self._rule, self._new_id = rule, new_id
        self._recent: deque[JudgedWindow] = deque(memory.recent, maxlen=rule.of)
        self._quiet_in_a_row = memory.quiet_in_a_row
        self._open = memory.open
        self._told_peak, self._told_at, self._closed_at = memory.told_peak, memory.told_at, memory.closed_at
        self._relapses = memory.relapses
        self._said_unjudged = False

    @property
    def open_alert(self) -> AlertEvent | None:
        """The alert that is open, as it stands after the last window."""
        return self._open

    @property
    def above(self) -> int:
        """How many of the last windows lie above the threshold although no alert is open."""
        return 0 if self._open is not None else sum(window.anomalous for window in self._recent)

    @property
    def memory(self) -> AlarmMemory:
        """All it knows, to go on from later."""
        return AlarmMemory(
            tuple(self._recent),
            self._quiet_in_a_row,
            self._open,
            self._told_peak,
            self._told_at,
            self._closed_at,
            self._relapses,
        )

    def update(self, score: float, threshold: float, at: datetime, usable: bool = True) -> AlertEvent | None:
        """Take in one window; what there is to tell, if anything.

        Args:
            score: of the window; not looked at where it is unusable.
            threshold: above it the window is anomalous.
            at: UTC time of the window.
            usable: whether the window could be judged.
        """
        if not usable:
            return None
        judged = JudgedWindow(at, score, score > threshold)
        is_quiet = score <= self._rule.close_threshold(threshold)
        self._quiet_in_a_row = self._quiet_in_a_row + 1 if is_quiet else 0
        if self._open is None:
            return self._open_if_due(judged, threshold)
        return self._follow(self._open, judged, threshold)

    def unjudged(self, at: datetime, *, is_deaf: bool = False) -> AlertEvent | None:
        """Take in that there is nothing that can be judged: an unusable window, or no sound at all; what there is to tell, if anything.

        To be called for every window that is unfit and again and again while a source is lost. The alert says so once, when that has
        lasted for `update_every_s`, and ends as unknown after `unknown_after_s`.

        Args:
            at: UTC time of the window, or now.
            is_deaf: whether nothing is heard at all, which an open alert says at once.
        """
        if (alert := self._open) is None:
            return None
        since = alert.unjudged_since
        if since is None or at < since:  # it begins now, or the clock was set back
            self._open = replace(alert, unjudged_since=at)
            self._said_unjudged = is_deaf
            if not is_deaf:
                return None
            self._open, self._told_at = replace(self._open, kind=AlertKind.UPDATE, at=at), at
            return self._open
        alert = replace(alert, kind=AlertKind.UPDATE, at=at)
        if _is_over(since, self._rule.unknown_after_s, at):
            self._open, self._closed_at, self._quiet_in_a_row = None, at, 0
            self._recent.clear()
            return replace(alert, kind=AlertKind.CLOSE)
        if self._said_unjudged or not _is_over(since, self._rule.update_every_s, at):
            return None
        self._said_unjudged = True
        self._open, self._told_at = alert, at
        return alert

    def accept(self, at: datetime) -> AlertEvent | None:
        """Somebody says that the open alert is normal: its close; None where none is open."""
        if (alert := self._open) is None:
            return None
        self._open, self._closed_at, self._quiet_in_a_row, self._relapses = None, at, 0, 0
        self._recent.clear()
        return replace(alert, kind=AlertKind.CLOSE, at=at, accepted=True)

    def _open_if_due(self, judged: JudgedWindow, threshold: float) -> AlertEvent | None:
        """Open an alert when enough of the last windows are anomalous."""
        self._recent.append(judged)
        first = next((i for i, v in enumerate(self._recent) if v.anomalous), None)
        if first is None or not judged.anomalous:
            return None
        counted = list(self._recent)[first:]
        anomalous = [v for v in counted if v.anomalous]
        if len(anomalous) < self._rule.open_after or not _is_over(self._closed_at, self._rule.cool_down_s, judged.at):
            return None
        is_relapse = not _is_over(self._closed_at, self._rule.relapse_s, judged.at)
        self._relapses = min(self._relapses + 1, _MOST_RELAPSES) if is_relapse else 0
        event = AlertEvent(
            kind=AlertKind.OPEN,
            event_id=self._new_id(),
            started_at=counted[0].at,
            at=judged.at,
            score=judged.score,
            peak_score=max(v.score for v in anomalous),
            threshold=threshold,
            windows=len(counted),
            anomalous_windows=len(anomalous),
        )
        return self._tell(event)

    def _follow(self, alert: AlertEvent, judged: JudgedWindow, threshold: float) -> AlertEvent | None:
        """Close or update the open alert."""
        alert = replace(
            alert,
            kind=AlertKind.UPDATE,
            at=judged.at,
            score=judged.score,
            peak_score=max(alert.peak_score, judged.score),
            threshold=threshold,
            windows=alert.windows + 1,
            anomalous_windows=alert.anomalous_windows + judged.anomalous,
            unjudged_since=None,
        )
        self._open = alert
        if self._quiet_in_a_row >= self._rule.quiet_windows(self._relapses):
            self._open, self._closed_at = None, judged.at
            self._recent.clear()
            return replace(alert, kind=AlertKind.CLOSE)
        is_due = alert.peak_score > self._told_peak and _is_over(self._told_at, self._rule.update_every_s, judged.at)
        return self._tell(alert) if is_due else None

    def _tell(self, event: AlertEvent) -> AlertEvent:
        self._open, self._told_peak, self._told_at = event, event.peak_score, event.at
        return event


def _is_over(since: datetime | None, for_s: float, now: datetime) -> bool:
    """Whether a span of time is over, or began in what is the future since the clock was set back."""
    return since is None or not timedelta(0) <= now - since < timedelta(seconds=for_s)
