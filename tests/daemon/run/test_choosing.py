"""A running daemon takes settings that people choose: within a window, without losing one, kept, undone, refused in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asd_daemon.tell.commands import Answer
from asd_daemon.watch.live_client import running_daemons
from rig.broker import HOST, Broker, Subscriber, mosquitto
from rig.daemon import RunningDaemon, ask
from rig.waiting import wait_until

STEADY = {"source": {"simulate": "fan?speed=10&seconds=100"}, "model": "fan"}
FAN: dict[str, Any] = {"source": {"simulate": "fan?speed=10"}}


@contextmanager
def running(home: Path, content: dict[str, Any], *words: str) -> Iterator[RunningDaemon]:
    (home / "asd.yaml").write_text(json.dumps(content))
    with RunningDaemon("run", "--config", home / "asd.yaml", *words, home=home) as daemon:
        wait_until(
            lambda: any(word in line for line in daemon.log for word in ("listening to", "no machine")), "it runs"
        )
        yield daemon


def choose(home: Path, machine: str | None, key: str, *value: object) -> Answer:
    """Ask the daemon over its socket; without a value it is unset."""
    wish = {"command": "set", "value": value[0]} if value else {"command": "unset"}
    (answer,) = [daemon.command(machine, {**wish, "key": key}) for daemon in running_daemons(home / "state" / "status")]
    return answer


def learning(home: Path, machine: str) -> Any:
    """How far the learning of a machine is, as the daemon says on its socket."""
    (told,) = [daemon.machines[machine]["learning"] for daemon in running_daemons(home / "state" / "status")]
    return told


def scores(daemon: RunningDaemon, machine: str) -> list[Any]:
    told = [json.loads(line) for line in list(daemon.lines)]
    return [one for one in told if one["topic"] == "score" and one["machine"] == machine]


def test_limit_holds_from_the_next_window_survives_a_restart_and_is_given_back(tmp_path: Path) -> None:
    with running(tmp_path, {"machines": {"fan": FAN}}, "--no-mqtt") as daemon:
        wait_until(lambda: bool(scores(daemon, "fan")), "it is judged")
        learned = scores(daemon, "fan")[0]["threshold"]
        assert choose(tmp_path, "fan", "alarm.threshold", 7.5).ok
        wait_until(lambda: scores(daemon, "fan")[-1]["threshold"] == 7.5, "the next window is judged by it")
        status = ask("status", home=tmp_path)
        assert status.returncode == 0
        assert "machines.fan.alarm.threshold is 7.5, as chosen in" in status.stdout
        assert daemon.stop() == 0
    with running(tmp_path, {"machines": {"fan": {**FAN, "alarm": {"threshold": 9}}}}, "--no-mqtt") as daemon:
        assert any("is 7.5, as chosen in" in line and "which says 9" in line for line in daemon.log)
        wait_until(lambda: bool(scores(daemon, "fan")), "it is judged")
        assert scores(daemon, "fan")[0]["threshold"] == 7.5
        assert choose(tmp_path, "fan", "alarm.threshold", None).text.startswith(
            "machines.fan.alarm.threshold is unset now"
        )
        wait_until(
            lambda: scores(daemon, "fan")[-1]["threshold"] == pytest.approx(learned), "the learned one holds again"
        )
        assert (
            choose(tmp_path, "fan", "alarm.threshold").text
            == "machines.fan.alarm.threshold is 9.0 again, as configured"
        )
        wait_until(lambda: scores(daemon, "fan")[-1]["threshold"] == 9, "the configured one holds again")


def test_machine_beside_those_that_are_chosen_misses_no_window(tmp_path: Path) -> None:
    with running(tmp_path, {"machines": {"steady": STEADY, "fan": FAN}}, "--no-mqtt") as daemon:
        for step in range(4):
            assert choose(tmp_path, "fan", "alarm.threshold", 5 + step).ok
        assert choose(tmp_path, "mill", "source", "simulate:slider?speed=10").text == (
            "mill is added, heard by simulate:slider?speed=10"
        )
        assert choose(tmp_path, "mill", "title", "Mill 3").ok
        wait_until(lambda: any("listening to steady, fan, mill" in line for line in daemon.log), "the third is heard")
        assert choose(tmp_path, "mill", "source").ok
        wait_until(lambda: len(scores(daemon, "steady")) == 10, "all ten windows are judged")
        assert daemon.stop() == 0
        assert "0 dropped" in daemon.log[-1]


@pytest.mark.parametrize(
    ("machine", "key", "value", "said"),
    [
        (
            "fan",
            "alarm.threshold",
            -1,
            "machines.fan.alarm.threshold: input should be greater than or equal to 0, got -1",
        ),
        ("fan", "alarm.threshold", "high", "machines.fan.alarm.threshold: input should be a valid number"),
        ("fan", "quality.below_db", 5, "machines.fan.quality.below_db: may not be chosen"),
        ("fan", "source", "device:default", "machines.fan.source of"),
        (
            "saw",
            "source",
            "command:touch {home}/ran",
            "machines.saw.source: an added machine is heard by device or simulate",
        ),
        ("saw", "source", "simulate:nothing", "machines.saw.source: machine 'nothing' can't be simulated"),
        ("saw", "alarm.threshold", 2, "machines.saw.alarm.threshold: this daemon does not hear saw; it hears fan"),
        ("no name", "source", "simulate:fan", "machines.no name: a name is 1 to 64 letters"),
        (None, "mqtt.host", "x", "mqtt.host: may not be chosen"),
    ],
)
def test_refusal_names_key_and_value_and_changes_nothing(
    refusing: Path, machine: str | None, key: str, value: Any, said: str
) -> None:
    value = value.format(home=refusing) if isinstance(value, str) else value
    answer = choose(refusing, machine, key, value)
    assert not answer.ok
    assert said in answer.text
    assert not (refusing / "state" / "chosen.yaml").exists()
    assert not (refusing / "ran").exists()


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("refusing")
    with running(home, {"machines": {"fan": FAN}}, "--no-mqtt"):
        yield home


def test_spoiled_file_stops_nobody_and_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "chosen.yaml").write_text("machines: [")
    with running(tmp_path, {"machines": {"fan": FAN}}, "--no-mqtt") as daemon:
        wait_until(lambda: bool(scores(daemon, "fan")), "it is judged")
        assert "chosen.yaml:1: is no YAML and is ignored" in ask("status", home=tmp_path).stdout
        assert choose(tmp_path, "fan", "title", "Fan").ok
        wait_until(lambda: ask("status", home=tmp_path).returncode == 0, "nothing is wrong any more")
        assert [file.read_text() for file in (tmp_path / "state").glob("chosen-unusable-*")] == ["machines: ["]


def test_choice_that_cannot_be_kept_does_not_hold(tmp_path: Path) -> None:
    with running(tmp_path, {"machines": {"fan": FAN}}, "--no-mqtt") as daemon:
        (tmp_path / "state" / ".chosen.yaml.new").mkdir()
        answer = choose(tmp_path, "fan", "alarm.threshold", 7.5)
        assert not answer.ok
        assert "so nothing is changed" in answer.text
        heard = len(scores(daemon, "fan"))
        wait_until(lambda: len(scores(daemon, "fan")) > heard + 1, "windows go on")
        assert scores(daemon, "fan")[-1]["threshold"] != 7.5


def test_box_without_a_machine_waits_takes_one_and_waits_again(tmp_path: Path) -> None:
    with running(tmp_path, {"machines": {}}, "--no-mqtt") as daemon:
        status = ask("status", home=tmp_path)
        assert (status.returncode, "no machine yet" in status.stdout) == (0, True)
        assert choose(tmp_path, "fan", "source", "simulate:fan?speed=10").ok
        wait_until(lambda: bool(scores(daemon, "fan")), "it is judged")
        assert choose(tmp_path, "fan", "source").text.startswith("fan is heard no more")
        assert choose(tmp_path, "fan", "source", "simulate:fan?speed=10").ok
        assert daemon.stop() == 0


def test_command_line_lists_sets_and_unsets_with_and_without_a_daemon(tmp_path: Path) -> None:
    content = {"machines": {"fan": FAN}}
    config = ("--config", tmp_path / "asd.yaml")
    with running(tmp_path, content, "--no-mqtt"):
        assert (
            ask("settings", "set", "alarm.threshold", "1.4", "--machine", "fan", *config, home=tmp_path).returncode == 0
        )
    listed = ask("settings", "list", *config, home=tmp_path).stdout
    assert "machines.fan.alarm.threshold: 1.4  (chosen; the configuration: unset)" in listed
    refused = ask("settings", "set", "alarm.threshold", "-1", "--machine", "fan", *config, home=tmp_path)
    assert (refused.returncode, "got -1" in refused.stderr) == (2, True)
    noted = ask("settings", "unset", "alarm.threshold", "--machine", "fan", *config, home=tmp_path)
    assert noted.stdout.strip() == "machines.fan.alarm.threshold is unset again, as configured; no daemon hears it now"
    assert "chosen" not in ask("settings", "list", *config, home=tmp_path).stdout
    for machine, key, value in (("saw", "source", "simulate:fan?speed=10"), ("saw", "title", "Saw 3")):
        done = ask("settings", "set", key, value, "--machine", machine, *config, home=tmp_path)
        assert done.returncode == 0, done.stderr
    with running(tmp_path, content, "--no-mqtt") as daemon:
        wait_until(lambda: any("listening to fan, saw" in line for line in daemon.log), "it hears the added one")
        assert daemon.stop() == 0
    assert ask("machines", "rename", "saw", "axe", home=tmp_path).stdout == "saw is axe now\n"
    assert 'machines.axe.title: "Saw 3"' in ask("settings", "list", *config, home=tmp_path).stdout
    assert ask("machines", "remove", "axe", "--yes", home=tmp_path).stdout == "axe is forgotten\n"
    assert "axe" not in ask("settings", "list", *config, home=tmp_path).stdout


@pytest.mark.broker
@pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")
@pytest.mark.parametrize("allowed", [False, True])
def test_by_mqtt_only_where_the_configuration_allows_it(allowed: bool, tmp_path: Path) -> None:
    with Broker(tmp_path / "broker") as broker, Subscriber(broker.port) as heard:
        mqtt = {"host": HOST, "port": broker.port, "commands": True, "settings": allowed}
        with running(tmp_path, {"node": "box", "mqtt": mqtt, "machines": {"fan": FAN}}):
            heard.wait_for(lambda m: m.topic == "asd/box/fan/score")
            heard.say("asd/box/fan/command", b'{"command": "set", "key": "alarm.threshold", "value": 7.5, "id": "8"}')
            answer = heard.wait_for(lambda m: m.topic == "asd/box/fan/answer").payload
            assert (answer["ok"], answer["id"], answer["command"]) == (allowed, "8", "set")
            if allowed:
                heard.wait_for(lambda m: m.topic == "asd/box/fan/score" and m.payload["threshold"] == 7.5)
            else:
                assert "mqtt.settings" in answer["text"]


def test_second_machine_is_added_and_learned_while_the_first_misses_no_window(tmp_path: Path) -> None:
    with running(tmp_path, {"machines": {"steady": STEADY}}, "--no-mqtt") as daemon:
        assert choose(tmp_path, "mill", "source", "simulate:slider?speed=30").ok
        wait_until(lambda: any("listening to steady, mill" in line for line in daemon.log), "both are heard")
        (answer,) = [
            one.command("mill", {"command": "enroll", "minutes": 3})
            for one in running_daemons(tmp_path / "state" / "status")
        ]
        assert answer == Answer(True, "mill is being learned")
        wait_until(lambda: bool(scores(daemon, "mill")), "it is learned, and judged")
        wait_until(lambda: len(scores(daemon, "steady")) == 10, "all ten windows of the first are judged")
        assert daemon.stop() == 0
        assert "0 dropped" in daemon.log[-1]
        assert any("mill: learned from 18 windows" in line for line in daemon.log)


def test_learning_goes_on_after_a_restart_of_the_daemon(tmp_path: Path) -> None:
    with running(tmp_path, {"machines": {}}, "--no-mqtt") as daemon:
        assert choose(tmp_path, "mill", "source", "simulate:slider?speed=10").ok
        wait_until(lambda: any("listening to mill" in line for line in daemon.log), "it is heard")
        for one in running_daemons(tmp_path / "state" / "status"):
            assert one.command("mill", {"command": "enroll", "minutes": 3}).ok
        collected = tmp_path / "state" / "enrolled" / "mill" / "collecting"
        wait_until(lambda: len(list(collected.glob("window-*.npz"))) >= 3, "some windows are heard")
        assert daemon.stop() == 0
    with running(tmp_path, {"machines": {}}, "--no-mqtt") as daemon:
        wait_until(lambda: any("mill: goes on learning, 18 windows" in line for line in daemon.log), "it goes on")
        wait_until(lambda: learning(tmp_path, "mill")["windows"] > 3, "it goes on where it was")
        assert learning(tmp_path, "mill")["is_learning"]
        assert daemon.stop() == 0
