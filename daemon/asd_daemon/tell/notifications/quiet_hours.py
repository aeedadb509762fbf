"""Times of the week in which people want to sleep, by the clock on their wall: `22:00-06:00`, `sat-sun`, `mon-fri 18:00-07:00`.

Pure. A time that ends before it begins ends on the next day; days name the one on which it begins. Summer time changes nothing: what counts
is what a clock on the wall shows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM = re.compile(
    r"(?:(?P<days>[a-z]{3}(?:[-,][a-z]{3})*))?\s*(?:(?P<h1>\d{1,2}):(?P<m1>\d\d)\s*-\s*(?P<h2>\d{1,2}):(?P<m2>\d\d))?"
)
_DAY_MINUTES = 24 * 60
_LOOK_AHEAD = timedelta(days=8)
_STEP = timedelta(minutes=30)  # clocks are put forward and back at whole or half hours


@dataclass(frozen=True)
class QuietTime:
    """One time of the week."""

    days: frozenset[int]
    """On which it begins, 0 is Monday."""
    begins: int
    """Minutes after midnight, by the clock on the wall."""
    ends: int
    """The same; where it is not later than `begins`, of the next day."""

    def covers(self, weekday: int, minute: int) -> bool:
        """Whether it is quiet on this day (0 is Monday), so many minutes after midnight."""
        if self.begins < self.ends:
            return weekday in self.days and self.begins <= minute < self.ends
        began_yesterday = (weekday - 1) % 7 in self.days and minute < self.ends
        return (weekday in self.days and minute >= self.begins) or began_yesterday


def parse_quiet_time(text: str) -> QuietTime:
    """A quiet time from its words.

    Raises:
        ValueError: they make no sense; says what is understood.
    """
    found = _FORM.fullmatch(text.strip().lower())
    wrong = ValueError(
        'must be times as "22:00-06:00", days as "sat-sun" or "sat,sun", or both as "mon-fri 18:00-07:00"'
    )
    if found is None or (found["days"] is None and found["h1"] is None):
        raise wrong
    begins, ends = 0, _DAY_MINUTES
    if found["h1"] is not None:
        begins, ends = (60 * int(found[f"h{n}"]) + int(found[f"m{n}"]) for n in (1, 2))
        sixty = int(found["m1"]) > 59 or int(found["m2"]) > 59
        if sixty or begins >= _DAY_MINUTES or ends > _DAY_MINUTES or begins == ends:
            raise wrong
    return QuietTime(_days(found["days"], wrong), begins, ends)


def _days(words: str | None, wrong: ValueError) -> frozenset[int]:
    if words is None:
        return frozenset(range(7))
    days: set[int] = set()
    for part in words.split(","):
        ends = part.split("-")
        if len(ends) > 2 or not set(ends) <= set(_DAYS):
            raise wrong
        first, last = _DAYS.index(ends[0]), _DAYS.index(ends[-1])
        days.update((first + n) % 7 for n in range((last - first) % 7 + 1))
    return frozenset(days)


@dataclass(frozen=True)
class QuietHours:
    """All quiet times, and where their clock hangs."""

    times: Sequence[QuietTime] = ()
    zone: tzinfo | None = None
    """None: this box's own."""

    def cover(self, at: datetime) -> bool:
        """Whether it is quiet at a UTC time."""
        local = at.astimezone(self.zone)
        return any(quiet.covers(local.weekday(), 60 * local.hour + local.minute) for quiet in self.times)

    def end_after(self, at: datetime) -> datetime:
        """The next UTC time at which it is not quiet, `at` itself where that is; a week later where it is always quiet."""
        if not self.cover(at):
            return at
        midnight = at.astimezone(self.zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        half_hour = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        candidates = [half_hour + n * _STEP for n in range(1, _LOOK_AHEAD // _STEP)]
        for day in range(_LOOK_AHEAD.days):
            for ends in {quiet.ends for quiet in self.times}:
                wall = datetime.combine(midnight.date() + timedelta(days=day + ends // _DAY_MINUTES), time())
                wall += timedelta(minutes=ends % _DAY_MINUTES)
                candidates += [self._utc(wall.replace(fold=fold)) for fold in (0, 1)]
        return min((c for c in candidates if c > at and not self.cover(c)), default=at + timedelta(days=7))

    def _utc(self, wall: datetime) -> datetime:
        return (wall if self.zone is None else wall.replace(tzinfo=self.zone)).astimezone(UTC)
