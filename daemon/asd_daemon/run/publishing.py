"""Whoever publishes: the broker where one is configured, else JSON lines on standard output."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from asd_daemon.errors import SettingsError
from asd_daemon.run.stores import Stores
from asd_daemon.settings.file import read_password
from asd_daemon.settings.keys import Settings
from asd_daemon.settings.plan import Plan

if TYPE_CHECKING:
    from asd_daemon.tell.mqtt.connection import BrokerAddress
    from asd_daemon.tell.mqtt.publisher import MqttPublisher
    from asd_daemon.tell.publisher import JsonLinesPublisher


def broker_address(settings: Settings, machines: Sequence[str]) -> BrokerAddress:
    """The broker, as the connection needs it.

    Raises:
        SettingsError: the password file can't be read, or there is no broker.
    """
    from asd_daemon.tell.mqtt.connection import BrokerAddress

    mqtt = settings.mqtt
    if mqtt is None:
        raise SettingsError("mqtt: no broker is configured")
    return BrokerAddress(
        host=mqtt.host,
        port=mqtt.effective_port,
        client_id="-".join(["asd", settings.node, *machines])[:128],
        tls=mqtt.tls,
        ca_file=mqtt.ca_file,
        cert_file=mqtt.cert_file,
        key_file=mqtt.key_file,
        username=mqtt.username,
        password=read_password(mqtt),
        keepalive_s=mqtt.keepalive_s,
    )


def make_publisher(plan: Plan, stores: Stores, *, wait_for_broker: bool = False) -> MqttPublisher | JsonLinesPublisher:
    """Whoever tells people: the broker, or lines on standard output where none is configured.

    Args:
        plan: what shall run.
        stores: where alerts wait.
        wait_for_broker: whether a broker that refuses us at the start is waited for.

    Raises:
        SettingsError, BrokerError: password or certificate files that can't be used.
    """
    mqtt, machines = plan.settings.mqtt, list(plan.machines)
    if mqtt is None:
        from asd_daemon.tell.publisher import JsonLinesPublisher

        return JsonLinesPublisher(sys.stdout, plan.settings.node, stores.outbox)
    from asd_daemon.tell.mqtt.publisher import MqttPublisher
    from asd_daemon.tell.mqtt.topics import Topics

    topics = Topics(
        node=plan.settings.node,
        machines=machines,
        prefix=mqtt.prefix,
        owns_node=set(machines) >= set(plan.settings.machines),
        discovery_prefix=mqtt.discovery_prefix,
        takes_commands=mqtt.commands,
    )
    return MqttPublisher(
        broker_address(plan.settings, machines), topics, outbox=stores.outbox, wait_for_broker=wait_for_broker
    )
