"""One connection to a broker, up to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from asd_daemon.tell.mqtt.connection import BrokerAddress
from asd_daemon.tell.mqtt.session import MQTT_3, MQTT_5, Accepted, Session, Will
from rig.broker import HOST, Broker, Subscriber, mosquitto

pytestmark = [pytest.mark.broker, pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")]


@pytest.mark.parametrize("protocol", [MQTT_5, MQTT_3])
@pytest.mark.parametrize("tls", [False, True])
def test_last_messages_arrive_and_no_will_where_we_leave_with_messages_unread(
    tmp_path: Path, protocol: MQTTProtocolVersion, tls: bool
) -> None:
    count = 20
    with Broker(tmp_path / "broker", tls=tls) as broker:
        trust: dict[str, Any] = {"ca_file": broker.ca_file} if tls else {}
        address = BrokerAddress(HOST, broker.port, client_id="us", tls=tls, **trust)
        with Subscriber(broker.port, "said/#", **trust) as heard:
            for number in range(count):
                session = Session(address, protocol, Will("said/will", "offline"))
                session.connect()
                while not any(isinstance(event, Accepted) for event in session.poll(5)):
                    assert not session.is_over
                session.subscribe(["echo"])
                for _ in range(20):
                    session.publish("echo", b"x" * 1000, qos=0, retain=False)
                session.publish("said/last", str(number).encode(), qos=0, retain=False)
                session.close()
            heard.wait_for(lambda m: m.topic == "said/last" and str(m.payload) == str(count - 1))
            assert [str(m.payload) for m in heard.messages] == [str(number) for number in range(count)]
