"""Microphones that somebody tries: heard for as long as somebody listens, in words where they can't be, let go of for a machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asd_daemon.hear.source_spec import parse_source
from asd_daemon.hear.sources.devices import Device
from asd_daemon.run.trial_listening import MOST_TRIALS, TrialListening, _entries
from asd_daemon.tell.commands import Answer
from asd_daemon.watch.live_client import LiveClient
from asd_daemon.watch.live_sound import LiveSound
from rig.daemon import RunningDaemon
from rig.feeder import Feeder
from rig.microphone import NAME, VirtualMicrophone, missing
from rig.waiting import wait_until

FAN = "simulate:fan"


@pytest.fixture
def trials() -> Iterator[TrialListening]:
    made = TrialListening(LiveSound(), dict)
    yield made
    made.close()


def test_a_source_is_heard_while_it_is_wanted(trials: TrialListening) -> None:
    sound = trials._live_sound
    sound.want({FAN})
    trials.want(frozenset({FAN}))
    wait_until(lambda: any(piece.machine == FAN and len(piece.samples) for piece in sound.take()), "it is heard")
    assert trials.states() == {FAN: None}
    thread = trials._trials[FAN]._thread
    trials.want(frozenset())
    wait_until(lambda: not thread.is_alive(), "nobody listens any more")
    assert trials.states() == {}


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("command:touch {folder}/ran", "by nothing else"),
        ("file:/etc/hostname", "nothing else"),
        ("simulate:nothing", "can't be simulated"),
        ("nonsense:x", "must be device:NAME"),
        ("simulate:fan?channel=x&", "source"),
        ("simulate:fan?speed=max", "at most 60"),
    ],
)
def test_what_can_t_be_tried_is_said_and_runs_no_program(
    trials: TrialListening, source: str, why: str, tmp_path: Path
) -> None:
    words = source.format(folder=tmp_path)
    trials.want(frozenset({words}))
    wait_until(lambda: trials.states()[words] is not None, "it is said")
    assert why in str(trials.states()[words])
    assert not (tmp_path / "ran").exists()


def test_only_so_many_are_tried_at_once(trials: TrialListening) -> None:
    trials.want(frozenset(f"simulate:fan?seed={n}" for n in range(5)))
    assert len(trials.states()) == MOST_TRIALS


def device(index: int, name: str, channels: int = 1, **more: Any) -> Device:
    return Device(index, name, channels, 48_000.0, more.pop("usb_id", None), index == 0, **more)


def test_devices_are_named_so_that_they_are_found_again_and_say_who_hears_by_them() -> None:
    twins = [device(n, f"Mic: USB (hw:{n},0)", usb_id="0d8c:0014", usb_path=f"1-1.{n}") for n in (1, 2)]
    others = [device(0, "default"), *twins, device(3, "Card: Line (hw:3,0)", 2, usb_id="1235:8214", usb_serial="A1")]
    heard = {
        "fan": (parse_source("device:usb-path:1-1.2"), None),
        "pump": (parse_source("device:default?channel=1"), "usb-id:1235:8214:A1"),
    }
    told = [entry for one in others for entry in _entries(one, others, heard)]
    assert [(entry["source"], entry["machine"], entry["shares"]) for entry in told] == [
        ("device:default", None, ["pump"]),  # as it was asked for
        ("device:usb-path:1-1.1", None, []),
        ("device:usb-path:1-1.2", "fan", ["fan"]),
        ("device:usb-id:1235:8214:A1?channel=0", None, ["pump"]),
        ("device:usb-id:1235:8214:A1?channel=1", "pump", ["pump"]),
    ]


def ask_for(client: LiveClient, line: dict[str, Any], kind: str, **fits: object) -> dict[str, Any]:
    """Wish for something, and wait for a piece of a kind."""
    client._connection.sendall(json.dumps(line).encode() + b"\n")
    while True:
        said = client._next(kind)
        if all(said.get(key) == value for key, value in fits.items()):
            return said


@pytest.mark.microphone
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_real_microphone_is_listed_tried_with_advice_and_goes_over_to_a_machine(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"machines": {}}')
    with (
        VirtualMicrophone(tmp_path / "v") as microphone,
        Feeder(microphone.fifo, idle_peak=1500),
        RunningDaemon("run", "--config", tmp_path / "c.json", home=tmp_path, more=microphone.environment) as daemon,
    ):
        wait_until(lambda: any("no machine" in line for line in daemon.log), "it runs")
        client = LiveClient(next((tmp_path / "state" / "status").glob("live-*.sock")))
        with client:
            listed = ask_for(client, {"devices": True}, "devices")
            source = next(one["source"] for one in listed["devices"] if NAME in one["name"])
            said = ask_for(client, {"sound": [source], "advice": [source]}, "sound", machine=source)
            assert said["rms_db"] < 0
            advice = ask_for(client, {"sound": [source], "advice": [source]}, "advice", machine=source)
            assert advice["findings"]
            answer = client.command("saw", {"command": "set", "key": "source", "value": source})
            assert answer == Answer(True, f"saw is added, heard by {source}")
            ask_for(client, {"sound": ["saw"]}, "sound", machine="saw")
            listed = ask_for(client, {"devices": True}, "devices")
            assert [one["machine"] for one in listed["devices"] if one["source"] == source] == ["saw"]
