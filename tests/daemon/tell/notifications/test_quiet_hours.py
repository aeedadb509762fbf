"""Quiet hours by the clock on the wall: over midnight, over a weekend, on the days when the clock is put forward and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asd_daemon.tell.notifications.quiet_hours import QuietHours, parse_quiet_time

BERLIN = ZoneInfo("Europe/Berlin")


def quiet(*texts: str) -> QuietHours:
    return QuietHours([parse_quiet_time(text) for text in texts], BERLIN)


def berlin(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(UTC)


@pytest.mark.parametrize(
    ("texts", "at", "is_quiet"),
    [
        (["22:00-06:00"], "2026-01-12T21:59", False),
        (["22:00-06:00"], "2026-01-12T22:00", True),
        (["22:00-06:00"], "2026-01-13T05:59", True),
        (["22:00-06:00"], "2026-01-13T06:00", False),
        (["sat-sun"], "2026-01-16T23:59", False),  # a Friday
        (["sat-sun"], "2026-01-17T00:00", True),
        (["sat-sun"], "2026-01-18T23:59", True),
        (["sat-sun"], "2026-01-19T00:00", False),
        (["mon-fri 18:00-07:00"], "2026-01-17T06:59", True),  # begun on Friday
        (["mon-fri 18:00-07:00"], "2026-01-17T18:00", False),
        (["fri-mon"], "2026-01-19T12:00", True),
        (["wed,fri 08:00-09:00"], "2026-01-14T08:30", True),
        (["wed,fri 08:00-09:00"], "2026-01-15T08:30", False),
        (["22:00-06:00", "sat-sun"], "2026-01-17T12:00", True),
        (["00:00-24:00"], "2026-01-14T08:30", True),
        ([], "2026-01-14T08:30", False),
    ],
)
def test_time_is_quiet_as_the_words_say(texts: list[str], at: str, is_quiet: bool) -> None:
    assert quiet(*texts).cover(berlin(at)) is is_quiet


@pytest.mark.parametrize(
    "text",
    [
        "",
        "22-6",
        "25:00-06:00",
        "22:00-22:00",
        "22:60-06:00",
        "fr",
        "mon-",
        "mon-fri-sun",
        "24:00-06:00",
        "x 1:00-2:00",
    ],
)
def test_words_that_make_no_sense_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="22:00-06:00"):
        parse_quiet_time(text)


@pytest.mark.parametrize(
    ("texts", "at", "ends"),
    [
        (["22:00-06:00"], "2026-01-12T23:00", "2026-01-13T06:00"),
        (["22:00-06:00"], "2026-01-12T12:00", "2026-01-12T12:00"),
        (["22:00-06:00", "sat-sun"], "2026-01-16T23:00", "2026-01-19T06:00"),
        (["22:00-06:17"], "2026-01-12T23:00", "2026-01-13T06:17"),
        # The night in which the clock is put forward from 2 to 3: seven hours long, and ends at 6 on the wall
        (["22:00-06:00"], "2026-03-28T23:00", "2026-03-29T06:00"),
        # A time that ends in the hour that does not exist ends when it is over
        (["01:00-02:30"], "2026-03-29T01:30", "2026-03-29T03:00"),
        # The night in which it is put back from 3 to 2: nine hours long
        (["22:00-06:00"], "2026-10-24T23:00", "2026-10-25T06:00"),
    ],
)
def test_messages_wait_until_the_wall_says_so(texts: list[str], at: str, ends: str) -> None:
    assert quiet(*texts).end_after(berlin(at)) == berlin(ends)


def test_time_in_the_hour_that_comes_twice_is_quiet_both_times() -> None:
    hours = quiet("02:00-02:30")
    first, second = (berlin("2026-10-25T02:10", fold) for fold in (0, 1))
    assert second - first == timedelta(hours=1)
    assert hours.cover(first)
    assert hours.cover(second)
    assert hours.end_after(first) == berlin("2026-10-25T02:30", 0)


def test_week_without_an_end_of_quiet_is_looked_at_again_after_a_week() -> None:
    at = berlin("2026-01-12T12:00")
    assert quiet("mon-sun").end_after(at) == at + timedelta(days=7)


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),
    st.lists(st.sampled_from(["22:00-06:00", "sat-sun", "mon-fri 18:00-07:15", "02:10-02:50", "wed"]), max_size=3),
)
def test_end_of_quiet_is_not_quiet_and_nothing_before_it_is_loud(at: datetime, texts: list[str]) -> None:
    hours, begin = quiet(*texts), at.replace(tzinfo=UTC)
    ends = hours.end_after(begin)
    assert ends == begin or not hours.cover(ends)
    minutes = int((ends - begin) / timedelta(minutes=1))
    assert all(hours.cover(begin + timedelta(minutes=n)) for n in range(0, minutes, 7))
