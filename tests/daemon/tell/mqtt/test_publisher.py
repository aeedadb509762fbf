"""The MQTT side against a real mosquitto on loopback: topics, last will, outages, refusals."""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asd_daemon.errors import BrokerError
from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.tell.alert_picture import AlertPicture
from asd_daemon.tell.commands import Command
from asd_daemon.tell.mqtt.connection import BrokerAddress
from asd_daemon.tell.mqtt.publisher import MqttPublisher
from asd_daemon.tell.mqtt.reconnecting import Backoff
from asd_daemon.tell.mqtt.topics import Topics
from asd_daemon.tell.mqtt.trial import try_broker
from asd_daemon.tell.payloads import AlertDetails, Condition, MachineState, PublishedScore
from asd_daemon.tell.storage.outbox import Outbox
from asd_daemon.tell.storage.retained_topics import Ownership
from rig.broker import HOST, PASSWORD, Broker, Received, Subscriber, free_port, mosquitto, write_certificates
from rig.gate import Gate
from rig.waiting import PATIENT_S, wait_until

pytestmark = [pytest.mark.broker, pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")]

AT = datetime(2026, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)
NORMAL = MachineState(Condition.NORMAL, AT, score=0.1, threshold=0.4)


def alert(number: int, kind: AlertKind = AlertKind.OPEN) -> AlertEvent:
    return AlertEvent(kind, f"event-{number}", AT, AT, 0.5, 0.5, 0.4, 3, 2)


def address_of(broker: Broker, **more: object) -> BrokerAddress:
    return replace(BrokerAddress(HOST, broker.port, client_id="asd-line-3", keepalive_s=5), **more)  # type: ignore[arg-type]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


class Failures:
    """What a teller reports as final."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.came = threading.Event()

    def __call__(self, error: Exception) -> None:
        self.errors.append(error)
        self.came.set()


POST = Topics("line-3", ["fan"])


def start(
    address: BrokerAddress, topics: Topics = POST, outbox: Outbox | None = None, *, wait_for_broker: bool = False
) -> tuple[MqttPublisher, Failures]:
    publisher, failures = MqttPublisher(address, topics, outbox=outbox, wait_for_broker=wait_for_broker), Failures()
    publisher.start(failures)
    return publisher, failures


def test_topics_when_all_is_told_are_those_of_the_design(broker: Broker) -> None:
    with Subscriber(broker.port) as heard:
        publisher, _ = start(address_of(broker))
        assert publisher.wait_connected(PATIENT_S)
        publisher.publish_state("fan", NORMAL)
        publisher.publish_score("fan", PublishedScore(AT, 0.1, 0.4, False))
        publisher.publish_alert("fan", alert(1))
        told = heard.wait_for(lambda m: m.topic == "asd/line-3/fan/alert")
        assert heard.wait_for(lambda m: m.topic == "asd/line-3/availability").payload == "online"
        state = heard.wait_for(lambda m: m.topic == "asd/line-3/fan/state").payload
        score = heard.wait_for(lambda m: m.topic == "asd/line-3/fan/score").payload
        publisher.close(PATIENT_S)
        heard.wait_for(lambda m: m.payload == "stopped")
    assert state == {
        "schema": 1,
        "node": "line-3",
        "machine": "fan",
        "state": "normal",
        "operating_state": None,
        "listening": True,
        "since": "2026-01-31T12:00:00.123Z",
        "score": 0.1,
        "threshold": 0.4,
        "reason": None,
        "event_id": None,
        "acknowledged": False,
        "muted_until": None,
        "drift": None,
        "calibration": None,
        "troubles": [],
        "text": None,
    }
    assert score["at"] == "2026-01-31T12:00:00.123Z"
    assert score["anomalous"] is False
    assert told.payload["kind"] == "open"
    assert told.payload["event_id"] == "event-1"
    assert all(m.payload["schema"] == 1 for m in heard.messages if not m.topic.endswith("availability"))


def test_state_when_subscriber_comes_later_is_retained(broker: Broker) -> None:
    publisher, _ = start(address_of(broker))
    assert publisher.wait_connected(PATIENT_S)
    publisher.publish_state("fan", NORMAL)
    publisher.close(PATIENT_S)
    with Subscriber(broker.port) as heard:
        assert heard.wait_for(lambda m: m.topic.endswith("fan/state")).retained
        for topic in ("asd/line-3/availability", "asd/line-3/fan/availability"):
            assert heard.wait_for(lambda m, t=topic: m.topic == t) == Received(topic, "stopped", retained=True)  # type: ignore[misc]


def test_picture_of_an_alert_is_kept_for_who_comes_later_and_forgotten_with_its_machine(broker: Broker) -> None:
    picture = AlertPicture(np.zeros((249, 128), np.uint8))
    topics = replace(POST, has_pictures=True)
    publisher, _ = start(address_of(broker), topics)
    publisher.publish_alert("fan", alert(1), AlertDetails(picture=picture))
    publisher.publish_alert("fan", alert(1, AlertKind.UPDATE), AlertDetails(picture=picture))
    assert publisher.wait_connected(PATIENT_S)
    assert publisher.outbox.wait_empty(PATIENT_S)

    def kept() -> list[Any]:
        with Subscriber(broker.port) as late:
            late.say("end", b"of what is retained")
            late.wait_for(lambda m: m.topic == "end")
            return late.of("fan/picture")

    wait_until(lambda: kept() == [picture.png()], "the picture is retained")
    publisher.change_topics(replace(topics, machines=["pump"]), Ownership("", ("pump",)))
    wait_until(lambda: kept() == [], "it is forgotten")
    publisher.close(1.0)


def test_availability_when_connection_breaks_is_the_last_will(broker: Broker) -> None:
    with Subscriber(broker.port) as heard:
        publisher, _ = start(address_of(broker))
        assert publisher.wait_connected(PATIENT_S)
        # A second client of the same name: the broker throws the first one out, as it does a half-open connection
        other, _ = start(address_of(broker))
        heard.wait_for(lambda m: m.payload == "offline")
        publisher.close(1)
        other.close(1)


def test_alerts_when_broker_is_down_at_start_wait_and_come_in_order(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker") as broker:
        broker.kill()
        publisher, failures = start(address_of(broker))
        for number in range(50):
            publisher.publish_alert("fan", alert(number))
        publisher.publish_state("fan", NORMAL)
        broker.up()
        with Subscriber(broker.port) as heard:
            heard.wait_for(lambda m: m.topic.endswith("alert") and m.payload["event_id"] == "event-49")
            assert [a["event_id"] for a in heard.of("alert")] == [f"event-{n}" for n in range(50)]
            heard.wait_for(lambda m: m.topic.endswith("fan/state"))
        publisher.close(PATIENT_S)
        assert len(publisher.outbox) == 0
        assert failures.errors == []


def test_everything_when_broker_is_killed_and_comes_back_is_said_again(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker") as broker:
        publisher, failures = start(address_of(broker))
        assert publisher.wait_connected(PATIENT_S)
        publisher.publish_state("fan", NORMAL)
        publisher.publish_alert("fan", alert(1))
        assert publisher.outbox.wait_empty(PATIENT_S)
        broker.kill()
        publisher.publish_alert("fan", alert(2))
        publisher.publish_alert("fan", alert(3))
        publisher.publish_state("fan", replace(NORMAL, condition=Condition.ALERT, event_id="event-3"))
        broker.up()
        with Subscriber(broker.port) as heard:
            heard.wait_for(lambda m: m.topic.endswith("fan/state") and m.payload["state"] == "alert")
            heard.wait_for(lambda m: m.payload == "online")
            assert publisher.outbox.wait_empty(PATIENT_S)
            heard.wait_for(lambda m: m.topic.endswith("alert") and m.payload["event_id"] == "event-3")
            states = [s["state"] for s in heard.of("fan/state")]
        publisher.close(PATIENT_S)
        assert states[-1] == "alert", "an old state must not overwrite the present one"
        assert failures.errors == []


def test_alert_when_broker_freezes_arrives_after_thaw(broker: Broker) -> None:
    publisher, _ = start(address_of(broker))
    assert publisher.wait_connected(PATIENT_S)
    with Subscriber(broker.port) as heard:
        broker.freeze()
        publisher.publish_alert("fan", alert(1))
        publisher.publish_alert("fan", alert(2))
        assert not publisher.outbox.wait_empty(1.0)
        broker.thaw()
        heard.wait_for(lambda m: m.topic.endswith("alert") and m.payload["event_id"] == "event-2")
        assert publisher.outbox.wait_empty(PATIENT_S)
    publisher.close(PATIENT_S)


def test_start_with_wrong_password_is_a_failure_and_one_clear_line(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker", password=True) as broker:
        publisher, failures = start(address_of(broker, username="asd", password="wrong"))
        assert failures.came.wait(PATIENT_S)
        publisher.close(1)
    assert isinstance(failures.errors[0], BrokerError)
    assert f"{HOST}:{broker.port} refuses us" in str(failures.errors[0])
    assert len(failures.errors) == 1


def test_refusal_at_the_start_is_waited_out_by_a_box_that_nobody_attends(tmp_path: Path) -> None:
    """A broker that is set up anew while the power fails must not keep the box from listening."""
    with Broker(tmp_path / "broker", password=True) as broker:
        publisher, failures = start(address_of(broker, username="asd", password=PASSWORD[::-1]), wait_for_broker=True)
        publisher.publish_alert("fan", alert(1))
        wait_until(lambda: "refuses us" in str(publisher.broker_status.trouble), "the broker refuses us")
        assert len(publisher.outbox) == 1
        broker.kill()
        conf = broker.folder / "mosquitto.conf"
        conf.write_text(
            conf.read_text().replace("allow_anonymous false", "allow_anonymous true").split("password_file")[0]
        )
        broker.up()
        assert publisher.outbox.wait_empty(PATIENT_S)
        assert publisher.broker_status.connected
        assert publisher.broker_status.trouble is None
        publisher.close(PATIENT_S)
        assert failures.errors == []


def test_refusal_after_a_good_start_is_no_failure(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker") as broker:
        publisher, failures = start(address_of(broker))
        assert publisher.wait_connected(PATIENT_S)
        broker.kill()
        conf = broker.folder / "mosquitto.conf"
        conf.write_text(conf.read_text().replace("allow_anonymous true", "allow_anonymous false"))
        broker.up()
        publisher.publish_alert("fan", alert(1))
        wait_until(lambda: "refuses us" in str(publisher.broker_status.trouble), "the broker refuses us")
        assert len(publisher.outbox) == 1
        broker.kill()
        conf.write_text(conf.read_text().replace("allow_anonymous false", "allow_anonymous true"))
        broker.up()
        assert publisher.outbox.wait_empty(PATIENT_S)
        publisher.close(PATIENT_S)
        assert failures.errors == []


def test_tls_with_password_and_known_authority_is_accepted(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker", password=True, tls=True) as broker:
        trusted = address_of(broker, tls=True, ca_file=broker.ca_file, username="asd", password=PASSWORD)
        with Subscriber(broker.port, password=PASSWORD, ca_file=broker.ca_file) as heard:
            publisher, _ = start(trusted)
            heard.wait_for(lambda m: m.payload == "online")
            publisher.close(PATIENT_S)
        try_broker(trusted, PATIENT_S)


def test_broker_that_asks_for_a_certificate_gets_ours(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker", mutual=True) as broker:
        ours = {"cert_file": broker.folder / "client.crt", "key_file": broker.folder / "client.key"}
        known = address_of(broker, tls=True, ca_file=broker.ca_file, **ours)
        publisher, _ = start(known)
        publisher.publish_alert("fan", alert(1))
        assert publisher.outbox.wait_empty(PATIENT_S)
        publisher.close(PATIENT_S)
        try_broker(known, PATIENT_S)


def test_broker_that_closes_without_an_answer_is_a_trouble_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With TLS 1.3 a missing certificate of ours shows after the handshake only, and nothing but the end of the connection."""
    with Broker(tmp_path / "broker", mutual=True) as broker:
        told = threading.Event()
        watch = logging.Handler()
        watch.emit = lambda record: told.set() if "without an answer" in record.getMessage() else None  # type: ignore[method-assign]
        logging.getLogger("asd_daemon.tell.mqtt.link").addHandler(watch)
        publisher, failures = start(address_of(broker, tls=True, ca_file=broker.ca_file))
        assert told.wait(PATIENT_S), caplog.text
        logging.getLogger("asd_daemon.tell.mqtt.link").removeHandler(watch)
        assert "certificate of ours" in str(publisher.broker_status.trouble)
        publisher.close(1)
        assert failures.errors == []
        with pytest.raises(BrokerError, match="without an answer"):
            try_broker(address_of(broker, tls=True, ca_file=broker.ca_file), PATIENT_S)


def test_broker_that_changes_its_certificate_is_not_trusted_and_gets_the_alerts_when_it_is_itself_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Broker(tmp_path / "broker", tls=True) as broker:
        trusted = tmp_path / "trusted.crt"
        trusted.write_bytes(broker.ca_file.read_bytes())
        publisher, failures = start(address_of(broker, tls=True, ca_file=trusted))
        assert publisher.wait_connected(PATIENT_S)
        files = [broker.folder / name for name in ("ca.crt", "ca.key", "server.crt", "server.key")]
        own = [file.read_bytes() for file in files]
        broker.kill()
        write_certificates(broker.folder)  # of an authority that has the same name and another key
        broker.up()
        publisher.publish_alert("fan", alert(1))
        wait_until(lambda: "certificate is not trusted" in caplog.text, "the certificate is not trusted")
        assert len(publisher.outbox) == 1
        broker.kill()
        for file, content in zip(files, own, strict=True):
            file.write_bytes(content)
        broker.up()
        assert publisher.outbox.wait_empty(PATIENT_S)
        publisher.close(PATIENT_S)
        assert failures.errors == []


def test_tls_with_unknown_authority_is_refused_by_us(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker", tls=True) as broker:
        publisher, failures = start(address_of(broker, tls=True))
        assert failures.came.wait(PATIENT_S)
        publisher.close(1)
        assert "certificate is not trusted" in str(failures.errors[0])
        with pytest.raises(BrokerError, match="not trusted"):
            try_broker(address_of(broker, tls=True), PATIENT_S)


def test_ca_file_that_is_missing_or_no_certificate_is_named(tmp_path: Path) -> None:
    nonsense = tmp_path / "ca.crt"
    nonsense.write_text("hello")
    for file in (nonsense, tmp_path / "none.crt"):
        with pytest.raises(BrokerError, match=str(file)):
            MqttPublisher(BrokerAddress(HOST, 1883, "x", tls=True, ca_file=file), POST)


def test_close_when_broker_is_unreachable_returns(caplog: pytest.LogCaptureFixture) -> None:
    publisher, failures = start(BrokerAddress(HOST, free_port(), "x"))
    publisher.publish_alert("fan", alert(1))
    publisher.close(2)
    assert "1 alert not confirmed" in caplog.text
    assert failures.errors == []


def test_try_broker_when_nobody_listens_says_so() -> None:
    with pytest.raises(BrokerError, match="Connection refused"):
        try_broker(BrokerAddress(HOST, free_port(), "x"))


def test_try_broker_with_wrong_password_says_so(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker", password=True) as broker, pytest.raises(BrokerError, match="refuses us"):
        try_broker(address_of(broker), PATIENT_S)


def test_alerts_that_were_not_confirmed_are_sent_by_the_next_run(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker") as broker:
        broker.kill()
        box = Outbox(tmp_path / "alerts.sqlite", ["fan"])
        first, _ = start(address_of(broker), outbox=box)
        for number in range(3):
            first.publish_alert("fan", alert(number), memory=b"{}")
        first.close(1)
        box.close()
        broker.up()
        with Subscriber(broker.port) as heard:
            again = Outbox(tmp_path / "alerts.sqlite", ["fan"])
            second, _ = start(address_of(broker), outbox=again)
            assert again.wait_empty(PATIENT_S)
            second.close(PATIENT_S)
            heard.wait_for(lambda m: m.topic.endswith("alert") and m.payload["event_id"] == "event-2")
            assert [a["event_id"] for a in heard.of("alert")] == ["event-0", "event-1", "event-2"]
        assert len(Outbox(tmp_path / "alerts.sqlite", ["fan"])) == 0


def test_discovery_state_and_open_alert_are_said_again_on_every_connect(broker: Broker) -> None:
    topics = replace(POST, discovery_prefix="homeassistant")
    with Gate(broker.port) as gate, Subscriber(broker.port) as heard:
        gate.open()
        publisher, _ = start(address_of(broker, port=gate.port), topics)
        assert publisher.wait_connected(PATIENT_S)
        publisher.publish_alert("fan", alert(1))
        publisher.publish_state("fan", replace(NORMAL, condition=Condition.ALERT, event_id="event-1"))
        assert publisher.outbox.wait_empty(PATIENT_S)
        heard.wait_for(lambda m: m.topic.endswith("fan/state") and m.payload["event_id"] == "event-1")
        gate.shut()
        heard.wait_for(lambda m: m.payload == "offline")
        told = len(heard.messages)
        gate.open()
        again = heard.wait_for(lambda m: m.topic.endswith("alert") and m.payload["repeated"]).payload
        assert again["event_id"] == "event-1"
        heard.wait_for(lambda m: m in heard.messages[told:] and m.topic.endswith("config"))
        said = [m.topic for m in heard.messages[told:]]
        assert "asd/line-3/fan/state" in said
        config = next(m for m in heard.messages[told:] if m.topic == "homeassistant/device/asd_line-3_fan/config")
        assert config.payload["components"]["problem"]["state_topic"] == "asd/line-3/fan/state"
        publisher.publish_alert("fan", alert(1, AlertKind.CLOSE))
        heard.wait_for(lambda m: m.topic.endswith("alert") and m.payload["kind"] == "close")
        publisher.close(PATIENT_S)


@pytest.mark.parametrize("is_early", [True, False])
def test_alert_of_an_earlier_run_that_is_still_open_is_said_again(broker: Broker, is_early: bool) -> None:
    with Subscriber(broker.port) as heard:
        publisher = MqttPublisher(address_of(broker), POST)
        if is_early:
            publisher.republish_alert("fan", alert(7))
        publisher.start(Failures())
        assert publisher.wait_connected(PATIENT_S)
        if not is_early:
            publisher.republish_alert("fan", alert(7))
        said = heard.wait_for(lambda m: m.topic.endswith("alert")).payload
        publisher.close(PATIENT_S)
    assert (said["event_id"], said["repeated"]) == ("event-7", True)


def test_commands_are_heeded_where_the_configuration_allows_it(broker: Broker) -> None:
    commands: queue.SimpleQueue[tuple[str, Command]] = queue.SimpleQueue()
    publisher, _ = start(address_of(broker), replace(POST, machines=["fan", "lathe"], takes_commands=True))
    publisher.on_command = lambda machine, command: commands.put((machine, command))
    assert publisher.wait_connected(PATIENT_S)
    with Subscriber(broker.port) as speaker:
        speaker.wait_for(lambda m: m.payload == "online")  # said after it has asked for commands
        speaker.say("asd/line-3/lathe/command", b"nonsense")
        speaker.say("asd/line-3/lathe/command", b'{"command": "mute", "minutes": 5}')
        machine, command = commands.get(timeout=PATIENT_S)
    assert (machine, command.command.value, command.minutes) == ("lathe", "mute", 5)
    assert commands.empty()
    assert publisher.broker_status.refused_commands == 1
    publisher.close(PATIENT_S)


def shared(machine: str, broker: Broker) -> MqttPublisher:
    """The connection of one process among several of a node."""
    publisher, _ = start(address_of(broker, client_id=f"asd-{machine}"), Topics("line-3", [machine], owns_node=False))
    assert publisher.wait_connected(PATIENT_S)
    return publisher


def test_availability_when_processes_share_a_node_is_true_of_each_machine_and_of_the_node(broker: Broker) -> None:
    node = "asd/line-3/availability"
    fan, lathe = shared("fan", broker), shared("lathe", broker)
    with Subscriber(broker.port, "asd/line-3/+/availability") as machines, Subscriber(broker.port, node) as nodes:
        for machine in ("fan", "lathe"):
            machines.wait_for(lambda m, name=machine: f"/{name}/" in m.topic and m.payload == "online")  # type: ignore[misc]
        nodes.wait_for(lambda m: m.payload == "online")
        impostors = [shared("fan", broker)]  # the broker throws the first fan out as if it had died
        machines.wait_for(lambda m: "/fan/" in m.topic and m.payload == "offline")
        impostors[0].close(2)
        fan.close(2)
        machines.wait_for(lambda m: "/fan/" in m.topic and m.payload == "stopped")
        nodes.wait_for(lambda m: m.payload in ("stopped", "offline"))
        assert not any("/lathe/" in m.topic and m.payload != "online" for m in machines.messages)
        with Subscriber(broker.port, node) as late:
            late.wait_for(lambda m: m.payload == "online")
        lathe.close(2)
        nodes.wait_for(lambda m: m is nodes.messages[-1] and m.payload == "stopped")


def test_backoff_doubles_up_to_a_minute_and_never_twice_the_same() -> None:
    backoff = Backoff(random.Random(0))
    waits_s = [backoff.wait_s() for _ in range(12)]
    full_s = [1, 2, 4, 8, 16, 32, *[60] * 6]
    assert all(0.5 * full <= wait <= max(full, 4) for wait, full in zip(waits_s, full_s, strict=True))
    assert len(set(waits_s)) == 12
    backoff.succeeded()
    assert backoff.wait_s() <= 4


def test_a_thousand_boxes_that_lose_a_broker_come_back_over_four_seconds() -> None:
    firsts = Counter(int(Backoff(random.Random(box)).wait_s()) for box in range(1000))
    assert set(firsts) == {0, 1, 2, 3}
    assert max(firsts.values()) < 350
