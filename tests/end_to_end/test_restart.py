"""`asd-daemon run` as a user types it: killed while an alert is open, started again, muted by a command, and what it has kept."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asd_daemon.judge.features.views import VIEW_NAMES
from rig.broker import HOST, Broker, Received, Subscriber, mosquitto
from rig.daemon import RunningDaemon, ask
from rig.disk import fill, make_read_only, small_disk
from rig.ears import Ear, simulated_fan
from rig.player import write_player

pytestmark = [pytest.mark.broker, pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def fan() -> Ear:
    return simulated_fan()


def configure(folder: Path, ear: Ear, broker: Broker, sound: Path, keep: str = "{}") -> Path:
    """A live source of a machine: a program that says the same sound over and over, some twenty times as fast as it was."""
    player = write_player(folder)
    file = folder / "asd.yaml"
    file.write_text(
        f"""
node: box
bundle: {ear.bundle}
machines:
  fan:
    source: {{command: "python3 {player} {sound}", speed: 0}}
    alarm: {{close_after: 2, cool_down_s: 0}}
mqtt: {{host: {HOST}, port: {broker.port}, commands: true}}
keep: {keep}
"""
    )
    return file


def raw(file: Path, sound: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Path:
    """s16le, as `command` wants it; whole windows. A player that is at it takes them up when it begins anew."""
    whole = sound[: len(sound) // 160_000 * 160_000]
    fresh = file.with_suffix(".new")
    fresh.write_bytes((np.clip(whole, -1, 1) * 32767).astype("<i2").tobytes())
    fresh.replace(file)
    return file


def alert(kind: str) -> Callable[[Received], bool]:
    return lambda m: m.topic == "asd/box/fan/alert" and m.payload["kind"] == kind


def test_alert_that_is_open_when_the_daemon_is_killed_is_closed_under_its_name_by_the_next(
    fan: Ear, broker: Broker, tmp_path: Path
) -> None:
    sound = raw(tmp_path / "sound", fan.failing)
    configuration = configure(tmp_path, fan, broker, sound)
    with Subscriber(broker.port) as heard:
        with RunningDaemon("run", "--config", configuration, home=tmp_path) as daemon:
            opened = heard.wait_for(alert("open")).payload
            daemon.process.kill()
        heard.wait_for(lambda m: m.topic == "asd/box/availability" and m.payload == "offline")
        before = len(heard.messages)

        def is_of_the_next(message: Received) -> bool:
            return any(message is later for later in heard.messages[before:])

        with RunningDaemon("run", "--config", configuration, home=tmp_path) as daemon:
            # As one that is still open, or, where the kill came before the broker's confirmation was seen, as one that still waits
            again = heard.wait_for(lambda m: m.topic == "asd/box/fan/alert" and is_of_the_next(m)).payload
            raw(sound, fan.healthy)
            closed = heard.wait_for(alert("close")).payload
            assert daemon.stop() == 0, daemon.log
    assert again["event_id"] == opened["event_id"], "the open alert is said again by the next run"
    assert closed["event_id"] == opened["event_id"]
    names = {m["event_id"] for m in heard.of("fan/alert")}
    assert names == {opened["event_id"]}, "one alert, however often it is said"


def test_muted_machine_tells_no_alert_until_it_is_unmuted(fan: Ear, broker: Broker, tmp_path: Path) -> None:
    sound = raw(tmp_path / "sound", fan.healthy)
    configuration = configure(tmp_path, fan, broker, sound)
    with Subscriber(broker.port) as heard, RunningDaemon("run", "--config", configuration, home=tmp_path) as daemon:
        heard.wait_for(lambda m: m.topic == "asd/box/availability" and m.payload == "online")
        heard.say("asd/box/fan/command", json.dumps({"command": "mute", "minutes": 60}).encode())
        heard.wait_for(lambda m: m.topic.endswith("fan/state") and m.payload["muted_until"] is not None)
        raw(sound, fan.failing)
        heard.wait_for(lambda m: m.topic.endswith("fan/state") and m.payload["event_id"] is not None)
        assert heard.of("fan/alert") == []
        heard.say("asd/box/fan/command", b'{"command": "unmute"}')
        heard.wait_for(alert("open"))
        assert daemon.stop() == 0, daemon.log


def test_scores_and_clip_are_kept_and_scores_are_replayed(fan: Ear, broker: Broker, tmp_path: Path) -> None:
    sound = raw(tmp_path / "sound", np.concatenate([fan.healthy, fan.failing]))
    configuration = configure(tmp_path, fan, broker, sound, keep="{clip_before_s: 20, clip_after_s: 5}")
    with Subscriber(broker.port) as heard, RunningDaemon("run", "--config", configuration, home=tmp_path) as daemon:
        opened = heard.wait_for(alert("open")).payload
        heard.wait_for(alert("close"))
        assert daemon.stop() == 0, daemon.log
    clip = tmp_path / "state" / opened["clip"]
    assert soundfile.info(clip).duration == pytest.approx(25, abs=0.01)
    done = ask("replay", "--machine", "fan", "--config", configuration, "--json", home=tmp_path)
    *events, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["kind"] for e in events if e["kind"] != "update"][:2] == ["open", "close"]
    assert summary["windows"] > 6
    never = ask("replay", "--machine", "fan", "--threshold", "9", "--since", "1h", home=tmp_path)
    assert "0 alerts" in never.stdout
    nobody = ask("replay", "--machine", "pump", home=tmp_path)
    assert (nobody.returncode, nobody.stderr.count("\n")) == (2, 1)
    assert "knows no machine 'pump'" in nobody.stderr


def test_daemon_that_stores_no_sound_leaves_none_anywhere(fan: Ear, broker: Broker, tmp_path: Path) -> None:
    sound = raw(tmp_path / "sound", np.concatenate([fan.healthy, fan.failing]))
    configuration = configure(tmp_path, fan, broker, sound, keep="{store_sound: false}")
    with Subscriber(broker.port) as heard, RunningDaemon("run", "--config", configuration, home=tmp_path) as daemon:
        opened = heard.wait_for(alert("open")).payload
        assert daemon.stop() == 0, daemon.log
    assert opened["clip"] is None
    files = [p for p in (tmp_path / "state").rglob("*") if p.is_file()]
    assert files
    assert all(p.suffix in (".sqlite", ".json", ".npz") for p in files), files
    for vectors in (
        p for p in files if p.suffix == ".npz"
    ):  # of the windows of an alert, for who calls it normal or a fault
        with np.load(vectors, allow_pickle=False) as views:
            assert set(views.files) <= set(VIEW_NAMES)
    assert sum(p.stat().st_size for p in files) < 160_000, "less than a window of sound"
    with sqlite3.connect(tmp_path / "state" / "alerts.sqlite") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    database.close()


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_alerts_go_out_when_the_disk_takes_nothing(fault: str, fan: Ear, broker: Broker, tmp_path: Path) -> None:
    sound = raw(tmp_path / "sound", np.concatenate([fan.healthy, fan.failing]))
    configuration = configure(tmp_path, fan, broker, sound, keep="{scores_every_s: 1}")
    with small_disk(tmp_path / "small", 400) as disk:
        if fault == "full":
            fill(disk / "filler")
        else:
            make_read_only(disk)
        words = ["run", "--config", configuration]
        more = {"ASD_STATE_DIR": str(disk / "state")}
        with Subscriber(broker.port) as heard, RunningDaemon(*words, home=tmp_path, more=more) as daemon:
            opened = heard.wait_for(alert("open")).payload
            closed = heard.wait_for(alert("close")).payload
            state = heard.wait_for(lambda m: m.topic.endswith("fan/state") and m.payload["troubles"] != []).payload
            assert daemon.stop() == 0, daemon.log
    assert opened["event_id"] == closed["event_id"]
    assert any("alerts.sqlite can't be written" in trouble for trouble in state["troubles"])
    assert not any("Traceback" in line for line in daemon.log)
