"""Windows spread over time: one a slot, whatever is unusable, interrupted, or done to the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from asd_daemon.learn.spread import SpreadSchedule, duration_words

START = datetime(2026, 1, 1, tzinfo=UTC)


def taken(schedule: SpreadSchedule, begin_s: float, end_s: float, usable: float = 1.0) -> list[int]:
    """The slots of the windows that are taken of ten seconds each."""
    rng, slots = np.random.default_rng(0), []
    for second in np.arange(begin_s, end_s, 10.0):
        at = START + timedelta(seconds=float(second))
        schedule.begin(at, -1)
        if schedule.wants(at) and rng.random() < usable:
            slots.append(schedule.slot(at))
            schedule.took(slots[-1])
    return slots


def test_each_slot_has_one_window_at_a_moment_of_its_own() -> None:
    schedule = SpreadSchedule(60, 3600 * 6, np.random.default_rng(1))
    assert taken(schedule, 0, 3600 * 6) == list(range(60))
    assert schedule.is_over
    moments = [SpreadSchedule(60, 3600 * 6)._moments_s.mean() for _ in range(20)]
    assert np.mean(moments) == pytest.approx((360 - 10) / 2, rel=0.05)


def test_unusable_window_is_followed_by_another_of_the_same_slot() -> None:
    assert len(taken(SpreadSchedule(60, 3600 * 6, np.random.default_rng(1)), 0, 3600 * 6, usable=0.5)) > 50


def test_interrupted_schedule_goes_on_in_the_slot_that_the_clock_says() -> None:
    schedule = SpreadSchedule(10, 1000)
    schedule.begin(START, 3)
    assert not schedule.wants(START + timedelta(seconds=399)), "that slot has its window"
    assert taken(schedule, 500, 1000) == [5, 6, 7, 8, 9]
    assert schedule.slot(START + timedelta(seconds=1000)) == 10, "over"


def test_clock_that_is_set_back_begins_the_next_slot() -> None:
    schedule = SpreadSchedule(10, 1000)
    assert taken(schedule, 0, 500) == [0, 1, 2, 3, 4]
    assert schedule.slot(START - timedelta(days=300)) == 5


@pytest.mark.parametrize(("windows", "over_s"), [(0, 100), (11, 100)])
def test_windows_that_do_not_fit_are_refused(windows: int, over_s: float) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        SpreadSchedule(windows, over_s)


def test_spans_of_time_in_words() -> None:
    assert [duration_words(s) for s in (30, 432, 5400, 43_200, 259_200)] == [
        "30 seconds",
        "7.2 minutes",
        "90 minutes",
        "12 hours",
        "3 days",
    ]
