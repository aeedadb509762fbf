"""A machine whose product changes: somebody says that this is normal, and it is; faults are found all the same, and get a name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rig.broker import Broker, Subscriber, mosquitto
from rig.daemon import RunningDaemon, ask
from rig.waiting import wait_until

USUAL, OTHER_PRODUCT = "m-n=W&load=50&noise=pink&snr=6", "m-n=Z&load=100&noise=vehicles&snr=4"
SPEED = "speed=40"


class Fan:
    """A fan that was learned with its usual product."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.learn()

    def learn(self, *words: str) -> None:
        source = f"simulate:fan?speed=max&{USUAL}&seed=1"
        done = ask("enroll", "--machine", "fan", "--source", source, "--minutes", "4", *words, home=self.home)
        assert done.returncode == 0, done.stderr

    @contextmanager
    def runs(self, sound: str, **more: Any) -> Iterator[RunningDaemon]:
        alarm = {"close_after": 2, "cool_down_s": 0}
        source = {"simulate": f"fan?{SPEED}&{sound}"}
        configuration = {"node": "box", "machines": {"fan": {"source": source, "alarm": alarm}}, **more}
        (self.home / "c.json").write_text(json.dumps(configuration))
        with RunningDaemon("run", "--config", self.home / "c.json", home=self.home) as daemon:
            yield daemon
            assert daemon.stop() == 0, daemon.log

    def say(self, *words: str, code: int = 0) -> str:
        done = ask("alerts", *words, home=self.home)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def alerts(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.say("list", "--json").splitlines()]


def told(daemon: RunningDaemon, topic: str, **words: Any) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in list(daemon.lines)]
    return [one for one in found if one["topic"] == topic and all(one.get(k) == v for k, v in words.items())]


def wait_for(daemon: RunningDaemon, topic: str, count: int = 1, **words: Any) -> dict[str, Any]:
    wait_until(lambda: len(told(daemon, topic, **words)) >= count, f"{count} of {topic} {words}")
    return told(daemon, topic, **words)[-1]


def hears(daemon: RunningDaemon, windows: int) -> None:
    """So many further windows are judged."""
    wait_for(daemon, "score", len(told(daemon, "score")) + windows)


@pytest.fixture
def fan(tmp_path: Path) -> Fan:
    return Fan(tmp_path)


def test_another_product_is_normal_once_somebody_says_so_until_it_is_taken_back(fan: Fan) -> None:
    with fan.runs(f"{OTHER_PRODUCT}&seed=3") as daemon:
        alert = wait_for(daemon, "alert", kind="open")["event_id"]
        assert "taken for normal" in fan.say("normal", alert[:8])
        assert wait_for(daemon, "alert", kind="close", event_id=alert)["outcome"] == "accepted"
        hears(daemon, 12)
        assert len(told(daemon, "alert", kind="open")) == 1
        (kept,) = fan.alerts()
        assert (kept["event_id"], kept["word"], kept["machine"]) == (alert, "normal", "fan")
        assert "noted" in fan.say("note", alert[:8], "the new", "product")
        assert "note: the new product" in fan.say("show", alert[:8])
    with fan.runs(f"{OTHER_PRODUCT}&seed=4") as daemon:  # after a restart
        hears(daemon, 12)
        assert not told(daemon, "alert")
    fan.learn("--relearn")
    with fan.runs(f"{OTHER_PRODUCT}&seed=5") as daemon:
        hears(daemon, 12)
        assert not told(daemon, "alert")
        assert "no longer taken" in fan.say("normal", alert[:8], "--undo")
        wait_for(daemon, "alert", kind="open")
        assert "was not called normal" in fan.say("normal", alert[:8], "--undo", code=1)


@pytest.mark.parametrize("product", [USUAL, OTHER_PRODUCT])
def test_a_fault_is_found_whatever_was_called_normal_and_the_next_of_its_kind_has_its_name(
    fan: Fan, product: str
) -> None:
    with fan.runs(f"{OTHER_PRODUCT}&seed=3") as daemon:
        fan.say("normal", wait_for(daemon, "alert", kind="open")["event_id"])
        wait_for(daemon, "alert", kind="close")
    with fan.runs(f"{product}&fail=unbalance&seed=6") as daemon:
        first = wait_for(daemon, "alert", kind="open")
        assert first["like"] is None
        hears(daemon, 6)
        assert "kept as fan blade" in fan.say("fault", first["event_id"][:8], "--name", "fan blade")
    with fan.runs(f"{product}&seed=7") as daemon:  # repaired
        wait_for(daemon, "alert", kind="close", event_id=first["event_id"])
    with fan.runs(f"{product}&fail=unbalance&seed=8") as daemon:
        again = wait_for(daemon, "alert", kind="open")
        assert again["like"]["name"] == "fan blade"
        assert f"like fan blade, {again['like']['on']}" in again["text"]
        assert "like fan blade" in wait_for(daemon, "state", state="alert")["text"]


def test_a_word_is_taken_while_no_daemon_runs_and_the_alert_is_closed_by_the_next(fan: Fan) -> None:
    with fan.runs(f"{OTHER_PRODUCT}&seed=3") as daemon:
        alert = wait_for(daemon, "alert", kind="open")["event_id"]
        hears(daemon, 4)
    assert "taken for normal" in fan.say("normal", alert)
    with fan.runs(f"{OTHER_PRODUCT}&seed=4") as daemon:
        assert wait_for(daemon, "alert", kind="close", event_id=alert)["outcome"] == "accepted"
        hears(daemon, 8)
        assert not told(daemon, "alert", kind="open")


def test_recordings_of_what_was_called_normal_are_scored_as_normal(fan: Fan) -> None:
    with fan.runs(f"{OTHER_PRODUCT}&seed=3", keep={"clip_after_s": 0}) as daemon:
        alert = wait_for(daemon, "alert", kind="open")
        wait_until((fan.home / "state" / alert["clip"]).exists, "the clip is written")

    def anomalous() -> list[bool]:
        done = ask("score", fan.home / "state" / alert["clip"], "--machine", "fan", "--json", home=fan.home)
        return [line["anomalous"] for line in map(json.loads, done.stdout.splitlines()) if "anomalous" in line]

    assert any(anomalous())
    fan.say("normal", alert["event_id"])
    assert anomalous()
    assert not any(anomalous())


def test_what_can_t_be_said_is_refused_in_plain_words(fan: Fan) -> None:
    assert "no alert is kept" in fan.say("list")
    assert "no such alert" in fan.say("normal", "abc", code=2)
    assert "--name" in fan.say("fault", "abc", code=2)
    assert "no alerts of it are kept" in fan.say("show", "abc", "--machine", "pump", code=2)


@pytest.mark.broker
@pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")
def test_a_word_by_mqtt_is_answered(fan: Fan, tmp_path: Path) -> None:
    def on(topic: str, **words: Any) -> Callable[[Any], bool]:
        return lambda m: m.topic == f"asd/box/fan/{topic}" and all(m.payload.get(k) == v for k, v in words.items())

    with Broker(tmp_path / "broker") as broker, Subscriber(broker.port) as heard:
        mqtt = {"host": "127.0.0.1", "port": broker.port, "commands": True}
        with fan.runs(f"{OTHER_PRODUCT}&seed=3", mqtt=mqtt):
            heard.wait_for(on("alert", kind="open"))
            heard.say("asd/box/fan/command", b'{"command": "normal", "event_id": "none", "id": "1"}')
            refused = heard.wait_for(on("answer", id="1")).payload
            assert (refused["ok"], "no such alert" in refused["text"]) == (False, True)
            heard.say("asd/box/fan/command", b'{"command": "normal", "id": "2"}')
            assert heard.wait_for(on("answer", id="2")).payload["ok"] is True
            heard.wait_for(on("alert", kind="close", outcome="accepted"))
            heard.wait_for(on("state", state="normal"))
