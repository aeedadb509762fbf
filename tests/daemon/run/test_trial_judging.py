"""A new bundle beside the present one: a real process judges the same windows, and says what it would have told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asd_daemon.judge.alarm.alarm import Alarm
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.judge.scoring.scorer import Scorer
from asd_daemon.rollout.returning import JudgedMachine
from asd_daemon.rollout.rollout_state import TrialRecord
from asd_daemon.rollout.trial import Trial
from asd_daemon.run.judge_tap import JudgeTap
from asd_daemon.run.trial_judging import MODULE
from asd_daemon.settings.keys import AlarmSettings
from rig.bundles import failing_noise, healthy_noise, write_tiny_bundle
from rig.plant import Plant
from rig.waiting import wait_until

BEGAN = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
FAN = JudgedMachine("fan", 1.0, 10.0)


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plant:
    monkeypatch.setenv("ASD_STATE_DIR", str(tmp_path / "state"))
    return Plant.made(tmp_path / "plant", write_tiny_bundle(tmp_path / "tiny", {"fan": 0.0}).path)


def job(folder: Path, key: Path, machines: Any) -> dict[str, Any]:
    asked = {"model": "fan", "alarm": AlarmSettings().model_dump(mode="json"), "hop_s": 10.0, "scoring": "auto"}
    return {"folder": str(folder), "key": str(key), "machines": {machine.name: asked for machine in machines}}


def collected(trial: Trial, record: TrialRecord) -> int:
    """How many windows both have judged by now."""
    trial.collect(record)
    return record.windows


def test_same_windows_get_the_scores_of_the_new_bundle_and_open_its_alerts(plant: Plant) -> None:
    from asd_daemon.judge.bundle.bundle import load_bundle

    scorer = Scorer(load_bundle(plant.first), "fan")
    trial, record = Trial(MODULE, job, lambda _: AlarmRule(2, 3)), TrialRecord(id="x", began_at=datetime.now(UTC))
    tap, dice = JudgeTap(), np.random.default_rng(5)
    tap.hear = trial.hear
    judge = tap.beside("fan", lambda: scorer)()
    trial.start(plant.version("2"), plant.public, [FAN])
    for number in range(12):
        judge.score(failing_noise(dice) if number in (5, 6, 7) else healthy_noise(dice))
        wait_until(lambda wanted=number + 1: collected(trial, record) >= wanted, f"window {number} is judged")  # type: ignore[misc]
    trial.stop()
    assert (record.failures, record.dropped) == (0, 0), trial.trouble
    seen = record.machines["fan"]
    assert (seen.windows, seen.old_above, seen.new_above, len(seen.opened)) == (12, 3, 3, 1)
    assert 0 < seen.cpu_s < 60
    assert record.peak_mb > 10
    judge.score(healthy_noise(dice))  # nobody listens any more
    assert not trial.is_running


def test_alert_that_stays_open_counts_again_each_hour_and_a_new_one_at_once() -> None:
    trial, record = Trial(MODULE, job, lambda _: AlarmRule(1, 1, close_after=1)), TrialRecord(id="x", began_at=BEGAN)
    trial._alarms, trial._quiet = {"fan": Alarm(AlarmRule(1, 1, close_after=1))}, {"fan"}
    for minute in range(0, 180, 10):
        score = 0.0 if minute in (100, 120) else 2.0
        at = (BEGAN + timedelta(minutes=minute)).isoformat()
        said = {"machine": "fan", "at": at, "score": score, "threshold": 1.0, "old_above": False}
        trial._said.put({**said, "cpu_s": 0.0, "peak_mb": 1.0})
    trial.collect(record)
    assert [(at - BEGAN).seconds // 60 for at in record.machines["fan"].opened] == [0, 60, 110, 130]


def test_slow_process_costs_windows_of_the_trial_and_no_time_of_the_judge(plant: Plant) -> None:
    trial, record = Trial(MODULE, job, lambda _: AlarmRule()), TrialRecord(id="x", began_at=datetime.now(UTC))
    scorer_says: Any = type("Says", (), {"is_off": False, "anomalous": False})()
    trial.start(plant.first, plant.public, [FAN])
    for _ in range(30):  # the process still loads its libraries
        trial.hear("fan", np.zeros(160_000, np.float32), scorer_says)
    trial.hear("other", np.zeros(160_000, np.float32), scorer_says)
    trial.collect(record)
    assert 10 < record.dropped <= 30
    trial.stop()


def test_bundle_that_can_not_judge_is_a_failure_in_words(plant: Plant) -> None:
    bundle = plant.version("2")
    (bundle / "embedder.onnx").write_bytes(b"x")
    trial, record = Trial(MODULE, job, lambda _: AlarmRule()), TrialRecord(id="x", began_at=datetime.now(UTC))
    trial.start(bundle, plant.public, [FAN])
    wait_until(lambda: collected(trial, record) >= 0 and record.failures > 0, "it fails")
    assert "embedder.onnx" in trial.trouble
    assert not trial.is_running


def test_judge_that_fails_is_noted_and_what_is_no_fault_of_the_bundle_is_not() -> None:
    from asd_daemon.errors import UnknownMachineError

    class Fails:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def score(self, waveform: Any) -> Any:
            raise self.error

    tap, window = JudgeTap(), np.zeros(160_000, np.float32)
    with pytest.raises(ZeroDivisionError):
        tap.beside("fan", lambda: Fails(ZeroDivisionError("no")))().score(window)
    with pytest.raises(UnknownMachineError):
        tap.beside("mill", lambda: Fails(UnknownMachineError("is learned")))().score(window)
    assert tap.failures == {"fan": "fan: ZeroDivisionError: no"}


def test_process_that_the_box_has_killed_is_no_failure_of_the_bundle(plant: Plant) -> None:
    trial, record = Trial(MODULE, job, lambda _: AlarmRule(2, 3)), TrialRecord(id="x", began_at=datetime.now(UTC))
    trial.start(plant.version("2"), plant.public, [FAN])
    process = trial._process
    assert process is not None
    process.kill()

    def counted() -> int:
        trial.collect(record)
        return record.kills + record.failures

    wait_until(lambda: counted() > 0, "its end is told")
    assert (record.kills, record.failures, trial.is_running) == (1, 0, False)
    assert "signal SIGKILL" in trial.trouble
