"""What is withheld while people want silence, and when the silence is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.judge.alarm.alert_silence import AlertSilence

START = datetime(2026, 1, 31, tzinfo=UTC)
MUTED = AlertSilence().muted(START, 60)


def event(kind: AlertKind, after_s: float = 0.0) -> AlertEvent:
    return AlertEvent(kind, "a", START, START + timedelta(seconds=after_s), 0.9, 0.9, 0.5, 2, 2)


def test_muted_for_a_minute_is_over_after_it_or_when_the_clock_is_set_back_far() -> None:
    end = START + timedelta(seconds=60)
    assert MUTED.muted_until(START) == MUTED.muted_until(START - timedelta(seconds=120)) == end
    for now in (end, START - timedelta(seconds=121)):
        assert MUTED.muted_until(now) is None
        assert MUTED.has_expired(now)
    assert not AlertSilence().has_expired(end)


def test_alert_that_opens_while_muted_is_withheld_to_its_end() -> None:
    silence = MUTED.when_opened(START)
    assert all(silence.withholds(event(kind, 3600)) for kind in AlertKind)
    assert not silence.unmuted().withholds(event(AlertKind.CLOSE))
    assert silence.when_closed() == MUTED


def test_alert_that_opened_before_is_muted_in_its_updates_only() -> None:
    silence = AlertSilence().when_opened(START).muted(START, 60)
    assert [silence.withholds(event(kind)) for kind in AlertKind] == [False, True, False]
    assert not silence.withholds(event(AlertKind.UPDATE, 61))


def test_acknowledged_alert_is_withheld_in_its_updates_and_the_next_one_is_not() -> None:
    silence = AlertSilence().when_opened(START).acknowledging("a")
    assert [silence.withholds(event(kind)) for kind in AlertKind] == [False, True, False]
    assert silence.acknowledging("b").withholds(event(AlertKind.UPDATE)) is False
    assert silence.when_opened(START).acknowledged is silence.when_closed().acknowledged is None
