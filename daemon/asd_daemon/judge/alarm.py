"""Scores → alerts that open, change and close: k of n windows to open, a row of normal ones to close.

Pure: the clock and the maker of names are passed in, nothing is sent or kept on disk. It knows no microphone; a window that can't
be judged neither opens nor closes anything.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum


class AlertKind(StrEnum):
    """What happened to an alert."""

    OPEN = "open"
    UPDATE = "update"
    CLOSE = "close"


@dataclass(frozen=True)
class AlarmRule:
    """When an alert opens and closes, in windows."""

    open_after: int = 2
    """So many anomalous windows …"""
    of: int = 3
    """… among the last so many usable ones open an alert."""
    close_after: int = 6
    """So many usable windows in a row that are not anomalous close it."""
    update_every_s: float = 60.0
    """An open alert is told anew at most this often, and only when its peak has risen."""

    def __post_init__(self) -> None:
        if not 1 <= self.open_after <= self.of or self.close_after < 1 or self.update_every_s < 0:
            raise ValueError(
                f"an alarm rule needs 1 <= open_after <= of, close_after >= 1, update_every_s >= 0: {self}"
            )


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


@dataclass(frozen=True)
class _Verdict:
    at: datetime
    score: float
    anomalous: bool


def _new_id() -> str:
    return str(uuid.uuid4())


class Alarm:
    """The memory of one machine: its last windows, and the alert that is open."""

    def __init__(self, rule: AlarmRule, new_id: Callable[[], str] = _new_id) -> None:
        self._rule, self._new_id = rule, new_id
        self._recent: deque[_Verdict] = deque(maxlen=rule.of)
        self._normal_in_a_row = 0
        self._open: AlertEvent | None = None  # as it stands now
        self._told_peak = 0.0
        self._told_at: datetime | None = None

    @property
    def open_alert(self) -> AlertEvent | None:
        """The alert that is open, as it stands after the last window."""
        return self._open

    def judge(self, score: float, threshold: float, at: datetime, usable: bool = True) -> AlertEvent | None:
        """Take in one window; what there is to tell, if anything.

        Args:
            score: of the window; not looked at where it is unusable.
            threshold: above it the window is anomalous.
            at: UTC time of the window.
            usable: whether the window could be judged.
        """
        if not usable:
            return None
        verdict = _Verdict(at, score, score > threshold)
        self._normal_in_a_row = 0 if verdict.anomalous else self._normal_in_a_row + 1
        if self._open is None:
            return self._consider(verdict, threshold)
        return self._continue(self._open, verdict, threshold)

    def _consider(self, verdict: _Verdict, threshold: float) -> AlertEvent | None:
        """Open an alert when enough of the last windows are anomalous."""
        self._recent.append(verdict)
        first = next((i for i, v in enumerate(self._recent) if v.anomalous), None)
        if first is None or not verdict.anomalous:
            return None
        counted = list(self._recent)[first:]
        anomalous = [v for v in counted if v.anomalous]
        if len(anomalous) < self._rule.open_after:
            return None
        event = AlertEvent(
            kind=AlertKind.OPEN,
            event_id=self._new_id(),
            started_at=counted[0].at,
            at=verdict.at,
            score=verdict.score,
            peak_score=max(v.score for v in anomalous),
            threshold=threshold,
            windows=len(counted),
            anomalous_windows=len(anomalous),
        )
        return self._tell(event)

    def _continue(self, alert: AlertEvent, verdict: _Verdict, threshold: float) -> AlertEvent | None:
        """Close or update the open alert."""
        alert = replace(
            alert,
            kind=AlertKind.UPDATE,
            at=verdict.at,
            score=verdict.score,
            peak_score=max(alert.peak_score, verdict.score),
            threshold=threshold,
            windows=alert.windows + 1,
            anomalous_windows=alert.anomalous_windows + verdict.anomalous,
        )
        self._open = alert
        if self._normal_in_a_row >= self._rule.close_after:
            self._open = None
            self._recent.clear()
            return replace(alert, kind=AlertKind.CLOSE)
        quiet = timedelta(seconds=self._rule.update_every_s)
        is_due = self._told_at is None or verdict.at - self._told_at >= quiet
        return self._tell(alert) if alert.peak_score > self._told_peak and is_due else None

    def _tell(self, event: AlertEvent) -> AlertEvent:
        self._open, self._told_peak, self._told_at = event, event.peak_score, event.at
        return event
