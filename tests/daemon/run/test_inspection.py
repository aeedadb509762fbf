"""`asd-daemon check` says which threshold holds, or will when the daemon starts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml

from asd_daemon.run.inspection import inspect_plan
from asd_daemon.run.machine_threshold import MachineThreshold
from asd_daemon.run.rules import threshold_rule
from asd_daemon.run.shared_bundle import SharedBundle
from asd_daemon.run.stores import Stores
from asd_daemon.settings.keep import KeepSettings
from asd_daemon.settings.plan import CommandLineOptions, make_plan
from asd_daemon.tell.storage.alert_rows import read_kept_memory
from asd_daemon.tell.storage.machine_memory import MachineMemory
from asd_daemon.tell.storage.outbox import Outbox
from rig.bundles import write_tiny_bundle
from rig.waiting import PATIENT_S

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    write_tiny_bundle(folder)
    return folder


@pytest.fixture
def home(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A box with a bundle and a state folder."""
    monkeypatch.setenv("ASD_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "tiny").symlink_to(bundle)
    return tmp_path


def configured(home: Path, alarm: dict[str, object]) -> Path:
    machines = {"fan": {"source": {"simulate": "fan?speed=inf"}, "alarm": alarm}}
    file = home / "asd.yaml"
    file.write_text(yaml.safe_dump({"bundle": str(home / "tiny"), "machines": machines}))
    return file


def model_finding(home: Path, alarm: dict[str, object]) -> str:
    plan = make_plan(CommandLineOptions(config=configured(home, alarm)))
    found = {finding.what: finding for finding in inspect_plan(plan, 0.5)}
    assert found["fan: model"].well, found["fan: model"]
    return found["fan: model"].detail


@pytest.mark.parametrize(
    ("alarm", "words"),
    [
        ({}, "provisional, by enrolment alone"),
        ({"threshold": 1.8}, "threshold 1.8, fixed by alarm.threshold; enrolled "),
        ({"threshold_learning": False}, "provisional, by enrolment alone; alarm.threshold_learning is off"),
    ],
)
def test_check_says_which_threshold_holds_and_leaves_nothing_behind(
    alarm: dict[str, object], words: str, home: Path
) -> None:
    assert words in model_finding(home, alarm)
    assert not (home / "state").exists()


def test_check_says_what_was_learned(home: Path) -> None:
    plan = make_plan(CommandLineOptions(config=configured(home, {})))
    machine = plan.machines["fan"]
    scorer = SharedBundle(plan.bundle).scorer("fan", machine.alarm, machine.hop_s)
    threshold = MachineThreshold("fan", threshold_rule(machine), MachineMemory().tail)
    threshold.take_up(scorer.threshold, scorer.enrolled)
    assert scorer.enrolled is not None
    room = scorer.threshold - scorer.enrolled.centre
    scores = scorer.enrolled.centre + 0.1 * room * np.random.default_rng(0).normal(size=11 * 24 * 50)
    for number, score in enumerate(scores):
        threshold.hear(float(score), MONDAY + timedelta(seconds=72 * number), alert_open=False)
    stores = Stores(home / "state", KeepSettings(clips="none"), ["fan"])
    stores.records("fan").remember(MachineMemory(tail=threshold.memory))
    stores.close(PATIENT_S)
    detail = model_finding(home, {})
    assert "calibrated, from" in detail
    assert f"; enrolled {scorer.threshold:.4g}" in detail


def test_memory_is_read_without_making_a_file(tmp_path: Path) -> None:
    file = tmp_path / "alerts.sqlite"
    assert read_kept_memory(file, "fan") is None
    assert not file.exists()
    box = Outbox(file, ["fan"])
    box.remember("fan", b"{}")
    assert read_kept_memory(file, "fan") == b"{}"
    assert read_kept_memory(file, "pump") is None
    box.close()
