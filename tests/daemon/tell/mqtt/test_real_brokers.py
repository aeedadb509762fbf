"""Brokers as people run them, with rights and limits: mosquitto, NATS, amqtt. RabbitMQ takes long to come up; see tests/soak/brokers.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from asd_daemon.errors import BrokerError
from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.tell.mqtt.connection import BrokerAddress
from asd_daemon.tell.mqtt.publisher import MqttPublisher
from asd_daemon.tell.mqtt.topics import Topics
from asd_daemon.tell.mqtt.trial import Outcome, Trial, try_broker, try_topics
from asd_daemon.tell.payloads import Condition, MachineState
from rig.broker import HOST, PASSWORD, Broker, Subscriber, mosquitto, write_certificates
from rig.daemon import ask
from rig.other_brokers import USER, Amqtt, Nats, nats
from rig.scripted_broker import Disconnect, ScriptedBroker, Verdict
from rig.waiting import PATIENT_S, wait_until

AT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
TOPICS = Topics("box", ["fan"], discovery_prefix="homeassistant", takes_commands=True)
ALL = {"availability", "state", "score", "alert", "about", "discovery"}
needs_mosquitto = pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")


def address_of(port: int, **more: object) -> BrokerAddress:
    return replace(BrokerAddress(HOST, port, client_id="asd-box", keepalive_s=60), **more)  # type: ignore[arg-type]


def alert(event: str) -> AlertEvent:
    return AlertEvent(AlertKind.OPEN, event, AT, AT, 0.5, 0.5, 0.4, 3, 2)


@contextmanager
def talking(address: BrokerAddress, topics: Topics = TOPICS) -> Iterator[MqttPublisher]:
    publisher = MqttPublisher(address, topics, wait_for_broker=True)
    publisher.publish_state("fan", MachineState(Condition.NORMAL, AT))
    publisher.start(lambda error: pytest.fail(str(error)))
    try:
        yield publisher
    finally:
        publisher.close(PATIENT_S)


def outcomes(trials: list[Trial]) -> dict[str, set[Outcome]]:
    return {kind: {trial.outcome for trial in trials if trial.kind == kind} for kind in sorted(ALL)}


def until_told(publisher: MqttPublisher, words: str) -> str:
    def told() -> list[str]:
        return [trouble for trouble in publisher.broker_status.troubles if words in trouble]

    wait_until(lambda: bool(told()), f"{words} is told")
    return told()[0]


@needs_mosquitto
@pytest.mark.broker
def test_mosquitto_that_lets_us_publish_no_alert_keeps_none_from_arriving_later(tmp_path: Path) -> None:
    """It says yes to MQTT 3.1.1 and drops the message; MQTT 5 hears the truth."""
    rights = ["topic read #", "topic write asd/box/availability", "topic write asd/box/+/availability"]
    with Broker(tmp_path / "broker", rights=rights) as broker, talking(address_of(broker.port)) as publisher:
        publisher.publish_alert("fan", alert("a"))
        assert "Not authorized" in until_told(publisher, "asd/box/fan/alert")
        assert "Not authorized" in until_told(publisher, "asd/box/fan/state")
        assert len(publisher.outbox) == 1
        assert publisher.broker_status.protocol == "5"
        broker.allow(["topic readwrite #"])
        with Subscriber(broker.port) as heard:
            assert publisher.outbox.wait_empty(PATIENT_S)
            heard.wait_for(lambda m: m.topic == "asd/box/fan/alert" and m.payload["event_id"] == "a")


@needs_mosquitto
@pytest.mark.broker
def test_mosquitto_with_a_packet_limit_gets_what_fits(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker", more=["max_packet_size 1024"]) as broker, Subscriber(broker.port) as heard:
        with talking(address_of(broker.port)) as publisher:
            publisher.publish_alert("fan", alert("a"))
            assert publisher.outbox.wait_empty(PATIENT_S)
            heard.wait_for(lambda m: m.topic.endswith("fan/state"))
            assert "1024 bytes" in until_told(publisher, "homeassistant/device/asd_box_fan/config")
            assert publisher.connects == 1
        trials = try_topics(address_of(broker.port, client_id="check"), TOPICS, is_heard=False)
    assert outcomes(trials)["discovery"] == {Outcome.REFUSED}
    assert outcomes(trials)["alert"] == {Outcome.TAKEN}


@needs_mosquitto
@pytest.mark.broker
@pytest.mark.parametrize("denied", ["availability", "state", "score", "alert", "about", "discovery"])
def test_trial_finds_the_kind_of_topic_that_may_not_be_published(tmp_path: Path, denied: str) -> None:
    wanted = {
        "availability": ["asd/box/availability", "asd/box/fan/availability"],
        "state": ["asd/box/fan/state"],
        "score": ["asd/box/fan/score"],
        "alert": ["asd/box/fan/alert"],
        "about": ["asd/box/fan/about"],
        "discovery": ["homeassistant/device/#"],
    }
    rights = [f"topic write {topic}" for kind, topics in wanted.items() if kind != denied for topic in topics]
    with Broker(tmp_path / "broker", rights=rights) as broker:
        trials = try_topics(address_of(broker.port), TOPICS, is_heard=False)
    assert outcomes(trials) == {kind: {Outcome.REFUSED if kind == denied else Outcome.TAKEN} for kind in ALL}
    assert all("Not authorized" in trial.why for trial in trials if trial.outcome is Outcome.REFUSED)


@needs_mosquitto
@pytest.mark.broker
def test_check_fails_where_alerts_may_not_be_published(tmp_path: Path) -> None:
    rights = ["topic read #", "topic write asd/box/availability", "topic write asd/box/fan/state"]
    with Broker(tmp_path / "broker", rights=rights) as broker:
        words = ["--node", "box", "--machine", "fan", "--source", "simulate:fan", "--broker", f"{HOST}:{broker.port}"]
        done = ask("check", *words, "--seconds", 0.5, home=tmp_path)
    (line,) = [line for line in done.stdout.splitlines() if "broker" in line]
    assert line.startswith("FAIL  broker: ")
    assert "asd/box/fan/alert: Not authorized" in line
    assert done.returncode == 1


@needs_mosquitto
@pytest.mark.broker
def test_trial_leaves_nothing_behind_and_throws_nobody_out(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker") as broker, talking(address_of(broker.port)) as publisher:
        with Subscriber(broker.port) as before:
            before.wait_for(lambda m: m.topic.endswith("config"))
            before.wait_for(lambda m: m.topic.endswith("state"))
        trials = try_topics(address_of(broker.port, client_id="asd-box-check"), TOPICS, is_heard=True)
        assert {trial.outcome for trial in trials} == {Outcome.TAKEN}
        with Subscriber(broker.port) as after:
            after.wait_for(lambda m: m.topic.endswith("config"))
            after.say("end", b"1")
            after.wait_for(lambda m: m.topic == "end")
            kept = {m.topic: m.payload for m in after.messages}
        assert kept["asd/box/fan/state"]["state"] == "normal"
        assert kept["asd/box/availability"] == "online"
        assert not any(topic.endswith(("alert", "score")) for topic in kept)
        assert publisher.connects == 1


def test_trial_says_nothing_against_a_daemon_that_runs_and_that_it_cannot_read() -> None:
    with ScriptedBroker() as broker:
        trials = try_topics(address_of(broker.port), TOPICS, is_heard=True)
        assert not any(m.topic.endswith(("/state", "availability")) for m in broker.published)
    assert outcomes(trials)["state"] == {Outcome.UNTRIED}
    assert outcomes(trials)["alert"] == {Outcome.TAKEN}


@pytest.mark.parametrize(
    ("versions", "answer", "expected"),
    [
        ((4,), 0x87, Outcome.UNKNOWN),
        ((4,), Verdict.HANG_UP, Outcome.REFUSED),
        ((4, 5), Verdict.HANG_UP, Outcome.REFUSED),
        ((4, 5), Disconnect(0x87), Outcome.REFUSED),
        ((4, 5), 0x87, Outcome.REFUSED),
        ((4,), 0, Outcome.TAKEN),
    ],
)
def test_trial_knows_what_can_be_known_in_each_version(
    versions: tuple[int, ...], answer: object, expected: Outcome
) -> None:
    with ScriptedBroker(versions=versions, answer=lambda m: answer if "alert" in m.topic else 0) as broker:  # type: ignore[arg-type,return-value]
        found = outcomes(try_topics(address_of(broker.port), TOPICS, is_heard=False))
    assert found == {kind: {expected if kind == "alert" else Outcome.TAKEN} for kind in ALL}


@needs_mosquitto
@pytest.mark.broker
def test_certificates_of_an_old_private_authority_are_trusted(tmp_path: Path) -> None:
    """Python 3.13 asks for extensions that nobody set years ago; who is named as the authority is checked without them too."""
    with Broker(tmp_path / "broker", tls=True) as broker:
        broker.kill()
        write_certificates(broker.folder, strict=False)
        broker.up()
        try_broker(address_of(broker.port, tls=True, ca_file=broker.ca_file), PATIENT_S)
        stranger = tmp_path / "stranger"
        stranger.mkdir()
        write_certificates(stranger, strict=False)
        with pytest.raises(BrokerError, match="not trusted"):
            try_broker(address_of(broker.port, tls=True, ca_file=stranger / "ca.crt"), PATIENT_S)


def test_key_that_is_locked_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    write_certificates(tmp_path)
    import subprocess

    lock = ["openssl", "ec", "-aes256", "-passout", "pass:secret", "-in", "client.key", "-out", "locked.key"]
    subprocess.run(lock, cwd=tmp_path, check=True, capture_output=True)
    ours = {"cert_file": tmp_path / "client.crt", "key_file": tmp_path / "locked.key"}
    with pytest.raises(BrokerError, match=r"locked\.key"):
        MqttPublisher(address_of(1, tls=True, ca_file=tmp_path / "ca.crt", **ours), TOPICS)


@pytest.mark.skipif(nats() is None, reason="nats-server is not installed")
def test_nats_gets_all_of_it(tmp_path: Path) -> None:
    with Nats(tmp_path / "broker") as broker:
        known = {"username": USER, "password": PASSWORD}
        with talking(address_of(broker.port, **known)) as publisher:
            publisher.publish_alert("fan", alert("a"))
            assert publisher.outbox.wait_empty(PATIENT_S)
            assert publisher.broker_status.protocol == "3.1.1"
        assert try_broker(address_of(broker.port, **known), PATIENT_S) == "3.1.1"
        with pytest.raises(BrokerError, match=r"user name|Not authorized"):
            try_broker(address_of(broker.port, username=USER, password="wrong"), PATIENT_S)


def test_amqtt_gets_all_of_it(tmp_path: Path) -> None:
    with Amqtt(tmp_path / "broker") as broker, talking(address_of(broker.port)) as publisher:
        publisher.publish_alert("fan", alert("a"))
        assert publisher.outbox.wait_empty(PATIENT_S)
        assert publisher.broker_status.protocol == "3.1.1"
        assert publisher.broker_status.troubles == ()
