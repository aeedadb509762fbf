"""What would have fired, had the alarm been set so, on the scores that were kept.

Plays kept scores through the same alarm that listens. It opens the file of scores for reading only and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from asd_daemon.judge.alarm.alarm import Alarm, AlertEvent, AlertKind
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.tell.storage.score_log import LoggedScore


@dataclass(frozen=True)
class Replay:
    """What became of the scores."""

    events: tuple[AlertEvent, ...]
    """Opens, updates and closes in their order; event_ids are numbers, since none of them was ever told."""
    windows: int
    """All that were kept, usable or not."""
    unusable: int
    first_at: datetime | None
    """UTC times of the first and the last window."""
    last_at: datetime | None

    @property
    def alerts(self) -> int:
        """How many opened."""
        return sum(event.kind is AlertKind.OPEN for event in self.events)

    @property
    def alerts_per_week(self) -> float | None:
        """The same, by the time that was listened; None for no time."""
        if self.first_at is None or self.last_at is None or self.last_at <= self.first_at:
            return None
        return self.alerts / ((self.last_at - self.first_at) / timedelta(weeks=1))


def replay_scores(scores: Iterable[LoggedScore], rule: AlarmRule, threshold: float | None = None) -> Replay:
    """Play scores through an alarm.

    Args:
        scores: in the order in which they were heard.
        rule: when an alert opens and closes.
        threshold: to judge by; None for those that held at the time.
    """
    numbers = count(1)
    alarm = Alarm(rule, new_id=lambda: str(next(numbers)))
    events: list[AlertEvent] = []
    windows = unusable = 0
    first_at = last_at = None
    for kept in scores:
        windows += 1
        first_at, last_at = first_at or kept.at, kept.at
        limit = kept.threshold if threshold is None else threshold
        if kept.score is None or limit is None:
            unusable += 1
            continue
        event = alarm.update(kept.score, limit, kept.at)
        if event is not None:
            events.append(event)
    return Replay(tuple(events), windows, unusable, first_at, last_at)
