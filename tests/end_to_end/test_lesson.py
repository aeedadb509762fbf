"""A machine that no bundle knows is learned by a command over MQTT, by the daemon that listens to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asd_daemon.judge.bundle.bundle import default_bundle
from rig.broker import Broker, Received, Subscriber, mosquitto
from rig.daemon import RunningDaemon
from rig.waiting import PATIENT_S

pytestmark = [pytest.mark.broker, pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


def state(condition: str, reason: str = "") -> Callable[[Received], bool]:
    return lambda m: (
        m.topic == "asd/box/blower/state" and m.payload["state"] == condition and reason in (m.payload["reason"] or "")
    )


def test_unknown_machine_waits_is_learned_by_command_and_judged(broker: Broker, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        f"node: box\nbundle: {default_bundle()}\nmachines: {{blower: {{source: {{simulate: 'fan?speed=30'}}}}}}\n"
        f"mqtt: {{host: 127.0.0.1, port: {broker.port}, commands: true, enrolment: true}}\n"
    )
    words = ("run", "--config", tmp_path / "c.yaml")
    with Subscriber(broker.port) as heard, RunningDaemon(*words, home=tmp_path) as daemon:
        heard.wait_for(state("learning", "not learned yet"))
        heard.say("asd/box/blower/command", b'{"command": "enroll", "minutes": 2.7}')
        heard.wait_for(state("learning", "of 17 windows heard"))
        heard.wait_for(lambda m: m.topic == "asd/box/blower/score", 2 * PATIENT_S)
        heard.say("asd/box/blower/command", b'{"command": "enroll"}')
        heard.wait_for(lambda m: "enroll refused" in str(m.payload) and "relearn" in str(m.payload))
        assert daemon.stop() == 0, daemon.log
    assert any("learned from 17 windows" in line for line in daemon.log)
    with RunningDaemon(*words, home=tmp_path) as daemon, Subscriber(broker.port) as heard:
        heard.wait_for(lambda m: m.topic == "asd/box/blower/score")
        assert daemon.stop() == 0, daemon.log
