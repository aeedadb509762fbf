"""A machine that runs, stands still and changes its product, learned spread over time and listened to through a broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from asd_daemon.judge.bundle.bundle import default_bundle
from rig.broker import Broker, Received, Subscriber, mosquitto
from rig.daemon import RunningDaemon, ask
from rig.waiting import PATIENT_S

pytestmark = [pytest.mark.broker, pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")]
PLACE = "speed=max&snr=22&noise=pink&m-n=W"
CYCLE = "cycle=load=0:120,off:80"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


def configuration(folder: Path, port: int, source: str) -> Path:
    file = folder / "c.yaml"
    file.write_text(
        f"node: box\nbundle: {default_bundle()}\nmachines: {{fan: {{source: {{simulate: 'fan?{source}'}}}}}}\n"
        f"mqtt: {{host: 127.0.0.1, port: {port}}}\nkeep: {{clips: none}}\n"
    )
    return file


def test_machine_that_stops_is_off_and_makes_no_alert_until_it_fails(broker: Broker, tmp_path: Path) -> None:
    learns = configuration(tmp_path, broker.port, f"{PLACE}&{CYCLE}")
    done = ask("enroll", "--config", learns, "--machine", "fan", "--over", "10m", "--windows", "50", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "found 2 states: off (" in done.stdout
    failing = f"{PLACE}&{CYCLE}&seed=3&seconds=330&fail=blade_chip&fail_after=240"
    words = ("run", "--config", configuration(tmp_path, broker.port, failing))
    with Subscriber(broker.port) as heard, RunningDaemon(*words, home=tmp_path) as daemon:
        heard.wait_for(lambda m: m.topic.endswith("/state") and m.payload["state"] == "stopped", 3 * PATIENT_S)
        assert daemon.wait() == 0, daemon.log
        told = list(heard.messages)
    assert states(told)[:4] == [("normal", "running"), ("off", "off"), ("normal", "running"), ("alert", "running")]
    assert next(m.payload["kind"] for m in told if m.topic.endswith("/alert")) == "open"
    scores = [m.payload for m in told if m.topic.endswith("/score")]
    assert {score["operating_state"] for score in scores} == {"running"}
    assert len(scores) <= 33 - 8, "what is off has no score"


def states(told: list[Received]) -> list[tuple[str, str]]:
    """Each state and operating state that was new, without starting and what follows a failure."""
    seen: list[tuple[str, str]] = []
    for message in told:
        if message.topic.endswith("/state") and message.payload["state"] != "starting":
            found = (message.payload["state"], message.payload["operating_state"])
            if found[1] is not None and seen[-1:] != [found]:
                seen.append(found)
    return seen
