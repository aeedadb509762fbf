"""The whole way of a sound, for real: played into a microphone, heard by the daemon's own process, told by a real broker.

Sound goes through PulseAudio's clock, so it takes as long as it lasts; overlapping windows keep it short.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from rig.broker import HOST, Broker, Received, Subscriber, mosquitto
from rig.daemon import RunningDaemon
from rig.ears import Ear, real_lathe, simulated_fan
from rig.feeder import Feeder, as_s16
from rig.microphone import NAME, VirtualMicrophone, missing
from rig.waiting import is_over, wait_until

REALBENCH = Path(__file__).resolve().parents[2].parent / "shared" / "realbench"
LACKING = missing() or (None if mosquitto() else "mosquitto is not installed")

pytestmark = [
    pytest.mark.microphone,
    pytest.mark.broker,
    pytest.mark.skipif(LACKING is not None, reason=str(LACKING)),
]


@pytest.fixture
def microphone(tmp_path: Path) -> Iterator[VirtualMicrophone]:
    with VirtualMicrophone(tmp_path / "v") as running:
        yield running


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def fan() -> Ear:
    return simulated_fan()


@pytest.fixture
def lathe(microphone: VirtualMicrophone) -> Ear:
    if not REALBENCH.is_dir():
        pytest.skip("no real recordings in ../shared/realbench")
    return real_lathe(microphone.folder, REALBENCH)


def write_configuration(folder: Path, ear: Ear, broker: Broker) -> Path:
    file = folder / "asd.yaml"
    file.write_text(
        f"""
node: box
bundle: {ear.bundle}
machines:
  {ear.machine}:
    source: {{device: {NAME}, rate_hz: 16000}}
    hop_s: 2
    alarm: {{open_after: 2, of: 3, close_after: 3}}
mqtt: {{host: {HOST}, port: {broker.port}}}
"""
    )
    return file


def for_minutes(sound: NDArray[np.float32]) -> NDArray[np.int16]:
    """Some three minutes of it: a busy machine may lose samples, and with them windows. A test that has what it waits for ends before."""
    return np.tile(as_s16(sound), 5)


def topic(ear: Ear, last: str) -> Callable[[Received], bool]:
    return lambda m: m.topic == f"asd/box/{ear.machine}/{last}"


def alert(ear: Ear, kind: str) -> Callable[[Received], bool]:
    return lambda m: topic(ear, "alert")(m) and m.payload["kind"] == kind


def listen_to_machine_that_fails_and_is_repaired(ear: Ear, microphone: VirtualMicrophone, broker: Broker) -> None:
    """Healthy sound, a reload, the failure, healthy sound again: a subscriber learns of all but the reload."""
    configuration = write_configuration(microphone.folder, ear, broker)
    words = ["run", "--config", configuration, "--machine", ear.machine]
    with (
        Subscriber(broker.port) as heard,
        Feeder(microphone.fifo) as feeder,
        RunningDaemon(*words, home=microphone.folder, more=microphone.environment) as daemon,
    ):
        # The feeder's idle noise is no machine: let the daemon hear the machine alone, from its first block on
        feeder.play(for_minutes(ear.healthy))
        score = heard.wait_for(topic(ear, "score")).payload
        assert score["anomalous"] is False, "the healthy machine is normal"
        heard.wait_for(lambda m: topic(ear, "state")(m) and m.payload["state"] == "normal")
        assert heard.of("alert") == []
        recorders = {c.pid for c in psutil.Process(daemon.process.pid).children(recursive=True)}
        configuration.write_text(configuration.read_text().replace("close_after: 3", "close_after: 2"))
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("configuration read anew" in line for line in daemon.log), "it is reloaded")
        feeder.interrupt(for_minutes(ear.failing))
        opened = heard.wait_for(alert(ear, "open")).payload
        feeder.interrupt(for_minutes(ear.healthy))
        closed = heard.wait_for(alert(ear, "close")).payload
        heard.wait_for(lambda m: topic(ear, "state")(m) and m.payload["state"] == "normal")
        child = psutil.Process(daemon.process.pid).children(recursive=True)
        # pactl tells the recorder when the sound server moves it to another microphone
        assert sorted(c.name().rstrip("0123456789.") for c in child) == ["pactl", "python"], "one recorder, no more"
        assert {c.pid for c in child} == recorders, "a reload leaves the microphone open"
        assert daemon.stop() == 0, daemon.log
        heard.wait_for(lambda m: m.topic == "asd/box/availability" and m.payload == "stopped")
        wait_until(lambda: all(is_over(c.pid) for c in child), "the recorder has ended with the daemon")
    check_alert(opened, closed, ear)


def check_alert(opened: dict[str, Any], closed: dict[str, Any], ear: Ear) -> None:
    assert opened["schema"] == 1
    assert opened["machine"] == ear.machine
    assert opened["score"] > opened["threshold"] > 0
    assert closed["event_id"] == opened["event_id"]
    assert closed["started_at"] == opened["started_at"]
    assert closed["peak_score"] >= opened["peak_score"]
    assert closed["score"] <= closed["threshold"]
    assert closed["at"] > opened["at"] >= opened["started_at"]


def test_simulated_fan_that_fails_and_is_repaired_is_told_by_the_broker(
    fan: Ear, microphone: VirtualMicrophone, broker: Broker
) -> None:
    listen_to_machine_that_fails_and_is_repaired(fan, microphone, broker)


@pytest.mark.realbench
def test_real_lathe_that_is_fed_too_fast_is_told_by_the_broker(
    lathe: Ear, microphone: VirtualMicrophone, broker: Broker
) -> None:
    listen_to_machine_that_fails_and_is_repaired(lathe, microphone, broker)


def test_microphone_and_broker_that_both_go_are_survived(
    fan: Ear, microphone: VirtualMicrophone, broker: Broker
) -> None:
    configuration = write_configuration(microphone.folder, fan, broker)
    with (
        Feeder(microphone.fifo) as feeder,
        RunningDaemon("run", "--config", configuration, home=microphone.folder, more=microphone.environment) as daemon,
    ):
        feeder.play(for_minutes(fan.healthy))
        with Subscriber(broker.port) as heard:
            heard.wait_for(topic(fan, "score"))
            microphone.yank()
            lost = heard.wait_for(lambda m: topic(fan, "state")(m) and m.payload["state"] == "mic_lost").payload
            assert lost["reason"]
            broker.kill()
        broker.up()
        microphone.replug()
        feeder.play(for_minutes(fan.healthy))
        with Subscriber(broker.port) as heard:
            heard.wait_for(lambda m: m.payload == "online")
            heard.wait_for(lambda m: topic(fan, "state")(m) and m.payload["state"] == "normal")
        assert daemon.stop() == 0, daemon.log
    assert any("sound is back after" in line for line in daemon.log)
