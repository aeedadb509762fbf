"""Whoever publishes: the broker where one is configured, else standard output, as JSON lines or as people read it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from asd_daemon.errors import SettingsError
from asd_daemon.run.stores import Stores, outbox_file
from asd_daemon.settings.file import read_password, state_folder
from asd_daemon.settings.keys import Settings
from asd_daemon.settings.plan import Plan
from asd_daemon.tell.storage.machine_locks import is_heard

if TYPE_CHECKING:
    from asd_daemon.tell.commands import Answer, Command
    from asd_daemon.tell.mqtt.connection import BrokerAddress
    from asd_daemon.tell.mqtt.publisher import MqttPublisher
    from asd_daemon.tell.mqtt.topics import Topics
    from asd_daemon.tell.publisher import PrintingPublisher
    from asd_daemon.tell.storage.retained_topics import Ownership
    from asd_daemon.watch.live_view import LiveView

    ProcessPublisher = MqttPublisher | PrintingPublisher


def broker_address(settings: Settings, machines: Sequence[str], purpose: str = "") -> BrokerAddress:
    """The broker, as the connection needs it.

    Args:
        settings: where it is and how it is reached.
        machines: those of the process.
        purpose: what the connection is for, where it is not the usual one.

    Raises:
        SettingsError: the password file can't be read, or there is no broker.
    """
    from asd_daemon.tell.mqtt.connection import BrokerAddress, client_id

    mqtt = settings.mqtt
    if mqtt is None:
        raise SettingsError("mqtt: no broker is configured")
    return BrokerAddress(
        host=mqtt.hosts[0],
        other_hosts=mqtt.hosts[1:],
        port=mqtt.effective_port,
        client_id=client_id(settings.node, machines, purpose),
        tls=mqtt.tls,
        ca_file=mqtt.ca_file,
        cert_file=mqtt.cert_file,
        key_file=mqtt.key_file,
        username=mqtt.username,
        password=read_password(mqtt),
        keepalive_s=mqtt.keepalive_s,
    )


def make_publisher(
    plan: Plan, stores: Stores, *, wait_for_broker: bool = False, view: LiveView | None = None
) -> ProcessPublisher:
    """Whoever tells people: the broker, or lines on standard output where none is configured.

    Args:
        plan: what shall run.
        stores: where alerts wait.
        wait_for_broker: whether a broker that refuses us at the start is waited for.
        view: shows it to people where there is no broker; None: JSON lines.

    Raises:
        SettingsError, BrokerError: password or certificate files that can't be used.
    """
    mqtt, machines = plan.settings.mqtt, list(plan.machines)
    if mqtt is None:
        from asd_daemon.tell.publisher import PrintingPublisher

        if view is None:
            return PrintingPublisher(sys.stdout, plan.settings.node, stores.outbox)
        view.expect(machines)
        return PrintingPublisher(sys.stdout, plan.settings.node, stores.outbox, view.lines)
    from asd_daemon.tell.mqtt.publisher import MqttPublisher
    from asd_daemon.tell.storage.retained_topics import RetainedTopics

    address, topics = broker_address(plan.settings, machines), topics_of(plan)
    retained = RetainedTopics(outbox_file(state_folder()), topics_owner(plan, str(address)))
    return MqttPublisher(address, topics, outbox=stores.outbox, retained=retained, wait_for_broker=wait_for_broker)


def publish_answer(publisher: ProcessPublisher, node: str, machine: str, command: Command, answer: Answer) -> None:
    """Say what came of a command that was given by MQTT."""
    from asd_daemon.tell.payloads import answer_payload, to_json

    publisher.publish_answer(machine, to_json(answer_payload(node, machine, command, answer, datetime.now(UTC))))


def change_topics(publisher: ProcessPublisher, plan: Plan) -> None:
    """Have a publisher speak of the machines of another plan, whose broker, node and prefix are the same."""
    from asd_daemon.tell.publisher import PrintingPublisher

    if isinstance(publisher, PrintingPublisher):  # which has no topics
        return
    publisher.change_topics(topics_of(plan), topics_owner(plan, publisher.broker_status.broker or ""))


def topics_of(plan: Plan) -> Topics:
    """Under which topics a plan is published.

    Raises:
        SettingsError: there is no broker.
    """
    from asd_daemon.tell.mqtt.topics import Topics

    mqtt, machines = plan.settings.mqtt, list(plan.machines)
    if mqtt is None:
        raise SettingsError("mqtt: no broker is configured")
    return Topics(
        node=plan.settings.node,
        machines=machines,
        prefix=mqtt.prefix,
        owns_node=set(machines) >= set(plan.settings.machines),
        discovery_prefix=mqtt.discovery_prefix,
        takes_commands=mqtt.commands,
        has_pictures=mqtt.pictures,
    )


def topics_owner(plan: Plan, broker: str) -> Ownership:
    """Which topics of a broker this process may clear when they are ours no more."""
    from asd_daemon.tell.storage.retained_topics import Ownership

    folder = state_folder()
    return Ownership(
        broker,
        tuple(plan.machines),
        str(plan.file.absolute()) if plan.file else "",
        tuple(plan.settings.machines),
        lambda machine: is_heard(folder, machine),
    )
