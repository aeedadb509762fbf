"""From one bundle to the next and back, machines of every kind in one process: none is deaf for another's sake, and none without a word."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

from asd_daemon.hear.source import Block, ScriptedSource
from asd_daemon.judge.bundle.bundle import Bundle, default_bundle, file_entry, load_bundle
from asd_daemon.learn import enrolment
from asd_daemon.learn.enrolment import EnrolmentRequest, enrol
from asd_daemon.learn.enrolment_record import read_enrolment
from rig.bundles import healthy_noise, read_manifest, write_manifest
from rig.daemon import RunningDaemon, ask

PATIENCE_S = 90.0


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle of this package with an embedder of other bytes, as a later version has it."""
    folder = tmp_path_factory.mktemp("upgrade") / "later"
    shutil.copytree(default_bundle(), folder)
    model = onnx.load_model(str(folder / "embedder.onnx"))
    model.producer_name = "a later exporter"
    onnx.save_model(model, str(folder / "embedder.onnx"))
    manifest: dict[str, Any] = read_manifest(folder)
    manifest["version"] = "9.9.9"
    manifest["files"]["embedder.onnx"] = file_entry(folder / "embedder.onnx").model_dump(mode="json")
    write_manifest(folder, manifest)
    return load_bundle(folder)


def enrolled(root: Path, machine: str, views: tuple[str, ...], *, keeps_sound: bool) -> None:
    rng = np.random.default_rng(5)
    script = [Block(healthy_noise(rng, 2.0)) for _ in range(16)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enrolment, "VIEW_NAMES", views)
        order = EnrolmentRequest(machine, "script", None, keeps_sound=keeps_sound)
        enrol(load_bundle(default_bundle()), root, order, ScriptedSource(script), lambda _: None)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ear` and `lost` are judged by the embedder; the sound of `ear` alone was kept."""
    home = tmp_path_factory.mktemp("home")
    root = home / "state" / "enrolled"
    enrolled(root, "ear", (), keeps_sound=True)
    enrolled(root, "lost", (), keeps_sound=False)
    return home


@pytest.fixture
def home(learned: Path, tmp_path: Path) -> Path:
    shutil.copytree(learned, tmp_path / "home")
    return tmp_path / "home"


def configured(home: Path, *machines: str) -> Path:
    """Each machine hears a simulated fan, ten times as fast as the clock."""
    file = home / "asd.yaml"
    known = {name: {"source": {"simulate": "fan?speed=10"}} for name in machines}
    file.write_text(yaml.safe_dump({"node": "box", "machines": known, "keep": {"scores_every_s": 1}}))
    return file


def wait_for(daemon: RunningDaemon, met: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """What was told until something is."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        told = [json.loads(line) for line in daemon.lines]
        if met(told):
            return told
        assert daemon.process.poll() is None, daemon.log
        time.sleep(0.1)
    raise AssertionError(daemon.lines[-5:] + daemon.log)


def scored(told: list[dict[str, Any]], *machines: str) -> bool:
    return all(any(t["topic"] == "score" and t["machine"] == name for t in told) for name in machines)


def states(told: list[dict[str, Any]], machine: str) -> list[tuple[str, str | None]]:
    return [(t["state"], t["reason"]) for t in told if t["topic"] == "state" and t["machine"] == machine]


def unusable(told: list[dict[str, Any]], machine: str) -> list[str]:
    """Why it could not be judged."""
    return [str(reason) for state, reason in states(told, machine) if state == "unusable"]


def test_another_embedder_leaves_no_machine_deaf_and_none_stops_another(home: Path, other: Bundle) -> None:
    for bundle in (other.path, default_bundle()):
        file = configured(home, "ear", "lost", "fan")
        with RunningDaemon("run", "--config", file, "--bundle", bundle, "--no-mqtt", home=home) as daemon:
            told = wait_for(
                daemon,
                lambda told: scored(told, "ear", "fan") and (bool(unusable(told, "lost")) or scored(told, "lost")),
            )
            assert daemon.stop() == 0
        reasons = [reason for state, reason in states(told, "ear") if state == "learning"]
        assert reasons
        assert all(reason is not None and reason.startswith("is learned anew from what was kept") for reason in reasons)
        if bundle == other.path:
            why = unusable(told, "lost")[0]
            assert "no sound was kept; learn it anew with `asd-daemon enroll --machine lost --relearn`" in why
        else:
            assert not unusable(told, "lost")
        record = read_enrolment(home / "state" / "enrolled", "ear")
        assert record is not None
        assert record.bundle.endswith(load_bundle(bundle).version)
        assert record.sounds == 16


def test_only_where_no_machine_can_be_judged_the_daemon_ends(home: Path, other: Bundle) -> None:
    file = configured(home, "lost")
    done = ask("run", "--config", file, "--bundle", other.path, "--no-mqtt", home=home)
    assert done.returncode == 3
    assert "no sound was kept" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    (home / "state" / "enrolled" / "ear" / "enrolled.json").write_text("{")
    file = configured(home, "ear", "fan")
    with RunningDaemon("run", "--config", file, "--no-mqtt", home=home) as daemon:
        told = wait_for(daemon, lambda told: scored(told, "fan") and bool(unusable(told, "ear")))
        assert daemon.stop() == 0
    assert "enrolled.json" in unusable(told, "ear")[0]


def test_install_says_before_what_it_means_does_it_and_goes_back(home: Path, other: Bundle) -> None:
    shutil.copytree(other.path, home / "later")
    refused = ask("bundle", "install", home / "later", home=home)
    assert refused.returncode == 3
    assert "ear: it is learned anew from what was kept" in refused.stderr
    assert "lost: it must be heard again (enroll --relearn)" in refused.stderr
    assert "nothing was changed; --force does it all the same" in refused.stderr
    assert not (home / "state" / "bundles" / "current").exists()
    shutil.rmtree(home / "state" / "enrolled" / "lost")
    done = ask("bundle", "install", home / "later", home=home)
    assert done.returncode == 0, done.stderr
    assert "ear: learned anew from 16 kept windows" in done.stderr
    back = ask("bundle", "rollback", home=home)
    assert back.returncode == 0, back.stderr
    assert "ear: learned anew from 16 kept windows" in back.stderr
    assert f"{load_bundle(default_bundle()).version} is current now" in back.stdout
    anew = ask("machines", "relearn", "--bundle", other.path, home=home)
    assert "ear: learned anew from 16 kept windows" in anew.stdout, anew.stderr
    assert ask("machines", "relearn", home=home).returncode == 0
    assert ask("check", "--machine", "ear", "--source", "simulate:fan?speed=max", home=home).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's file")
def test_enrolment_by_root_belongs_to_the_user_of_the_state_folder(home: Path) -> None:
    state = home / "state"
    for path in (state, *state.rglob("*")):
        os.chown(path, 65534, 65534)
    enrolled(state / "enrolled", "press", (), keeps_sound=True)
    assert {path.stat().st_uid for path in (state / "enrolled").rglob("*")} == {65534}
