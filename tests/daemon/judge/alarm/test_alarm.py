"""The alarm: worked examples, and properties that hold for any scores."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asd_daemon.judge.alarm.alarm import Alarm, AlertEvent, AlertKind, AlertOutcome
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.judge.alarm.score_drift import ScoreDrift, ScoreDriftRule

START = datetime(2026, 1, 31, tzinfo=UTC)
THRESHOLD = 0.5
Scores = list[float | None]


def at(window: int) -> datetime:
    return START + timedelta(seconds=10 * window)


def play(scores: Scores, rule: AlarmRule) -> list[tuple[int, AlertEvent]]:
    """What is told, with the number of the window that made it; None is a window that can't be judged."""
    numbers = count(1)
    alarm = Alarm(rule, new_id=lambda: f"event-{next(numbers)}")
    told = []
    for number, score in enumerate(scores):
        event = alarm.update(score or 0.0, THRESHOLD, at(number), usable=score is not None)
        if event is not None:
            told.append((number, event))
    return told


def kinds(scores: Scores, rule: AlarmRule) -> list[tuple[int, str]]:
    return [(number, event.kind.value) for number, event in play(scores, rule)]


RULE = AlarmRule(open_after=2, of=3, close_after=3, update_every_s=30)


def test_two_of_three_open_and_three_normal_in_a_row_close() -> None:
    assert kinds([0.1, 0.9, 0.1, 0.9, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1], RULE) == [(3, "open"), (9, "close")]


def test_two_anomalous_windows_too_far_apart_open_nothing() -> None:
    assert kinds([0.9, 0.1, 0.1, 0.9, 0.1, 0.1, 0.9], RULE) == []


def test_score_at_the_threshold_is_normal() -> None:
    assert kinds([THRESHOLD] * 5, RULE) == []


def test_open_event_tells_start_peak_and_counts() -> None:
    ((_, event),) = play([0.1, 0.8, 0.1, 0.7], RULE)
    assert event == AlertEvent(AlertKind.OPEN, "event-1", at(1), at(3), 0.7, 0.8, THRESHOLD, 3, 2)


def test_rising_peak_is_told_but_not_more_often_than_allowed() -> None:
    scores: Scores = [0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0, 1.0]
    told = play(scores, RULE)
    assert [(n, e.kind.value, e.peak_score) for n, e in told] == [(1, "open", 0.7), (4, "update", 1.0)]


def test_peak_that_rose_in_the_quiet_time_is_told_after_it() -> None:
    told = play([0.6, 0.7, 0.9, 0.6, 0.6], RULE)
    assert [(n, e.kind.value, e.score, e.peak_score) for n, e in told[1:]] == [(4, "update", 0.6, 0.9)]


def test_close_keeps_the_peak_and_the_next_alert_has_a_new_name() -> None:
    told = play([0.6, 0.9, 0.1, 0.1, 0.1, 0.6, 0.6], RULE)
    assert [(e.kind.value, e.event_id, e.peak_score) for _, e in told] == [
        ("open", "event-1", 0.9),
        ("close", "event-1", 0.9),
        ("open", "event-2", 0.6),
    ]


def test_windows_that_cannot_be_judged_neither_open_nor_close() -> None:
    assert kinds([0.9, None, None, 0.9, 0.1, None, 0.1, None], RULE) == [(3, "open")]
    assert kinds([None] * 20, RULE) == []


def test_event_id_when_none_is_given_is_unique() -> None:
    ids = set()
    for _ in range(20):
        event = Alarm(AlarmRule(1, 1, 1)).update(1.0, 0.5, START)
        assert event is not None
        ids.add(event.event_id)
    assert len(ids) == 20


@pytest.mark.parametrize("wrong", [(0, 3, 6), (4, 3, 6), (2, 3, 0)])
def test_rule_that_makes_no_sense_is_refused(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="open_after <= of"):
        AlarmRule(*wrong)


@pytest.mark.parametrize(
    "wrong", [{"hysteresis": 1.0}, {"hysteresis": -0.1}, {"cool_down_s": -1.0}, {"relapse_s": -1.0}]
)
def test_rule_with_impossible_closing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="hysteresis"):
        AlarmRule(**wrong)  # type: ignore[arg-type]


def test_score_between_the_two_thresholds_neither_opens_nor_closes() -> None:
    rule = AlarmRule(open_after=1, of=1, close_after=2, update_every_s=1e9, hysteresis=0.2)
    assert kinds([0.45, 0.45, 0.9, 0.45, 0.45, 0.45, 0.3, 0.45, 0.3, 0.3], rule) == [(2, "open"), (9, "close")]


def test_close_threshold_lies_below_also_where_scores_are_negative() -> None:
    rule = AlarmRule(hysteresis=0.1)
    assert rule.close_threshold(-2.0) == pytest.approx(-2.2)
    assert rule.close_threshold(2.0) == pytest.approx(1.8)


def test_cool_down_after_a_close_holds_the_next_alert_back_but_not_for_ever() -> None:
    rule = AlarmRule(open_after=1, of=1, close_after=1, update_every_s=1e9, cool_down_s=60)
    assert kinds([0.9, 0.1, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9], rule) == [(0, "open"), (1, "close"), (7, "open")]


def test_alert_that_comes_back_soon_needs_twice_the_quiet_to_close_each_time() -> None:
    rule = AlarmRule(open_after=1, of=1, close_after=2, update_every_s=1e9, relapse_s=300)
    bad: Scores = [0.9]
    quiet: Scores = [0.1]
    told = kinds(
        bad + quiet * 2 + bad + quiet * 4 + bad + quiet * 7 + bad + quiet * 8 + quiet * 40 + bad + quiet * 2, rule
    )
    opens = [n for n, kind in told if kind == "open"]
    closes = [n for n, kind in told if kind == "close"]
    assert opens == [0, 3, 8, 65], "the one after seven quiet windows is the same alert still"
    assert [closes[0], closes[1], closes[2], closes[3]] == [2, 7, 24, 67], "and after a longer peace all is as it was"


def test_quiet_that_relapses_ask_for_has_a_bound_and_is_never_less_than_the_rules() -> None:
    assert [AlarmRule(close_after=6).quiet_windows(n) for n in range(8)] == [6, 12, 24, 48, 96, 192, 360, 360]
    assert AlarmRule(close_after=1000).quiet_windows(3) == 1000


def test_level_that_creeps_through_the_threshold_is_drift_and_a_few_alerts_and_no_storm() -> None:
    """Two weeks of a level on its way; without the memory of relapses the same scores make more than 300 alerts."""
    rng = np.random.default_rng(0)
    days = 14
    scores = rng.gamma(100, 1 / 100, days * 8640) + np.linspace(0, 0.5, days * 8640)
    alarm = Alarm(AlarmRule(hysteresis=0.05, cool_down_s=60, relapse_s=86_400), new_id=lambda: "e")
    level = ScoreDrift(ScoreDriftRule())
    opens = [0] * days
    drifted_on = None
    for number, score in enumerate(scores.tolist()):
        event = alarm.update(score, 1.33, at(number))
        opens[number // 8640] += event is not None and event.kind is AlertKind.OPEN
        if level.update(score, 1.33, at(number)) and drifted_on is None:
            drifted_on = number // 8640
    assert 0 < sum(opens) <= 8
    assert max(opens) <= 5
    assert drifted_on is not None
    assert drifted_on < days / 2, "long before the level is at the threshold"
    assert alarm.open_alert is not None, "what has become the rule stays open until somebody comes"


def test_clock_that_is_set_back_holds_nothing_up() -> None:
    rule = AlarmRule(open_after=1, of=1, close_after=1, update_every_s=60, cool_down_s=3600)
    alarm = Alarm(rule)
    a_year = timedelta(days=365)
    told = [
        event.kind.value
        for score, when in [
            (0.9, at(0)),
            (0.95, at(1) - a_year),  # the clock is set back: the update is due
            (0.1, at(2) - a_year),
            (0.9, at(3) - 2 * a_year),  # and again: the cool-down is over
            (0.1, at(4) + a_year),
        ]
        if (event := alarm.update(score, THRESHOLD, when)) is not None
    ]
    assert told == ["open", "update", "close", "open", "close"]


def test_headroom_is_the_peak_above_the_threshold_in_parts_of_it() -> None:
    ((_, event),) = play([0.6, 0.75], RULE)
    assert event.headroom == pytest.approx(0.5)
    assert AlertEvent(AlertKind.OPEN, "e", at(0), at(0), 1, 1, 0, 1, 1).headroom is None


@st.composite
def rules(draw: st.DrawFn) -> AlarmRule:
    of = draw(st.integers(1, 5))
    return AlarmRule(
        draw(st.integers(1, of)),
        of,
        draw(st.integers(1, 5)),
        draw(st.sampled_from([0.0, 25.0])),
        relapse_s=draw(st.sampled_from([0.0, 100.0])),
    )


score_lists = st.lists(st.one_of(st.none(), st.sampled_from([0.0, 0.5, 0.6, 0.7, 0.8, 0.9])), max_size=60)


@given(score_lists, rules())
def test_property_events_come_as_open_updates_close_under_one_name(scores: Scores, rule: AlarmRule) -> None:
    current: AlertEvent | None = None
    for _, event in play(scores, rule):
        if event.kind is AlertKind.OPEN:
            assert current is None
        else:
            assert current is not None
            assert event.event_id == current.event_id
            assert event.started_at == current.started_at
            assert event.windows > current.windows
            assert event.peak_score >= current.peak_score
        current = None if event.kind is AlertKind.CLOSE else event


@given(score_lists, rules())
def test_property_what_cannot_be_judged_changes_nothing(scores: Scores, rule: AlarmRule) -> None:
    usable = [(number, score) for number, score in enumerate(scores) if score is not None]
    with_holes = [
        (n, e.kind, e.score, e.peak_score)
        for n, e in play(scores, AlarmRule(rule.open_after, rule.of, rule.close_after, 0))
    ]
    without = play([s for _, s in usable], AlarmRule(rule.open_after, rule.of, rule.close_after, 0))
    assert with_holes == [(usable[n][0], e.kind, e.score, e.peak_score) for n, e in without]


@given(score_lists, rules(), st.integers(0, 60))
def test_property_an_alarm_that_is_taken_up_again_goes_on_as_if_nothing_had_been(
    scores: Scores, rule: AlarmRule, cut: int
) -> None:
    def events(alarm: Alarm, part: list[tuple[int, float | None]]) -> list[AlertEvent | None]:
        return [alarm.update(s or 0.0, THRESHOLD, at(n), usable=s is not None) for n, s in part]

    numbered = list(enumerate(scores))
    whole = Alarm(rule, new_id=lambda: "e")
    before, after = events(whole, numbered[:cut]), events(whole, numbered[cut:])
    first = Alarm(rule, new_id=lambda: "e")
    assert events(first, numbered[:cut]) == before
    assert events(Alarm(rule, new_id=lambda: "e", memory=first.memory), numbered[cut:]) == after


@given(score_lists, rules())
def test_property_opens_and_closes_are_those_of_the_definition(scores: Scores, rule: AlarmRule) -> None:
    """Against the rule written out over the whole history, rather than kept step by step."""
    rule = replace(rule, relapse_s=0)
    verdicts = [(n, s > THRESHOLD) for n, s in enumerate(scores) if s is not None]
    expected: list[tuple[int, str]] = []
    is_open, since = False, 0
    for i, (number, anomalous) in enumerate(verdicts):
        if not is_open:
            recent = [v for _, v in verdicts[max(since, i + 1 - rule.of) : i + 1]]
            if anomalous and sum(recent) >= rule.open_after:
                is_open = True
                expected.append((number, "open"))
        elif i + 1 >= rule.close_after and not any(v for _, v in verdicts[i + 1 - rule.close_after : i + 1]):
            is_open, since = False, i + 1
            expected.append((number, "close"))
    assert [k for k in kinds(scores, rule) if k[1] != "update"] == expected


@given(score_lists, rules())
def test_property_peak_is_the_highest_anomalous_score_since_the_start(scores: Scores, rule: AlarmRule) -> None:
    for number, event in play(scores, rule):
        since = [s for n, s in enumerate(scores[: number + 1]) if s is not None and at(n) >= event.started_at]
        assert event.peak_score == max(since)
        assert event.windows == len(since)
        assert event.anomalous_windows == sum(s > THRESHOLD for s in since)


def open_alarm(rule: AlarmRule) -> Alarm:
    alarm = Alarm(rule, new_id=lambda: "event-1")
    for number in range(rule.of):
        alarm.update(0.9, THRESHOLD, at(number))
    assert alarm.open_alert is not None
    return alarm


def test_alert_whose_machine_cannot_be_judged_any_more_says_so_once_and_ends_as_unknown() -> None:
    alarm = open_alarm(replace(RULE, unknown_after_s=300))
    told = [(n, event) for n in range(10, 60) if (event := alarm.unjudged(at(n))) is not None]
    assert [(n, e.kind, e.outcome) for n, e in told] == [
        (13, AlertKind.UPDATE, None),
        (40, AlertKind.CLOSE, AlertOutcome.UNKNOWN),
    ]
    assert {e.unjudged_since for _, e in told} == {at(10)}
    assert {e.event_id for _, e in told} == {"event-1"}
    assert alarm.open_alert is None


def test_alert_that_is_judged_again_in_time_goes_on_and_ends_as_normal() -> None:
    alarm = open_alarm(replace(RULE, unknown_after_s=300))
    for number in range(10, 35):
        alarm.unjudged(at(number))
    told = [event for n in range(35, 45) if (event := alarm.update(0.1, THRESHOLD, at(n))) is not None]
    assert [(e.kind, e.outcome, e.unjudged_since) for e in told] == [(AlertKind.CLOSE, AlertOutcome.NORMAL, None)]


def test_time_without_judgement_goes_on_over_a_restart_and_begins_anew_when_the_clock_is_set_back() -> None:
    rule = replace(RULE, unknown_after_s=300)
    before = open_alarm(rule)
    for number in range(10, 30):
        before.unjudged(at(number))
    again = Alarm(rule, memory=before.memory)
    assert again.unjudged(at(-1000)) is None
    assert again.open_alert is not None
    closed = [n for n in range(-999, 0) if (e := again.unjudged(at(n))) is not None and e.kind is AlertKind.CLOSE]
    assert closed == [-970]
    later = Alarm(rule, memory=before.memory)
    event = later.unjudged(at(45))
    assert event is not None
    assert event.outcome is AlertOutcome.UNKNOWN


def test_nothing_is_told_of_a_machine_without_an_alert_that_cannot_be_judged() -> None:
    alarm = Alarm(RULE)
    assert [alarm.unjudged(at(n)) for n in range(1000)] == [None] * 1000


def test_an_open_alert_says_at_once_that_nothing_is_heard_any_more_and_only_once() -> None:
    alarm = Alarm(AlarmRule())
    for number in range(3):
        alarm.update(3.0, 1.0, at(number))
    assert alarm.open_alert is not None
    event = alarm.unjudged(at(3), is_deaf=True)
    assert event is not None
    assert (event.kind, event.outcome, event.unjudged_since) == (AlertKind.UPDATE, None, at(3))
    assert alarm.unjudged(at(4), is_deaf=True) is None
