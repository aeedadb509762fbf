"""When an alert is withheld because people asked for silence: muted for a time, or acknowledged.

Pure: what happens makes another `AlertSilence`; nothing is sent or kept on disk, no clock is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind

_CLOCK_TOLERANCE = timedelta(seconds=120)  # so old may a window be that is judged after a command


@dataclass(frozen=True)
class AlertSilence:
    """What people have asked for by command."""

    muted_at: datetime | None = None
    """UTC time from which no alert is told; None where alerts are told."""
    muted_for_s: float = 0.0
    held: bool = False
    """Whether the alert that is open has not been told, because it opened while muted."""
    acknowledged: str | None = None
    """The event_id that somebody looks after: nothing but its close is told."""

    def muted_until(self, now: datetime) -> datetime | None:
        """None where alerts are told; a silence that would begin in the future, the clock having been set back, is over."""
        lasts = timedelta(seconds=self.muted_for_s)
        if self.muted_at is None or not -_CLOCK_TOLERANCE <= now - self.muted_at < lasts:
            return None
        return self.muted_at + lasts

    def has_expired(self, now: datetime) -> bool:
        """Whether there was a silence whose time is over."""
        return self.muted_at is not None and self.muted_until(now) is None

    def muted(self, now: datetime, for_s: float) -> AlertSilence:
        """No alert is told from now on, for so many seconds."""
        return replace(self, muted_at=now, muted_for_s=for_s)

    def unmuted(self) -> AlertSilence:
        """Alerts are told again."""
        return replace(self, muted_at=None, muted_for_s=0.0, held=False)

    def acknowledging(self, event_id: str) -> AlertSilence:
        """Somebody looks after this alert."""
        return replace(self, acknowledged=event_id)

    def when_opened(self, at: datetime) -> AlertSilence:
        """An alert has opened: it is held back while muted, and nobody looks after it yet."""
        return replace(self, held=self.muted_until(at) is not None, acknowledged=None)

    def when_closed(self) -> AlertSilence:
        """The alert has closed: there is none to hold back or to look after."""
        return replace(self, held=False, acknowledged=None)

    def withholds(self, event: AlertEvent) -> bool:
        """Whether an event of the open alert is not told: of one held back nothing, while muted or acknowledged no update."""
        if event.kind is AlertKind.UPDATE and (
            self.acknowledged == event.event_id or self.muted_until(event.at) is not None
        ):
            return True
        return self.held
