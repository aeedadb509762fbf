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
    for number, score in enumerate(scores, start=1):
        if change.update(score, THRESHOLD, alert_open=True):
            return number
    return None


def steady(count: int, level: float, spread: float = 0.15) -> list[float]:
    return [float(score) for score in np.random.default_rng(0).normal(level, spread, count)]


def test_steady_change_is_known_after_24_windows_and_once() -> None:
    assert known_after(steady(60, 4.0)) == 24
    change = LastingChange()
    told = [change.update(score, THRESHOLD, alert_open=True) for score in steady(60, 4.0)]
    assert told.count(True) == 1
    assert change.holds


@pytest.mark.parametrize(
    "scores",
    [
        steady(23, 4.0),
        [*steady(12, 4.0), 1.0, *steady(12, 4.0)],  # normal in between
        [float(score) for score in np.linspace(1.6, 6.0, 60)],  # wears out
        [4.0, 1.9, 7.0, 2.0, 3.0, 1.6] * 10,  # knocks now and then
    ],
)
def test_other_changes_are_not(scores: list[float]) -> None:
    assert known_after(scores) is None


def test_what_is_worse_than_the_change_was_is_worth_telling() -> None:
    change = LastingChange()
    for score in steady(30, 4.0):
        change.update(score, THRESHOLD, alert_open=True)
    assert change.is_usual(4.3)
    assert not change.is_usual(5.0)


def test_alert_that_closes_or_a_normal_window_ends_it() -> None:
    for score, is_open in ((1.0, True), (4.0, False)):
        change = LastingChange()
        for one in steady(30, 4.0):
            change.update(one, THRESHOLD, alert_open=True)
        change.update(score, THRESHOLD, alert_open=is_open)
        assert not change.holds
