"""Whether a new bundle is worse: the tests against scipy, the rule on cases that can be counted by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from asd_daemon.judge.alarm.alarm import Alarm
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.rollout.returning import (
    JudgedMachine,
    PastAlert,
    binomial_tail,
    jump,
    past_alerts,
    poisson_tail,
    trial_verdict,
)
from asd_daemon.rollout.rollout_state import MachineTrial, TrialRecord
from asd_daemon.tell.payloads import AlertDetails
from asd_daemon.tell.storage.alert_history import AlertHistory

BEGAN = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
FAN = JudgedMachine("fan", 1.0, 10.0)
THREE_DAYS = 3 * 8640  # windows


def at(hours: float) -> datetime:
    return BEGAN + timedelta(hours=hours)


def test_tails_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for n in range(30):
        for k in range(n + 1):
            assert binomial_tail(k, n) == pytest.approx(stats.binom.sf(k - 1, n, 0.5), rel=1e-12)
    for mean in (1e-4, 0.43, 3.0, 40.0):
        for k in range(60):
            assert poisson_tail(k, mean) == pytest.approx(stats.poisson.sf(k - 1, mean), rel=1e-6, abs=1e-13)


def record(opened: list[datetime], windows: int = THREE_DAYS, **more: float) -> TrialRecord:
    seen = MachineTrial(windows=windows, opened=opened, **more)
    return TrialRecord(id="x", began_at=BEGAN, machines={"fan": seen})


@pytest.mark.parametrize(("new", "is_worse"), [(0, False), (1, False), (2, False), (3, True), (9, True)])
def test_more_alerts_than_the_budget_allows_are_worse(new: int, is_worse: bool) -> None:
    """0.43 alerts are allowed in three days; 3 or more come with 1.0 %, 2 or more with 7 %."""
    verdict = trial_verdict(record([at(n + 1) for n in range(new)]), [FAN], [])
    assert verdict.is_worse is is_worse, verdict


def test_as_many_false_alarms_as_the_present_one_are_no_worse() -> None:
    normal = [PastAlert("fan", at(n), at(n + 0.2), is_normal=True) for n in (5, 25, 45)]
    assert not trial_verdict(record([at(n) for n in (5, 25, 46)]), [FAN], normal).is_worse
    assert trial_verdict(record([at(n) for n in range(1, 15)]), [FAN], normal).is_worse


def test_within_the_budget_of_a_noisy_machine_the_pairs_decide() -> None:
    loud = JudgedMachine("fan", 100.0, 10.0)
    assert not trial_verdict(record([at(n) for n in range(5)]), [loud], []).is_worse  # 1 / 32
    assert trial_verdict(record([at(n) for n in range(6)]), [loud], []).is_worse  # 1 / 64


def test_alert_that_people_called_normal_counts_for_each_hour_that_it_stayed_open() -> None:
    hours = [PastAlert("fan", at(5), at(9.5), is_normal=True)]
    assert not trial_verdict(record([at(5 + n) for n in range(5)]), [FAN], hours).is_worse
    assert trial_verdict(record([at(5 + n) for n in range(14)]), [FAN], hours).is_worse


def test_what_the_present_one_tells_too_is_no_false_alarm() -> None:
    faults = [PastAlert("fan", at(1), at(30), is_normal=False), PastAlert("fan", at(40), None, is_normal=False)]
    both = [at(0.9), at(10), at(30.1), at(60)]
    assert trial_verdict(record(both), [FAN], faults).words.startswith(f"{THREE_DAYS} windows: 0 false alarms beside 0")
    assert trial_verdict(record(both), [FAN], []).is_worse


def test_bundle_that_takes_half_a_core_is_worse() -> None:
    assert not trial_verdict(record([], cpu_s=0.4 * 10 * THREE_DAYS), [FAN], []).is_worse
    verdict = trial_verdict(record([], cpu_s=0.6 * 10 * THREE_DAYS), [FAN], [])
    assert verdict.is_worse
    assert "60% of a core" in verdict.words


def test_healthy_bundles_are_rarely_refused_and_bad_ones_nearly_always() -> None:
    """Bundles that keep to the budget are refused with less than 5 %; one of 20 false alarms a week with more than 95 %."""
    dice = np.random.default_rng(1)

    def refused(per_week: float) -> float:
        counts = dice.poisson(per_week * 3 / 7, 2000)
        return float(np.mean([trial_verdict(record([at(n) for n in range(k)]), [FAN], []).is_worse for k in counts]))

    assert refused(1.0) < 0.05
    assert refused(20.0) > 0.95


def test_jump_is_on_half_of_the_machines_and_more_than_the_budget_makes_likely() -> None:
    four = [JudgedMachine(f"m{n}", 1.0, 10.0) for n in range(4)]
    assert jump({"m0": 1}, four, 2.0) is None
    assert jump({"m0": 5}, four, 2.0) is None  # one machine: that is the machine
    assert jump({"m0": 2, "m1": 2}, four, 2.0) == "4 alerts on 2 of 4 machines within 2.0 h of it"
    assert jump({"other": 9}, four, 2.0) is None
    assert jump({"fan": 1}, [FAN], 0.16) == "1 alert on 1 of 1 machine within 0.2 h of it"
    assert jump({"fan": 1}, [FAN], 0.18) is None
    assert jump({"fan": 2}, [JudgedMachine("fan", 50.0, 10.0)], 6.0) is None  # so many are allowed


def test_past_alerts_are_read_from_the_history_with_what_people_said(tmp_path: Path) -> None:
    history = AlertHistory(tmp_path / "history.sqlite", days=90, now_s=BEGAN.timestamp)
    for machine, hour, says in (("fan", 1, "normal"), ("fan", 5, None), ("mill", 9, "open")):
        alarm = Alarm(AlarmRule(open_after=1, of=1, close_after=1))
        event = alarm.update(2.0, 1.0, at(hour))
        assert event is not None
        history.record(machine, event, AlertDetails(), told=True, clip_window_s=None)
        if says != "open":
            ended = alarm.accept(at(hour + 1)) if says else alarm.update(0.1, 1.0, at(hour + 1))
            assert ended is not None
            history.record(machine, ended, AlertDetails(), told=True, clip_window_s=None)
    found = past_alerts(tmp_path / "history.sqlite", BEGAN)
    assert found == [
        PastAlert("fan", at(1), at(2), is_normal=True),
        PastAlert("fan", at(5), at(6), is_normal=False),
        PastAlert("mill", at(9), None, is_normal=False),
    ]
    assert past_alerts(tmp_path / "history.sqlite", at(5.5)) == found[1:]
    assert past_alerts(tmp_path / "nowhere", BEGAN) == []
