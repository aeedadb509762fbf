"""`scoring: paper` on a running daemon: said where it is asked for, taken up and given back without losing a window."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asd_daemon.hear.source import Block, ScriptedSource
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.learn.enrolment import EnrolmentRequest, enrol
from asd_daemon.learn.enrolment_record import read_enrolment
from rig.bundles import healthy_noise, write_tiny_bundle, write_view_bundle
from rig.daemon import RunningDaemon, ask
from rig.waiting import wait_until


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """With an embedder; `pump` was learned here by views, and its sound is kept."""
    bundle = write_tiny_bundle(tmp_path / "bundle")
    rng = np.random.default_rng(5)
    script = [Block(healthy_noise(rng, 2.0)) for _ in range(16)]
    request = EnrolmentRequest("pump", "script", None, keeps_sound=True)
    enrol(bundle, tmp_path / "state" / "enrolled", request, ScriptedSource(script), lambda _: None)
    return bundle


def test_it_is_taken_up_and_given_back_while_the_machine_is_heard(bundle: Bundle, tmp_path: Path) -> None:
    def configure(scoring: str) -> Path:
        file = tmp_path / "asd.yaml"
        machines = {"pump": {"source": {"simulate": "fan?speed=10"}, "scoring": scoring}}
        file.write_text(json.dumps({"machines": machines, "bundle": str(bundle.path)}))
        return file

    def scores(daemon: RunningDaemon, since: int) -> list[dict[str, Any]]:
        told = [json.loads(line) for line in list(daemon.lines)[since:]]
        return [one for one in told if one["topic"] == "score"]

    with RunningDaemon("run", "--config", configure("auto"), "--no-mqtt", home=tmp_path) as daemon:
        wait_until(
            lambda: any(one["topic"] == "alert" for one in map(json.loads, list(daemon.lines))), "an alert is open"
        )
        for scoring in ("paper", "auto"):
            said = len(daemon.lines)
            configure(scoring)
            daemon.process.send_signal(signal.SIGHUP)
            by_paper = scoring == "paper"
            wait_until(
                lambda since=said, by_paper=by_paper: any(  # type: ignore[misc]
                    (one["threshold"] < 0.5) == by_paper for one in scores(daemon, since)
                ),
                f"it is judged by {scoring}",
            )
        assert daemon.stop() == 0
    assert any("its bank is made of 16 kept windows" in line for line in daemon.log)
    told = scores(daemon, 0)
    assert told[0]["threshold"] == told[-1]["threshold"], "the views are what they were"
    summary = next(line for line in daemon.log if "stopped:" in line)
    assert " 0 dropped" in summary
    listed = ask("machines", "list", "--json", home=tmp_path, more={"ASD_CONFIG": str(configure("paper"))})
    (pump,) = [one for one in json.loads(listed.stdout) if one["machine"] == "pump"]
    assert (pump["scoring"], pump["embeddings"]) == ("paper", 16)


def test_commands_make_what_is_needed_and_refuse_what_can_t_be(bundle: Bundle, tmp_path: Path) -> None:
    views = write_view_bundle(tmp_path / "views", {"fan": 0.0})
    refused = ask("machines", "relearn", "--bundle", views.path, "--scoring", "paper", home=tmp_path)
    assert refused.returncode == 2
    assert "has no embedder" in refused.stderr
    done = ask("machines", "relearn", "--bundle", bundle.path, "--scoring", "paper", home=tmp_path)
    assert (done.returncode, done.stdout) == (0, "pump: learned anew from 16 kept windows\n"), done.stderr
    record = read_enrolment(tmp_path / "state" / "enrolled", "pump")
    assert record is not None
    assert record.nearest is not None
    words = ["check", "--machine", "pump", "--source", "simulate:fan?speed=max", "--no-mqtt", "--scoring", "paper"]
    assert "judged by the paper's back end" in ask(*words, "--bundle", bundle.path, home=tmp_path).stdout
    found = ask(*words, "--bundle", views.path, home=tmp_path)
    assert found.returncode == 1
    assert "machines.pump.scoring: paper: bundle" in found.stdout
    file = tmp_path / "asd.yaml"
    file.write_text(json.dumps({"scoring": "paper", "machines": {"pump": {}}}))
    installed = ask("bundle", "install", views.path, home=tmp_path, more={"ASD_CONFIG": str(file)})
    assert installed.returncode == 3
    assert "pump: scoring: paper is configured; nothing was changed" in installed.stderr
