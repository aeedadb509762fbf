"""A running daemon forgets a machine, takes one over from a file and returns to the bundle before, and hears the others all the while."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asd_daemon.tell.commands import Answer
from asd_daemon.watch.live_client import running_daemons
from rig.broker import HOST, Broker, Subscriber, mosquitto
from rig.daemon import RunningDaemon, ask
from rig.waiting import wait_until

FAN = {"source": {"simulate": "fan?speed=10"}}


def do(home: Path, machine: str | None, file: Path | None = None, **wish: object) -> Answer:
    """Ask the daemon over its socket."""
    with file.open("rb") if file else io.BytesIO() as opened:
        (answer,) = [
            daemon.command(machine, wish, opened if file else None)
            for daemon in running_daemons(home / "state" / "status")
        ]
    return answer


def scores(daemon: RunningDaemon, machine: str) -> list[Any]:
    told = [json.loads(line) for line in list(daemon.lines)]
    return [one for one in told if one["topic"] == "score" and one["machine"] == machine]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    (tmp_path / "asd.yaml").write_text(json.dumps({"machines": {"fan": FAN}}))
    with RunningDaemon("run", "--no-mqtt", "--config", tmp_path / "asd.yaml", home=tmp_path) as running:
        wait_until(lambda: bool(scores(running, "fan")), "it is judged")
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gearbox that was learned on another box."""
    home = tmp_path_factory.mktemp("other")
    source = "simulate:gearbox?seed=4&speed=100"
    done = ask("enroll", "--machine", "box", "--source", source, "--minutes", "3", home=home)
    assert done.returncode == 0, done.stderr
    assert ask("machines", "export", "box", home / "box.zip", home=home).returncode == 0
    return home / "box.zip"


def test_machine_of_another_box_is_taken_over_and_judged_and_forgotten_again(
    tmp_path: Path, daemon: RunningDaemon, backup: Path
) -> None:
    answer = do(tmp_path, "mill", backup, command="restore")
    assert answer.ok, answer
    assert answer.text.endswith("windows, known, and heard by nobody yet")
    simulated = {"simulate": "gearbox?seed=4&speed=10"}
    assert do(tmp_path, "mill", command="set", key="source", value=simulated).ok
    wait_until(lambda: len(scores(daemon, "mill")) > 2, "it is judged as it was learned there")
    assert scores(daemon, "mill")[-1]["score"] < scores(daemon, "mill")[-1]["threshold"]
    again = do(tmp_path, "mill", backup, command="restore")
    assert again.text.endswith("judged so from its next window on")
    heard = len(scores(daemon, "mill"))
    wait_until(lambda: len(scores(daemon, "mill")) > heard + 1, "it is judged on")
    assert do(tmp_path, "mill", command="forget").text.startswith("mill is forgotten")
    listed = json.loads(ask("machines", "list", "--json", home=tmp_path).stdout)
    assert [machine["machine"] for machine in listed] in (["fan"], [])
    assert "mill" not in (tmp_path / "state" / "chosen.yaml").read_text()
    (status,) = json.loads(ask("status", "--json", home=tmp_path).stdout)
    assert status["machines"]["fan"]["counts"]["dropped"] == 0
    assert status["machines"]["fan"]["counts"]["gaps"] == 0


def test_what_is_no_backup_is_refused_and_what_is_known_stays(
    tmp_path: Path, daemon: RunningDaemon, backup: Path
) -> None:
    assert do(tmp_path, "mill", backup, command="restore").ok
    spoiled = tmp_path / "spoiled.zip"
    for content in (
        b"",
        b"no zip",
        backup.read_bytes()[:-2000],
        backup.read_bytes().replace(b"enrolled/", b"../../../"),
    ):
        spoiled.write_bytes(content)
        answer = do(tmp_path, "mill", spoiled, command="restore")
        assert not answer.ok
        assert "the file" in answer.text
    assert do(tmp_path, "mill", command="restore").text == "restore: no file was handed over"
    assert not do(tmp_path, "../mill", backup, command="restore").ok
    (mill,) = [one for one in json.loads(ask("machines", "list", "--json", home=tmp_path).stdout) if one["learned"]]
    assert (mill["machine"], mill["trouble"]) == ("mill", None)
    assert daemon.process.poll() is None


def test_machine_that_is_configured_or_unknown_is_not_forgotten(tmp_path: Path, daemon: RunningDaemon) -> None:
    assert "asd.yaml and reload first" in do(tmp_path, "fan", command="forget").text
    assert "knows no machine 'saw'" in do(tmp_path, "saw", command="forget").text
    assert do(tmp_path, None, command="forget").text == "forget: say of which machine"
    heard = len(scores(daemon, "fan"))
    wait_until(lambda: len(scores(daemon, "fan")) > heard, "it is judged on")


def test_without_an_earlier_bundle_there_is_no_way_back(tmp_path: Path, daemon: RunningDaemon) -> None:
    assert daemon.process.poll() is None
    answer = do(tmp_path, None, command="rollback")
    assert not answer.ok
    assert "no bundle was installed here" in answer.text


@pytest.mark.broker
@pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")
def test_nothing_is_deleted_or_replaced_by_mqtt(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker") as broker:
        content = {
            "node": "box",
            "machines": {"fan": FAN},
            "mqtt": {"host": HOST, "port": broker.port, "commands": True, "settings": True, "enrolment": True},
        }
        (tmp_path / "asd.yaml").write_text(json.dumps(content))
        with (
            RunningDaemon("run", "--config", tmp_path / "asd.yaml", home=tmp_path) as daemon,
            Subscriber(broker.port) as heard,
        ):
            heard.wait_for(lambda m: m.topic == "asd/box/fan/score")
            for command in ("forget", "restore", "rollback", "log"):
                heard.say("asd/box/fan/command", json.dumps({"command": command, "id": command}).encode())
                said = heard.wait_for(lambda m, c=command: m.topic == "asd/box/fan/answer" and m.payload["id"] == c)  # type: ignore[misc]
                assert said.payload["ok"] is False
                assert said.payload["text"] == f"{command} is refused: it is done at the page, or on the box"
            for command, ok, text in (
                ("mute", True, "fan: no alert is told for 60 minutes"),
                ("unmute", True, "fan: alerts are told"),
                ("acknowledge", False, "fan: no alert is open that could be acknowledged"),
                ("enroll", True, "fan is being learned"),
            ):
                heard.say("asd/box/fan/command", json.dumps({"command": command, "id": command}).encode())
                said = heard.wait_for(lambda m, c=command: m.topic == "asd/box/fan/answer" and m.payload["id"] == c)  # type: ignore[misc]
                assert said.payload["ok"] is ok, said.payload
                assert said.payload["text"].startswith(text)
            assert daemon.stop() == 0
