"""All boxes of a broker at one look: real daemons, one of them killed, one stopped, and messages that are none of ours."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from asd_daemon.tell.mqtt.inventory import inventory_of
from rig.broker import HOST, Broker, Subscriber, free_port, mosquitto
from rig.daemon import RunningDaemon, daemon_environment
from rig.waiting import wait_until

SCHEMA = Path(__file__).parents[4] / "docs" / "schemas" / "about.json"
PROGRAM = "from asd_daemon.cli.fleet import main; main()"


def fleet(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, "status", *words]
    return subprocess.run(command, env=daemon_environment(home), capture_output=True, text=True, check=False)


def daemon(home: Path, node: str, port: int, machine: str = "fan") -> RunningDaemon:
    home.mkdir()
    content = {
        "node": node,
        "machines": {machine: {"source": {"simulate": f"{machine}?speed=5"}, "title": f"The {machine}"}},
        "mqtt": {"host": HOST, "port": port},
    }
    (home / "c.json").write_text(json.dumps(content))
    return RunningDaemon("run", "--config", home / "c.json", home=home)


@pytest.mark.broker
@pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")
def test_every_box_is_listed_with_what_it_runs_and_who_is_gone_is_named(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker") as broker, Subscriber(broker.port) as heard:
        at = f"{HOST}:{broker.port}"
        with (
            daemon(tmp_path / "a", "hall-a", broker.port),
            daemon(tmp_path / "b", "hall-b", broker.port, "gearbox") as killed,
            daemon(tmp_path / "c", "hall-c", broker.port, "slider") as stopped,
        ):
            for topic in ("hall-a/fan", "hall-b/gearbox", "hall-c/slider"):
                about = heard.wait_for(lambda m, t=topic: m.topic == f"asd/{t}/about").payload  # type: ignore[misc]
                Draft202012Validator(json.loads(SCHEMA.read_text())).validate(about)
                assert about["disk_free_bytes"] > 0
                heard.wait_for(lambda m, t=topic: m.topic == f"asd/{t}/score")  # type: ignore[misc]
            done = fleet(tmp_path, "--broker", at)
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stderr == "3 boxes, 3 machines, 3 heard\n"
            assert stopped.stop() == 0
            killed.process.send_signal(signal.SIGKILL)
            heard.wait_for(lambda m: m.topic == "asd/hall-b/availability" and m.payload == "offline")
            heard.say("asd/hall-d/fan/state", b"{", retain=True)
            heard.say("asd/hall-d/fan/about", b'{"schema": 7}', retain=True)
            wait_until(lambda: "2 messages on these topics" in fleet(tmp_path, "--broker", at).stderr, "they are kept")
            done = fleet(tmp_path, "--broker", at, "--json")
            assert done.returncode == 1
            rows = {row["node"]: row for row in json.loads(done.stdout)}
            assert rows["hall-a"]["heard"] is True
            assert (rows["hall-a"]["title"], rows["hall-a"]["state"]) == ("The fan", "normal")
            assert rows["hall-a"]["bundle"].startswith("asd-edge-default ")
            assert (rows["hall-b"]["heard"], rows["hall-b"]["trouble"]) == (False, "offline")
            assert (rows["hall-c"]["heard"], rows["hall-c"]["trouble"]) == (False, "stopped")
            table = list(csv.DictReader(io.StringIO(fleet(tmp_path, "--broker", at, "--csv").stdout)))
            assert [row["trouble"] for row in table] == ["", "offline", "stopped"]
            lines = fleet(tmp_path, "--broker", at).stdout.splitlines()
            assert lines[0].split()[:6] == ["BOX", "MACHINE", "STATE", "SINCE", "DRIFT", "VERSION"]
            assert lines[0].endswith("TROUBLE")
            assert "NOT HEARD" in lines[2]
            assert lines[2].endswith("offline")


def test_without_a_broker_it_is_said_which_and_why(tmp_path: Path) -> None:
    done = fleet(tmp_path, "--broker", f"{HOST}:{free_port()}")
    assert (done.returncode, done.stdout) == (3, "")
    assert "can't be reached" in done.stderr
    assert "which broker?" in fleet(tmp_path).stderr
    assert "not both" in fleet(tmp_path, "--broker", HOST, "--json", "--csv").stderr


def test_two_hundred_boxes_are_put_together_whatever_the_order() -> None:
    messages: dict[str, bytes] = {}
    for number in range(200):
        base = f"plant/asd/box-{number:03}"
        messages[f"{base}/fan/about"] = json.dumps({"schema": 1, "version": "1"}).encode()
        messages[f"{base}/fan/state"] = json.dumps({"schema": 1, "state": "normal", "listening": True}).encode()
        messages[f"{base}/fan/availability"] = b"online"
        messages[f"{base}/availability"] = b"offline" if number % 50 == 0 else b"online"
    found = inventory_of(dict(sorted(messages.items(), key=lambda item: hash(item[0]))), "plant/asd")
    assert len(found.machines) == 200
    assert [one.node for one in found.machines if one.trouble] == ["box-000", "box-050", "box-100", "box-150"]
    assert found.not_understood == 0


def test_a_machine_that_says_it_is_not_heard_is_in_trouble() -> None:
    state = {"schema": 1, "state": "mic_lost", "listening": False, "reason": "unplugged", "troubles": []}
    (one,) = inventory_of(
        {"asd/b/fan/state": json.dumps(state).encode(), "asd/b/fan/availability": b"online"}, "asd"
    ).machines
    assert (one.is_heard, one.trouble) == (False, "not heard: mic_lost: unplugged")
