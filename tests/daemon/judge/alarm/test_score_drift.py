"""The slow level of normal scores."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from asd_daemon.judge.alarm.score_drift import ScoreDrift, ScoreDriftRule

START = datetime(2026, 1, 31, tzinfo=UTC)
RULE = ScoreDriftRule(reference_windows=10, mean_windows=10, drifted=0.5, back=0.35)


def take(level: ScoreDrift, scores: list[float], threshold: float = 1.0) -> list[int]:
    """The numbers of the windows at which drifting began or ended."""
    return [n for n, s in enumerate(scores) if level.update(s, threshold, START + timedelta(seconds=10 * n))]


def test_level_that_creeps_up_drifts_once_and_comes_back_once() -> None:
    level = ScoreDrift(RULE)
    creeping = [0.2] * 10 + [0.2 + 0.01 * n for n in range(60)] + [0.2] * 60
    changes = take(level, creeping)
    assert len(changes) == 2
    assert creeping[changes[0]] < 1, "before it is an alert"
    assert level.drifted_since is None


def test_level_that_wanders_about_its_middle_does_not_drift() -> None:
    assert take(ScoreDrift(RULE), [0.2, 0.4] * 500) == []


def test_anomalous_windows_are_no_drift() -> None:
    assert take(ScoreDrift(RULE), [0.2] * 10 + [5.0] * 500) == []


def test_another_threshold_makes_a_new_reference() -> None:
    level = ScoreDrift(RULE)
    take(level, [0.2] * 10 + [0.8] * 50)
    assert level.drifted_since is not None
    take(level, [0.8] * 60, threshold=2.0)
    assert level.drifted_since is None
    assert level.memory.threshold == 2.0


def test_drift_is_unknown_until_there_is_a_reference() -> None:
    level = ScoreDrift(RULE)
    take(level, [0.2] * 9)
    assert level.drift is None
    take(level, [0.2])
    assert level.drift == 0


@given(st.lists(st.floats(-5, 5, allow_nan=False), max_size=80), st.integers(0, 80))
def test_property_a_level_that_is_taken_up_again_goes_on_as_if_nothing_had_been(scores: list[float], cut: int) -> None:
    whole = ScoreDrift(RULE)
    take(whole, scores)
    first = ScoreDrift(RULE)
    take(first, scores[:cut])
    second = ScoreDrift(RULE, first.memory)
    for number, score in enumerate(scores[cut:], start=min(cut, len(scores))):
        second.update(score, 1.0, START + timedelta(seconds=10 * number))
    assert second.memory == whole.memory
