"""A broker that says no, or hangs up: no alert is lost, none blocks another, and it is named what is not taken. With a scripted broker."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.judge.features.spectral_difference import Band, Difference
from asd_daemon.tell.mqtt.connection import BrokerAddress, client_id
from asd_daemon.tell.mqtt.publisher import MqttPublisher
from asd_daemon.tell.mqtt.topics import Topics
from asd_daemon.tell.payloads import AlertDetails, Condition, MachineState
from asd_daemon.tell.storage.machine_records import MachineRecords
from asd_daemon.tell.storage.outbox import Outbox
from rig.scripted_broker import HOST, Answer, Disconnect, Published, ScriptedBroker, Verdict
from rig.waiting import PATIENT_S, wait_until

AT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
NORMAL = MachineState(Condition.NORMAL, AT, score=0.1, threshold=0.4)
TOPICS = Topics("box", ["fan", "lathe"], discovery_prefix="homeassistant")
NOT_AUTHORIZED, QUOTA, TOO_LARGE = 0x87, 0x97, 0x95
_PAUSE = threading.Event()


def alert(event: str, kind: AlertKind = AlertKind.OPEN) -> AlertEvent:
    return AlertEvent(kind, event, AT, AT, 0.5, 0.5, 0.4, 3, 2)


def on(topic_end: str, answer: Answer) -> Callable[[Published], Answer]:
    """That answer to topics that end so, yes to all else."""
    return lambda message: answer if message.topic.endswith(topic_end) else 0


@contextmanager
def talking(broker: ScriptedBroker, topics: Topics = TOPICS, outbox: Outbox | None = None) -> Iterator[MqttPublisher]:
    """A publisher that is connected to the broker, or tries to be."""
    address = BrokerAddress(HOST, broker.port, client_id="asd-box", keepalive_s=60)
    publisher = MqttPublisher(address, topics, outbox=outbox, wait_for_broker=True)
    for machine in topics.machines:
        publisher.publish_state(machine, NORMAL)
    publisher.start(lambda error: pytest.fail(str(error)))
    try:
        yield publisher
    finally:
        publisher.close(PATIENT_S)


def events_of(broker: ScriptedBroker) -> list[tuple[str, str]]:
    """Event and kind of every alert that came, in order."""
    return [(m["event_id"], m["kind"]) for m in (json.loads(message.payload) for message in broker.alerts())]


def until(fits: Callable[[], object]) -> None:
    wait_until(lambda: bool(fits()), "it comes to that")


@pytest.mark.parametrize("code", [NOT_AUTHORIZED, QUOTA])
def test_alert_that_is_refused_stays_is_a_trouble_and_goes_when_it_is_taken(code: int) -> None:
    outbox = Outbox(machines=TOPICS.machines)
    with ScriptedBroker(answer=on("fan/alert", code)) as broker, talking(broker, outbox=outbox) as publisher:
        publisher.publish_alert("fan", alert("first"))
        publisher.publish_alert("lathe", alert("second"))
        publisher.publish_alert("fan", alert("third"))
        until(lambda: publisher.broker_status.refused_alerts >= 2 and len(outbox) == 2)
        assert ("second", "open") in events_of(broker)
        (trouble,) = [t for t in publisher.broker_status.troubles if "fan/alert" in t]
        assert f"0x{code:02X}" in trouble
        assert publisher.broker_status.connected
        (told,) = MachineRecords("fan", outbox).write_errors
        assert "asd/box/fan/alert" in told
        assert MachineRecords("lathe", outbox).write_errors == ()
        broker.answer = lambda _: 0
        until(lambda: not len(outbox))
        assert publisher.broker_status.troubles == ()
        assert MachineRecords("fan", outbox).write_errors == ()
        taken = events_of(broker)[-2:]
        assert sorted(taken) == [("first", "open"), ("third", "open")]


def test_close_never_overtakes_an_open_that_is_refused() -> None:
    answers: list[Answer] = [QUOTA]
    with (
        ScriptedBroker(answer=lambda m: answers.pop() if answers and m.topic.endswith("alert") else 0) as broker,
        talking(broker) as publisher,
    ):
        publisher.publish_alert("fan", alert("a"))
        publisher.publish_alert("fan", alert("a", AlertKind.CLOSE))
        publisher.publish_alert("fan", alert("b"))
        assert publisher.outbox.wait_empty(PATIENT_S)
        assert events_of(broker) == [("a", "open"), ("b", "open"), ("a", "open"), ("a", "close")]


def test_alerts_come_first_on_a_connect(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "alerts.sqlite", TOPICS.machines)
    for number in range(20):
        box.put("fan", "asd/box/fan/alert", b"{}", kind=AlertKind.OPEN, event_id=f"e{number}")
    with ScriptedBroker() as broker, talking(broker, outbox=box):
        broker.wait_for(lambda b: any(m.topic.endswith("asd_box_lathe/config") for m in b.published))
        kinds = [message.topic.rpartition("/")[2] for message in broker.published]
    assert kinds[:20] == ["alert"] * 20
    assert kinds[20:27] == ["availability"] * 3 + ["state"] * 2 + ["config"] * 2
    box.close()


def test_alert_survives_a_broker_that_refuses_it_and_a_restart(tmp_path: Path) -> None:
    with ScriptedBroker(answer=on("alert", NOT_AUTHORIZED)) as broker:
        box = Outbox(tmp_path / "alerts.sqlite", TOPICS.machines)
        with talking(broker, outbox=box) as publisher:
            publisher.publish_alert("fan", alert("kept"))
            until(lambda: publisher.broker_status.refused_alerts)
        box.close()
        broker.answer = lambda _: 0
        again = Outbox(tmp_path / "alerts.sqlite", TOPICS.machines)
        with talking(broker, outbox=again):
            assert again.wait_empty(PATIENT_S)
        again.close()


@pytest.mark.parametrize("versions", [(4,), (4, 5)])
def test_publish_behind_which_the_broker_hangs_up_is_set_aside_and_named(versions: tuple[int, ...]) -> None:
    """As brokers do on topics that a policy forbids; two descriptions are forbidden here, and everything else gets through."""
    with (
        ScriptedBroker(versions=versions, answer=on("config", Verdict.HANG_UP)) as broker,
        talking(broker) as publisher,
    ):
        publisher.publish_alert("fan", alert("a"))
        assert publisher.outbox.wait_empty(PATIENT_S), "alerts go before what is forbidden"
        until(lambda: len(publisher.broker_status.troubles) == 2 and publisher.connected)
        connects = len(broker.connects)
        told = " ".join(publisher.broker_status.troubles)
        assert "homeassistant/device/asd_box_fan/config" in told
        assert "homeassistant/device/asd_box_lathe/config" in told
        assert connects <= 9
        publisher.publish_alert("lathe", alert("b"))
        assert publisher.outbox.wait_empty(PATIENT_S)
        assert json.loads(broker.retained["asd/box/fan/state"])["state"] == "normal"
        _PAUSE.wait(2.5)
        assert len(broker.connects) == connects, "the connection lasts now"


def test_alert_behind_which_the_broker_hangs_up_does_not_keep_others_from_arriving() -> None:
    def answer(message: Published) -> Answer:
        return Verdict.HANG_UP if b"poison" in message.payload else 0

    with ScriptedBroker(versions=(4,), answer=answer) as broker, talking(broker) as publisher:
        publisher.publish_alert("fan", alert("poison"))
        for number in range(5):
            publisher.publish_alert("fan", alert(f"good-{number}"))
        until(lambda: len(publisher.outbox) == 1)
        assert [event for event, _ in events_of(broker) if event != "poison"] == [f"good-{n}" for n in range(5)]
        assert any("set aside" in trouble for trouble in publisher.broker_status.troubles)
        alert_at_last = publisher.outbox.next(float("inf"))
        assert alert_at_last is not None
        assert alert_at_last.event_id == "poison"


def test_topic_that_costs_connections_is_left_alone_with_all_its_alerts_until_one_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As at RabbitMQ, where a user has no right on a topic: two alerts show it, not each of them."""
    monkeypatch.setattr("asd_daemon.tell.storage.refusals._RARELY_S", 6.0)
    with ScriptedBroker(versions=(4,), answer=on("fan/alert", Verdict.HANG_UP)) as broker, talking(broker) as publisher:
        for number in range(30):
            publisher.publish_alert("fan", alert(f"fan-{number}"))
        publisher.publish_alert("lathe", alert("lathe"))
        until(lambda: len(publisher.outbox) == 30 and len({m.payload for m in broker.alerts()}) >= 3)
        # 3 and 7 at once; one more each time that it is asked again, on a machine that takes its time
        assert len({m.payload for m in broker.alerts()}) < 10
        assert len(broker.connects) < 20
        broker.answer = lambda _: 0
        assert publisher.outbox.wait_empty(PATIENT_S)
        taken = [event for event, _ in events_of(broker)]
        assert set(taken) == {"lathe", *(f"fan-{n}" for n in range(30))}


def test_score_behind_which_the_broker_hangs_up_is_set_aside() -> None:
    from asd_daemon.tell.payloads import PublishedScore

    with ScriptedBroker(versions=(4,), answer=on("score", Verdict.HANG_UP)) as broker, talking(broker) as publisher:

        def tell_a_score() -> bool:
            if publisher.connected and not any("score" in t for t in publisher.broker_status.troubles):
                publisher.publish_score("fan", PublishedScore(AT, 0.1, 0.4, False))
            return any("fan/score" in t for t in publisher.broker_status.troubles)

        until(tell_a_score)
        publisher.publish_alert("fan", alert("a"))
        assert publisher.outbox.wait_empty(PATIENT_S)


def test_packets_larger_than_the_broker_takes_are_not_sent_and_alerts_go_without_their_explanation() -> None:
    difference = Difference(tuple(Band(float(n), float(n + 1), 1.0, 1.0) for n in range(40)), tuple(range(10)), 64)
    with ScriptedBroker(limits={0x27: 900}) as broker, talking(broker) as publisher:
        publisher.publish_alert("fan", alert("long"), AlertDetails(difference, clip="clips/fan/a.flac"))
        publisher.publish_alert("fan", alert("short"))
        assert publisher.outbox.wait_empty(PATIENT_S)
        until(lambda: publisher.broker_status.troubles)
        assert all(len(m.payload) + len(m.topic) + 12 <= 900 for m in broker.published)
        first, second = (json.loads(m.payload) for m in broker.alerts())
        assert (first["event_id"], first["bands"], first["clip"]) == ("long", [], "clips/fan/a.flac")
        assert second["event_id"] == "short"
        assert "900 bytes" in publisher.broker_status.troubles[0]
        assert len(broker.connects) == 1


def test_broker_that_ends_the_connection_for_its_size_gets_the_short_form_of_an_alert() -> None:
    difference = Difference(tuple(Band(float(n), float(n + 1), 1.0, 1.0) for n in range(40)), (), 64)

    def answer(message: Published) -> Answer:
        return Disconnect(TOO_LARGE) if len(message.payload) > 900 and "alert" in message.topic else 0

    with ScriptedBroker(answer=answer) as broker, talking(broker) as publisher:
        publisher.publish_alert("fan", alert("long"), AlertDetails(difference))
        assert publisher.outbox.wait_empty(PATIENT_S)
        assert len(broker.connects) == 2


@pytest.mark.parametrize("first_answer", ["refuses", "slams"])
def test_broker_of_the_older_version_is_spoken_to_in_that_and_it_is_remembered(first_answer: str) -> None:
    slams = (5,) if first_answer == "slams" else ()
    with ScriptedBroker(versions=(4,), slams=slams) as broker, talking(broker) as publisher:
        publisher.publish_alert("fan", alert("a"))
        assert publisher.outbox.wait_empty(PATIENT_S)
        assert publisher.broker_status.protocol == "3.1.1"
        assert [version for _, _, version in broker.connects] == [5, 4]
        broker.throw_all_out()
        broker.wait_for(lambda b: len(b.connects) == 3)
        assert [version for _, _, version in broker.connects] == [5, 4, 4]


@pytest.mark.parametrize(("code", "words"), [(2, "name"), (3, "available"), (4, "user name"), (5, "Not authorized")])
def test_refusals_of_the_older_version_are_told_in_their_own_words(code: int, words: str) -> None:
    with ScriptedBroker(versions=(4,), refuses=code) as broker, talking(broker) as publisher:
        until(lambda: publisher.broker_status.trouble)
        assert words in str(publisher.broker_status.trouble)


def test_refusals_are_told_in_different_words() -> None:
    told = set()
    for code in (0x80, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F):
        with ScriptedBroker(refuses=code) as broker, talking(broker) as publisher:
            until(lambda p=publisher: p.broker_status.trouble)  # type: ignore[misc]
            told.add(re.sub(r".*refuses us", "", str(publisher.broker_status.trouble)))
    assert len(told) == 16


@pytest.mark.parametrize("versions", [(4,), (4, 5)])
def test_second_client_of_our_name_is_named(versions: tuple[int, ...], caplog: pytest.LogCaptureFixture) -> None:
    with ScriptedBroker(versions=versions) as broker, talking(broker) as one, talking(broker) as other:
        until(lambda: any(p.broker_status.troubles or "name" in str(p.broker_status.trouble) for p in (one, other)))
        until(lambda: "another client uses our name asd-box" in caplog.text)
        for publisher, event in ((one, "a"), (other, "b")):
            publisher.publish_alert("fan", alert(event))
            assert publisher.outbox.wait_empty(PATIENT_S)


def test_quick_ends_make_the_attempts_rarer() -> None:
    with ScriptedBroker(answer=lambda _: Verdict.HANG_UP) as broker, talking(broker, Topics("box", ["fan"])):
        broker.wait_for(lambda b: len(b.connects) >= 5)
        times_s = [at_s for at_s, _, _ in broker.connects]
    assert times_s[4] - times_s[0] > 3.5


def test_client_ids_are_those_of_one_node_and_one_list_of_machines() -> None:
    assert client_id("n", ["x", "y-z"]) != client_id("n", ["x-y", "z"])
    assert client_id("n-x", ["y"]) != client_id("n", ["x", "y"])
    assert client_id("n", ["check"]) != client_id("n", [], "check")
    many = [f"machine-{number}" for number in range(200)]
    assert client_id("n", [*many, "a"]) != client_id("n", [*many, "b"])
    assert client_id("n", ["a", "b"])[-8:] == client_id("n", ["b", "a"])[-8:]
    assert len(client_id("n" * 64, many)) <= 64


def test_broker_that_confirms_nothing_loses_no_alert(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asd_daemon.tell.mqtt.deliveries._CONFIRMS_WITHIN_S", 0.5)
    with ScriptedBroker(answer=on("alert", Verdict.SAY_NOTHING)) as broker, talking(broker) as publisher:
        publisher.publish_alert("fan", alert("a"))
        broker.wait_for(lambda b: len(b.connects) >= 2)
        broker.answer = lambda _: 0
        assert publisher.outbox.wait_empty(PATIENT_S)
