"""What may be a state that was never heard: begins at once, lasts, is steady; and what is not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from asd_daemon.judge.alarm.lasting_change import LastingChange

THRESHOLD = 1.5


def known_after(scores: Sequence[float]) -> int | None:
    """After how many windows of an open alert it is known."""
    change = LastingChange()
    for score in (1.0, 1.1, 0.9):
        change.update(score, THRESHOLD, alert_open=False)
    for number, score in enumerate(scores, start=1):
        if change.update(score, THRESHOLD, alert_open=number > 1):
            return number
    return None


def steady(count: int, level: float, spread: float = 0.15) -> list[float]:
    return [float(score) for score in np.random.default_rng(0).normal(level, spread, count)]


def test_steady_change_is_known_after_24_windows_and_once() -> None:
    assert known_after(steady(60, 4.0)) == 25, "an alert opens with its second window"
    change = LastingChange()
    change.update(1.0, THRESHOLD, alert_open=False)
    told = [change.update(score, THRESHOLD, alert_open=True) for score in steady(60, 4.0)]
    assert told.count(True) == 1
    assert change.holds


def test_change_behind_an_alert_that_had_opened_for_less_is_known_too() -> None:
    known = known_after([*steady(10, 1.7, 0.02), *steady(40, 4.0)])
    assert known is not None
    assert 30 <= known <= 34


def test_change_that_was_told_before_a_restart_is_known_to_have_begun_at_once() -> None:
    change = LastingChange()
    told = [change.update(score, THRESHOLD, alert_open=True, was_told=True) for score in steady(30, 4.0)]
    assert told.index(True) == 23


@pytest.mark.parametrize(
    "scores",
    [
        steady(24, 4.0),
        [*steady(12, 4.0), 1.0, *steady(12, 4.0)],  # normal in between
        [float(score) for score in np.linspace(1.6, 6.0, 60)],  # wears out
        [4.0, 1.9, 7.0, 2.0, 3.0, 1.6] * 10,  # knocks now and then
    ],
)
def test_other_changes_are_not(scores: list[float]) -> None:
    assert known_after(scores) is None


def test_what_is_worse_than_the_change_was_is_worth_telling() -> None:
    change = LastingChange()
    change.update(1.0, THRESHOLD, alert_open=False)
    for score in steady(30, 4.0):
        change.update(score, THRESHOLD, alert_open=True)
    assert change.is_usual(4.3)
    assert not change.is_usual(5.0)


def test_alert_that_closes_or_a_normal_window_ends_it() -> None:
    for score, is_open in ((1.0, True), (4.0, False)):
        change = LastingChange()
        change.update(1.0, THRESHOLD, alert_open=False)
        for one in steady(30, 4.0):
            change.update(one, THRESHOLD, alert_open=True)
        change.update(score, THRESHOLD, alert_open=is_open)
        assert not change.holds
