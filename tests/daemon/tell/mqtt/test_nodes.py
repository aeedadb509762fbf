"""Which node of a cluster is connected to."""

from __future__ import annotations

import random
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asd_daemon.tell.mqtt.connection import BrokerAddress
from asd_daemon.tell.mqtt.nodes import Node, Nodes, resolve
from asd_daemon.tell.mqtt.publisher import MqttPublisher
from asd_daemon.tell.mqtt.session import MQTT_5, Accepted
from asd_daemon.tell.mqtt.topics import Topics
from asd_daemon.tell.mqtt.trial import try_broker
from rig.broker import HOST, Broker, free_port, mosquitto
from rig.scripted_broker import ScriptedBroker
from rig.waiting import PATIENT_S

PLANT = BrokerAddress("broker.plant", 1883, "us")
V4, V6 = socket.AF_INET, socket.AF_INET6


def three(name: str, port: int) -> Sequence[tuple[int, str]]:
    del name, port
    return [(V4, "10.0.0.1"), (V4, "10.0.0.2"), (V4, "10.0.0.3")]


@contextmanager
def rude(port: int) -> Iterator[list[str]]:
    """A node at 127.0.0.2 that takes every connection and closes it without a word."""
    came: list[str] = []
    with socket.create_server(("127.0.0.2", port)) as server:

        def close() -> None:
            while True:
                try:
                    taken, address = server.accept()
                except OSError:
                    return
                came.append(address[0])
                taken.close()

        threading.Thread(target=close, daemon=True).start()
        yield came
        server.shutdown(socket.SHUT_RDWR)


def test_boxes_begin_at_every_node_alike() -> None:
    first = Counter(Nodes(PLANT, chance=random.Random(box), resolve=three).in_turn()[0].address for box in range(3000))
    assert set(first) == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
    assert all(900 <= count <= 1100 for count in first.values())


def test_attempts_go_on_behind_the_node_that_was_tried_last(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr("asd_daemon.tell.mqtt.session.Session.connect", lambda _, host: tried.append(host))
    nodes = Nodes(PLANT, chance=random.Random(1), resolve=three)
    for _ in range(6):
        nodes.connect(MQTT_5)
    assert set(tried[:3]) == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
    assert tried[3:] == tried[:3]


def test_node_that_can_not_be_reached_costs_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def connect(_: object, host: str) -> None:
        tried.append(host)
        if host != "10.0.0.2":
            raise ConnectionRefusedError

    monkeypatch.setattr("asd_daemon.tell.mqtt.session.Session.connect", connect)
    for box in range(20):
        nodes = Nodes(PLANT, chance=random.Random(box), resolve=three)
        nodes.connect(MQTT_5)
        assert nodes.last == Node("broker.plant", "10.0.0.2")
    assert len(tried) > 20


def test_families_of_addresses_keep_the_order_of_the_system() -> None:
    def both(name: str, port: int) -> Sequence[tuple[int, str]]:
        return [(V6, "fd00::1"), (V6, "fd00::2"), *three(name, port)]

    for box in range(20):
        order = [node.address for node in Nodes(PLANT, chance=random.Random(box), resolve=both).in_turn()]
        assert sorted(order[:2]) == ["fd00::1", "fd00::2"]
        assert len(order) == 5


def test_name_that_is_unknown_hides_no_other_and_is_told_alone() -> None:
    def some(name: str, port: int) -> Sequence[tuple[int, str]]:
        if name == "b":
            return [(V4, "10.0.0.2")]
        raise socket.gaierror(-2, f"Name or service not known: {name}:{port}")

    found = Nodes(replace(PLANT, host="a", other_hosts=("b", "c")), resolve=some).in_turn()
    assert found == [Node("b", "10.0.0.2")]
    with pytest.raises(socket.gaierror, match="c:1883"):
        Nodes(replace(PLANT, host="a", other_hosts=("c",)), resolve=some).in_turn()


def test_name_is_looked_up_anew_for_each_attempt() -> None:
    known = [(V4, "10.0.0.1")]
    nodes = Nodes(PLANT, resolve=lambda *_: known)
    assert [node.address for node in nodes.in_turn()] == ["10.0.0.1"]
    known[:] = [(V4, "10.0.0.7")]
    assert [node.address for node in nodes.in_turn()] == ["10.0.0.7"]


def test_system_is_asked_for_addresses_once_each() -> None:
    assert resolve(HOST, 1883) == [(V4, HOST)]


class InOrder(random.Random):
    """Chance that leaves everything in the order in which it is named."""

    def __init__(self) -> None:
        super().__init__(0)
        self._last = 0.0

    def random(self) -> float:
        self._last += 0.1
        return self._last


@pytest.mark.parametrize("hosts", [("127.0.0.2", HOST), ("broker.plant",)])
def test_box_leaves_a_node_that_takes_connections_and_says_nothing(
    hosts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two names, or one with two addresses."""
    asked = socket.getaddrinfo

    def answer(name: str, port: int, *more: Any, **options: Any) -> Any:
        if name != "broker.plant":
            return asked(name, port, *more, **options)
        return [(V4, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.2", HOST)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    monkeypatch.setattr("asd_daemon.tell.mqtt.nodes.random.Random", InOrder)
    with ScriptedBroker() as broker, rude(broker.port) as came:
        address = BrokerAddress(hosts[0], broker.port, "us", other_hosts=hosts[1:])
        publisher = MqttPublisher(address, Topics("box", ["fan"]), wait_for_broker=True)
        publisher.start(lambda error: pytest.fail(str(error)))
        assert publisher.wait_connected(PATIENT_S)
        publisher.close(PATIENT_S)
    assert len(came) == 1


def test_check_finds_the_node_that_answers() -> None:
    with ScriptedBroker() as broker:
        address = BrokerAddress("127.0.0.3", broker.port, "us", other_hosts=("127.0.0.2", HOST))
        assert try_broker(address, PATIENT_S) == "5"
    with pytest.raises(OSError, match="refused"):
        Nodes(BrokerAddress("127.0.0.3", free_port(), "us", other_hosts=(HOST,))).connect(MQTT_5)


@pytest.mark.broker
@pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")
def test_certificate_must_have_the_name_that_is_configured_whatever_the_address(tmp_path: Path) -> None:
    """It is valid for localhost and 127.0.0.1."""
    with Broker(tmp_path / "broker", tls=True) as broker:
        address = BrokerAddress("localhost", broker.port, "us", tls=True, ca_file=broker.ca_file)

        def here(_name: str, _port: int) -> Sequence[tuple[int, str]]:
            return [(V4, HOST)]

        session = Nodes(address, resolve=here).connect(MQTT_5)
        assert any(isinstance(event, Accepted) for _ in range(600) for event in session.poll(0.2))
        session.close()
        with pytest.raises(ssl.SSLCertVerificationError, match=r"broker\.plant"):
            Nodes(replace(address, host="broker.plant"), resolve=here).connect(MQTT_5)
