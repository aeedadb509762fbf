"""What a broker keeps of ours is cleared when it is ours no more: after a rename, a removal, an end of discovery. With real brokers."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from asd_daemon.tell.mqtt.clearing import clear_machine
from asd_daemon.tell.mqtt.connection import BrokerAddress
from asd_daemon.tell.mqtt.discovery import device_id, discoveries, former_topics
from asd_daemon.tell.mqtt.publisher import MqttPublisher
from asd_daemon.tell.mqtt.topics import Topics
from asd_daemon.tell.payloads import Condition, MachineState, to_json
from asd_daemon.tell.storage.outbox import Outbox
from asd_daemon.tell.storage.retained_topics import Ownership, RetainedTopics, kept_topics
from rig.broker import HOST, Broker, Subscriber, mosquitto
from rig.scripted_broker import ScriptedBroker
from rig.waiting import PATIENT_S

NORMAL = MachineState(Condition.NORMAL, datetime(2026, 1, 31, tzinfo=UTC))
TOPICS = Topics("box", ["fan", "lathe"], discovery_prefix="homeassistant")
_PAUSE = threading.Event()


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    with ScriptedBroker() as running:
        yield running


@contextmanager
def told(broker: ScriptedBroker, file: Path, topics: Topics, **owner: object) -> Iterator[MqttPublisher]:
    """A daemon's connection, all of whose standing messages have arrived."""
    address = BrokerAddress(HOST, broker.port, client_id="asd-box", keepalive_s=60)
    ownership = replace(
        Ownership(str(address), tuple(topics.machines), "asd.yaml", tuple(topics.machines)),
        **owner,  # type: ignore[arg-type]
    )
    outbox = Outbox(file, topics.machines)
    publisher = MqttPublisher(address, topics, outbox=outbox, retained=RetainedTopics(file, ownership))
    for machine in topics.machines:
        publisher.publish_state(machine, NORMAL)
        publisher.publish_about(machine, b"{}")
    seen = len(broker.published)
    publisher.start(lambda error: pytest.fail(str(error)))
    try:
        # the last of all; what is cleared goes before
        ends = f"{topics.machines[-1]}/about"
        broker.wait_for(lambda b: any(m.topic.endswith(ends) and m.payload for m in b.published[seen:]))
        yield publisher
    finally:
        publisher.close(PATIENT_S)
        outbox.close()


def kept(broker: ScriptedBroker) -> set[str]:
    return set(broker.retained)


def until_kept(broker: ScriptedBroker, topics: set[str]) -> None:
    broker.wait_for(lambda b: kept(b) == topics)


def all_of(*machines: str, node: str = "box", discovery: bool = True) -> set[str]:
    found = {f"asd/{node}/availability"}
    for machine in machines:
        found |= {f"asd/{node}/{machine}/{topic}" for topic in ("availability", "state", "about")}
        found |= {f"homeassistant/device/asd_{node}_{machine}/config"} if discovery else set()
    return found


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (replace(TOPICS, machines=["lathe"]), all_of("lathe")),
        (replace(TOPICS, machines=["lathe", "press"]), all_of("lathe", "press")),
        (replace(TOPICS, discovery_prefix=None), all_of("fan", "lathe", discovery=False)),
        (replace(TOPICS, node="other"), all_of("fan", "lathe", node="other")),
    ],
    ids=["removed", "renamed", "no discovery", "another node"],
)
def test_topics_that_are_ours_no_more_are_cleared_on_the_next_connect(
    broker: ScriptedBroker, tmp_path: Path, after: Topics, expected: set[str]
) -> None:
    file = tmp_path / "alerts.sqlite"
    with told(broker, file, TOPICS):
        until_kept(broker, all_of("fan", "lathe"))
    with told(broker, file, after):
        until_kept(broker, expected)
    with told(broker, file, after):  # it is known to be done: nothing is cleared twice
        pass
    assert sum(message.payload == b"" for message in broker.published) == len(all_of("fan", "lathe") - expected)


@pytest.mark.parametrize("owner", [{"owner": "other.yaml"}, {"owner": ""}, {"is_heard": lambda _: True}])
def test_topics_of_other_daemons_of_the_same_state_folder_are_left_alone(
    broker: ScriptedBroker, tmp_path: Path, owner: dict[str, object]
) -> None:
    file = tmp_path / "alerts.sqlite"
    with told(broker, file, replace(TOPICS, machines=["fan"])):
        pass
    with told(broker, file, replace(TOPICS, machines=["lathe"]), **owner):
        until_kept(broker, all_of("fan", "lathe"))
        _PAUSE.wait(0.3)
        assert kept(broker) == all_of("fan", "lathe")


def test_machine_of_the_same_file_that_another_process_hears_is_left_alone(
    broker: ScriptedBroker, tmp_path: Path
) -> None:
    file = tmp_path / "alerts.sqlite"
    with told(broker, file, replace(TOPICS, machines=["fan"]), configured=("fan", "lathe")):
        pass
    with told(broker, file, replace(TOPICS, machines=["lathe"]), configured=("fan", "lathe")):
        until_kept(broker, all_of("fan", "lathe"))


def test_removed_machine_is_cleared_at_once_where_the_broker_is_there(broker: ScriptedBroker, tmp_path: Path) -> None:
    file = tmp_path / "alerts.sqlite"
    with told(broker, file, TOPICS):
        pass
    done = clear_machine(file, "fan", BrokerAddress(HOST, broker.port, "asd-remove"))
    assert set(done.cleared) == all_of("fan") - {"asd/box/availability"}
    assert done.queued == ()
    assert kept(broker) == all_of("lathe")


def test_removed_machine_is_cleared_later_where_the_broker_is_away(broker: ScriptedBroker, tmp_path: Path) -> None:
    file = tmp_path / "alerts.sqlite"
    with told(broker, file, TOPICS):
        pass
    broker.refuses = 0x88
    done = clear_machine(file, "fan", BrokerAddress(HOST, broker.port, "asd-remove"))
    assert done.cleared == ()
    assert len(done.queued) == 4
    assert "not available" in str(done.trouble)
    assert kept(broker) == all_of("fan", "lathe")
    broker.refuses = 0
    # any daemon of this state folder does it, whatever it hears
    with told(broker, file, replace(TOPICS, machines=["lathe"]), owner="other.yaml"):
        until_kept(broker, all_of("lathe"))
    assert list(kept_topics(file, "fan")) == []


def test_running_daemon_clears_a_machine_that_is_removed_meanwhile(
    broker: ScriptedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asd_daemon.tell.mqtt.publisher._TEND_EVERY_S", 0.2)
    file = tmp_path / "alerts.sqlite"
    with told(broker, file, replace(TOPICS, machines=["fan"]), owner="fan.yaml"):
        pass
    with told(broker, file, replace(TOPICS, machines=["lathe"])):
        until_kept(broker, all_of("fan", "lathe"))
        clear_machine(file, "fan")
        until_kept(broker, all_of("lathe"))


def test_machine_that_comes_back_is_kept(broker: ScriptedBroker, tmp_path: Path) -> None:
    file = tmp_path / "alerts.sqlite"
    with told(broker, file, TOPICS):
        pass
    clear_machine(file, "fan")
    with told(broker, file, TOPICS):
        until_kept(broker, all_of("fan", "lathe"))
    with told(broker, file, TOPICS):
        until_kept(broker, all_of("fan", "lathe"))


def test_description_under_a_former_name_is_cleared_only_if_it_is_ours(broker: ScriptedBroker, tmp_path: Path) -> None:
    topics = replace(TOPICS, node="box.b", machines=["fan", "press_1"])
    (former, *others) = former_topics(topics)
    assert former == "homeassistant/device/asd_box_b_fan/config"
    ((_, ours),) = discoveries(replace(topics, machines=["fan"]))
    ((_, another),) = discoveries(replace(topics, node="box", machines=["b_press_1"]))
    broker.retained = {former: to_json(ours), others[0]: to_json(another)}
    with told(broker, tmp_path / "alerts.sqlite", topics):
        broker.wait_for(lambda b: former not in b.retained)
        assert others[0] in broker.retained
        assert f"homeassistant/device/{device_id('box.b', 'fan')}/config" in broker.retained


def test_disk_that_takes_nothing_costs_the_tidying_up_only(broker: ScriptedBroker, tmp_path: Path) -> None:
    blocked = tmp_path / "state"
    blocked.write_text("a file where the folder should be")
    with told(broker, blocked / "alerts.sqlite", TOPICS) as publisher:
        until_kept(broker, all_of("fan", "lathe"))
        assert publisher.connected


def test_table_is_written_only_when_something_is_new(broker: ScriptedBroker, tmp_path: Path) -> None:
    file = tmp_path / "alerts.sqlite"
    with told(broker, file, TOPICS):
        pass
    with sqlite3.connect(file) as database:
        before = database.execute("pragma data_version").fetchone()
        with told(broker, file, TOPICS):
            pass
        assert database.execute("pragma data_version").fetchone() == before
    database.close()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("a.b", "c"), ("a_b", "c")),
        (("a_b", "c"), ("a", "b_c")),
        (("a", "b.c"), ("a", "b_c")),
        (("a.b", "c"), ("a", "b_c")),
    ],
)
def test_no_two_machines_are_one_device(first: tuple[str, str], second: tuple[str, str]) -> None:
    assert device_id(*first) != device_id(*second)


def test_device_that_could_be_one_machine_only_keeps_its_name() -> None:
    assert device_id("line-3", "fan") == "asd_line-3_fan"
    assert device_id("line-3", "press_1") == "asd_line-3_press_1"


@pytest.mark.broker
@pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")
def test_mosquitto_forgets_what_is_cleared(tmp_path: Path) -> None:
    file = tmp_path / "alerts.sqlite"
    with Broker(tmp_path / "broker") as running:
        address = BrokerAddress(HOST, running.port, "asd-box")
        ownership = Ownership(str(address), ("fan",))
        outbox = Outbox(file, ["fan"])
        topics = replace(TOPICS, machines=["fan"])
        publisher = MqttPublisher(address, topics, outbox=outbox, retained=RetainedTopics(file, ownership))
        with Subscriber(running.port) as heard:
            publisher.start(lambda _: None)
            heard.wait_for(lambda m: m.topic.endswith("config"))
        publisher.close(PATIENT_S)
        outbox.close()
        assert len(clear_machine(file, "fan", replace(address, client_id="asd-remove")).cleared) >= 2
        with Subscriber(running.port) as late:
            late.say("end", b"1")
            late.wait_for(lambda m: m.topic == "end")
            assert {m.topic for m in late.messages} == {"end", "asd/box/availability"}
