"""`asd-daemon replay`: what would have fired, had the alarm been set so, on the scores that were kept.

Plays kept scores through the same alarm that listens. It opens the file of scores for reading only and changes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count

from asd_daemon.errors import UsageError
from asd_daemon.judge.alarm.alarm import Alarm, AlarmRule, AlertEvent, AlertKind
from asd_daemon.tell.payloads import alert_payload, time_text
from asd_daemon.tell.storage.score_log import KeptScore

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


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


def play(scores: Iterable[KeptScore], rule: AlarmRule, threshold: float | None = None) -> Replay:
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
        event = alarm.judge(kept.score, limit, kept.at)
        if event is not None:
            events.append(event)
    return Replay(tuple(events), windows, unusable, first_at, last_at)


def parse_since(words: str, now: datetime) -> datetime:
    """A time in the past: `90m`, `12h`, `2d`, `1w` ago, or an ISO 8601 date or time, UTC where it says no other zone.

    Raises:
        UsageError: it is neither.
    """
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", words.strip())
    try:
        if ago:
            return now - timedelta(seconds=float(ago[1]) * _UNITS_S[ago[2]])
        at = datetime.fromisoformat(words.strip())
    except (ValueError, OverflowError) as e:
        raise UsageError(f"--since {words!r} must be like 12h, 2d or 2026-01-31T12:00") from e
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def describe_replay(played: Replay, node: str, machine: str, *, as_json: bool) -> Iterator[str]:
    """Lines for people, or one JSON object an event and a last one that sums up."""
    per_week = played.alerts_per_week
    for event in played.events:
        if as_json:
            yield json.dumps(alert_payload(node, machine, event), ensure_ascii=False)
        else:
            yield (
                f"{time_text(event.at)}  {event.kind.value:6} alert {event.event_id}: score {event.score:.4g}, "
                f"peak {event.peak_score:.4g} of {event.threshold:.4g}"
            )
    if as_json:
        summary = {
            "machine": machine,
            "windows": played.windows,
            "unusable": played.unusable,
            "alerts": played.alerts,
            "alerts_per_week": per_week,
            "first_at": time_text(played.first_at) if played.first_at else None,
            "last_at": time_text(played.last_at) if played.last_at else None,
        }
        yield json.dumps(summary)
        return
    often = "" if per_week is None else f", {per_week:.2g} a week"
    yield f"{played.windows} windows, {played.unusable} of them unusable: {played.alerts} alerts{often}"
