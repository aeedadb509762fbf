"""A threshold keeps the budget it was asked for, is not led astray by faults, and survives a restart."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from asd_daemon.judge.thresholds.learned_threshold import LearnedThreshold
from asd_daemon.judge.thresholds.tail_memory import TailMemory
from asd_daemon.judge.thresholds.threshold import EnrolledThreshold, LearningRule

F64 = NDArray[np.float64]
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
ENROLLED = EnrolledThreshold("first", centre=1.0, threshold=1.4)
RULE = LearningRule(least_windows=500)
"""Tests hear one window every three minutes: a stretch has 20 windows, a week some 3000."""


def never(_score: float, _threshold: float) -> bool:
    return False


def hear(
    learned: LearnedThreshold,
    scores: F64,
    begin: datetime = MONDAY,
    is_open: Callable[[float, float], bool] = never,
) -> list[datetime]:
    """Give scores (N,) to a threshold; the times at which it became another one."""
    changed = []
    for n, score in enumerate(scores):
        at = begin + timedelta(seconds=n * 180)
        if learned.hear(float(score), at, alert_open=is_open(score, learned.threshold.value)) is not None:
            changed.append(at)
    return changed


def week(weeks: float = 1, seed: int = 0) -> F64:
    return 1 + 0.1 * np.random.default_rng(seed).normal(size=round(weeks * 604_800 / 180))


def test_is_provisional_for_a_week_and_calibrated_then() -> None:
    learned = LearnedThreshold(RULE, ENROLLED)
    assert (learned.threshold.state, learned.threshold.value) == ("provisional", 1.4)
    hear(learned, week(0.9))
    assert (learned.threshold.state, learned.threshold.value) == ("provisional", 1.4)
    hear(learned, week(0.3), MONDAY + timedelta(days=6.3))
    assert learned.threshold.state == "calibrated"
    assert learned.threshold.days >= 7
    assert learned.threshold.windows > 2000


def test_never_sinks_while_provisional_and_rises_a_little_a_day() -> None:
    rule = RULE
    learned = LearnedThreshold(rule, ENROLLED)
    hear(learned, week(0.75) * 1.4)
    assert learned.threshold.state == "provisional"
    assert 1.4 < learned.threshold.value <= 1.4 + 0.4 * rule.move_per_day * 6


@pytest.mark.parametrize("budget", [1.0, 5.0])
def test_peaks_cross_it_as_often_as_the_budget_says(budget: float) -> None:
    """Independent windows: M, the second largest of three, exceeds u with probability 3 p² - 2 p³; a crossing lasts 1.5 windows."""
    rule = LearningRule(false_alarms_per_week=budget, least_windows=500)
    learned = LearnedThreshold(rule, ENROLLED)
    hear(learned, week(8))
    fresh = week(60, seed=1)
    m = np.sort(np.lib.stride_tricks.sliding_window_view(fresh, 3), axis=1)[:, 1]
    opens = np.flatnonzero((m[1:] > learned.threshold.value) & (m[:-1] <= learned.threshold.value)).size
    assert budget / 2 < opens / 60 < 2 * budget


def test_another_budget_asks_the_same_tail_at_once() -> None:
    learned = LearnedThreshold(RULE, ENROLLED)
    hear(learned, week(3))
    strict, loose = (
        LearnedThreshold(LearningRule(false_alarms_per_week=b, least_windows=500), ENROLLED, learned.memory).threshold
        for b in (0.2, 5.0)
    )
    assert strict.value > learned.threshold.value > loose.value
    assert strict.state == loose.state == "calibrated"


def test_goes_on_after_a_restart_as_if_there_was_none() -> None:
    scores = week(2)
    rule = RULE
    whole, first = LearnedThreshold(rule, ENROLLED), LearnedThreshold(rule, ENROLLED)
    hear(whole, scores)
    hear(first, scores[:3000])
    again = LearnedThreshold(rule, ENROLLED, TailMemory.model_validate_json(first.memory.model_dump_json()))
    assert again.threshold.value == first.threshold.value
    hear(again, scores[3000:], MONDAY + timedelta(seconds=3000 * 180))
    assert again.memory == whole.memory


def test_another_enrolment_begins_anew() -> None:
    learned = LearnedThreshold(RULE, ENROLLED)
    hear(learned, week(2))
    other = LearnedThreshold(RULE, EnrolledThreshold("second", 1.0, 1.7), learned.memory)
    assert (other.threshold.state, other.threshold.value) == ("provisional", 1.7)


def test_memory_stays_small() -> None:
    learned = LearnedThreshold(LearningRule(memory_days=10, least_windows=500), ENROLLED)
    hear(learned, week(6))
    assert len(learned.memory.numbers) <= 11 * 24
    assert learned.memory.numbers == sorted(set(learned.memory.numbers))


def test_an_open_alert_and_what_led_to_it_teach_nothing() -> None:
    learned = LearnedThreshold(RULE, ENROLLED)
    scores = week(2)
    begin = 5000  # of 6720
    scores[begin - 30 : begin] = 1.55  # an hour and a half of worse and worse sound
    scores[begin:] = 4.0
    hear(learned, scores, is_open=lambda score, _: score > 3)
    assert max(learned.memory.peaks) < 1.5
    assert learned.threshold.value < 1.6


def test_what_somebody_calls_normal_teaches_at_once() -> None:
    learned = LearnedThreshold(RULE, ENROLLED)
    scores = week(2)
    scores[5000:5020] = 2.0
    hear(learned, scores, is_open=lambda score, _: score > 1.9)
    assert max(learned.memory.peaks) < 1.9
    before = learned.threshold.value
    at = MONDAY + timedelta(seconds=5000 * 180)
    after = learned.accept(at, at + timedelta(hours=1))
    assert max(learned.memory.peaks) == pytest.approx(2.0)
    assert after.value > before
    assert learned.memory.alarms == []


def test_short_alerts_teach_that_they_happened_but_not_how_loud() -> None:
    """Left out altogether, the tail would be cut off at its own threshold, sink, and open more alerts."""

    def learned_from(loudness: float) -> LearnedThreshold:
        learned, scores = LearnedThreshold(RULE, ENROLLED), week(3)
        for place in (4500, 5500, 6500, 7500, 8500):
            scores[place : place + 3] = loudness
        hear(learned, scores, is_open=lambda score, threshold: score > max(threshold, 1.9))
        return learned

    loud, louder, none = learned_from(2.0), learned_from(9.0), learned_from(1.0)
    assert len(loud.memory.alarms) == 5
    assert loud.threshold.value == louder.threshold.value > none.threshold.value


def test_alert_that_ended_unknown_is_no_false_one() -> None:
    learned = LearnedThreshold(RULE, ENROLLED)
    hear(learned, week(2))
    begin = MONDAY + timedelta(weeks=2)
    hear(learned, np.full(10, 3.0), begin, is_open=lambda *_: True)
    learned.drop_alert()
    hear(learned, week(0.1), begin + timedelta(hours=2))
    assert learned.memory.alarms == []
    assert max(learned.memory.peaks) < 1.6


def test_a_long_alert_teaches_nothing_at_all() -> None:
    learned, scores = LearnedThreshold(RULE, ENROLLED), week(3)
    scores[5000:5700] = 3.0  # 35 hours
    hear(learned, scores, is_open=lambda score, _: score > 2)
    assert learned.memory.alarms == []
    assert max(learned.memory.peaks) < 1.6


def test_a_fault_that_grows_moves_it_by_no_more_than_it_may() -> None:
    rule = RULE
    learned = LearnedThreshold(rule, ENROLLED)
    hear(learned, week(3))
    before = learned.threshold.value
    growing = week(1, seed=2) + np.linspace(0, 0.4, week(1).size)
    hear(learned, growing, MONDAY + timedelta(weeks=3))
    assert learned.threshold.value <= before + 0.4 * rule.rise_per_day * 7
    assert learned.drift > rule.drifted
    assert learned.threshold.held == "drift"


def test_a_drifted_level_teaches_nothing() -> None:
    learned = LearnedThreshold(RULE, ENROLLED)
    hear(learned, week(3))
    taught, value = learned.memory.windows, learned.threshold.value
    hear(learned, week(1, seed=3) + 0.3, MONDAY + timedelta(weeks=3))
    assert learned.memory.windows < taught + 480  # the first day, until the day's median has gone
    assert learned.threshold.value < value + 0.05


def test_never_goes_farther_than_the_limits_and_says_so() -> None:
    rule = LearningRule(move_per_day=10, least_windows=500)
    rng = np.random.default_rng(8)
    learned = LearnedThreshold(rule, ENROLLED)
    hear(learned, 1 + rng.exponential(0.5, week(2).size))
    assert learned.threshold.value == pytest.approx(1 + rule.widest * 0.4)
    assert learned.threshold.held == "limit"
    assert (learned.threshold.wanted or 0) > learned.threshold.value


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_jumps_costs_nothing_that_is_known(days: int) -> None:
    learned = LearnedThreshold(RULE, ENROLLED)
    hear(learned, week(2))
    known = set(learned.memory.numbers)
    hear(learned, week(0.3, seed=4), MONDAY + timedelta(days=days))
    assert known <= set(learned.memory.numbers)
    before = learned.threshold
    hear(learned, week(1, seed=5), MONDAY + timedelta(weeks=2))
    assert known <= set(learned.memory.numbers)
    assert learned.memory.numbers == sorted(set(learned.memory.numbers))
    assert learned.threshold.windows > before.windows
    assert learned.threshold.value == pytest.approx(before.value, abs=0.05)


def test_a_new_product_that_is_called_normal_is_the_usual_one_from_then_on() -> None:
    learned = LearnedThreshold(RULE, ENROLLED)
    hear(learned, week(3))
    changed = MONDAY + timedelta(weeks=3)
    hear(learned, week(0.5, seed=3) + 0.2, changed)
    assert learned.threshold.held == "drift"
    learned.accept(changed, changed + timedelta(days=7))
    assert learned.threshold.value > 1.35
    taught = learned.memory.windows
    hear(learned, week(0.5, seed=4) + 0.2, changed + timedelta(days=3.5))
    assert learned.threshold.held is None
    assert learned.memory.windows > taught + 1000


def test_refuses_a_threshold_below_the_centre() -> None:
    with pytest.raises(ValueError, match="above the centre"):
        LearnedThreshold(LearningRule(), EnrolledThreshold("first", 1.0, 1.0))


@pytest.mark.parametrize("change", [{"open_after": 4}, {"false_alarms_per_week": 0}, {"narrowest": 0}, {"widest": 0.5}])
def test_refuses_rules_that_make_no_sense(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="rule"):
        LearningRule(**change)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scores_of_another_scale_give_the_same_threshold_in_that_scale(scale: float) -> None:
    """Scores are about 1 for machines that are learned now; distances of a few thousandths for machines of earlier bundles."""
    scores = week(3)
    scores[4500:4503] = 2.0
    usual = LearnedThreshold(RULE, ENROLLED)
    scaled = LearnedThreshold(RULE, EnrolledThreshold("first", scale, 1.4 * scale))
    hear(usual, scores, is_open=lambda score, threshold: score > max(threshold, 1.9))
    hear(scaled, scores * scale, is_open=lambda score, threshold: score > max(threshold, 1.9 * scale))
    assert usual.threshold.value != 1.4
    assert scaled.threshold.value == pytest.approx(scale * usual.threshold.value, rel=1e-4)
    assert scaled.threshold.windows == usual.threshold.windows


def test_another_count_of_windows_begins_anew() -> None:
    """Peaks are those of the k-th of n windows."""
    learned = LearnedThreshold(RULE, ENROLLED)
    hear(learned, week(2))
    other = LearnedThreshold(LearningRule(open_after=4, of=5), ENROLLED, learned.memory)
    assert (other.threshold.state, other.threshold.windows) == ("provisional", 0)


def test_alert_that_too_low_a_threshold_keeps_open_is_learned_away() -> None:
    """Enrolled in a quiet hour: one alert from the first minute on, which teaches nothing of itself and would never close."""
    learned = LearnedThreshold(RULE, EnrolledThreshold("first", 1.0, 1.1))
    scores = np.where(np.random.default_rng(9).random(week(1).size) < 0.1, 1.2, 1.0)
    hear(learned, scores, is_open=lambda _score, threshold: threshold < 1.15)
    assert learned.threshold.value > 1.15


def test_alert_of_a_machine_that_is_far_from_what_was_enrolled_is_not_learned_away() -> None:
    learned = LearnedThreshold(RULE, EnrolledThreshold("first", 1.0, 1.1))
    hear(learned, week(1) + 0.5, is_open=lambda *_: True)
    assert learned.threshold.value == 1.1


def test_ten_weeks_of_memory_take_some_fifty_kilobytes() -> None:
    learned = LearnedThreshold(RULE, ENROLLED)
    hear(learned, week(11) * 1.23456789)
    assert 30_000 < len(learned.memory.model_dump_json()) < 60_000


def test_memory_whose_parts_do_not_belong_together_is_refused() -> None:
    with pytest.raises(ValidationError, match="equally many"):
        TailMemory(numbers=[1, 2], peaks=[1.0], levels=[1.0])
