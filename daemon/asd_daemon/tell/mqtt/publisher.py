"""The MQTT side: one connection a process, its topics, its last will, and alerts that wait until the broker has them.

    <prefix>/<node>/availability            online | offline | stopped, retained; offline is the last will
    <prefix>/<node>/<machine>/availability  the same of one machine (docs/decisions/0007)
    <prefix>/<node>/<machine>/state         retained
    <prefix>/<node>/<machine>/score         QoS 0, every window
    <prefix>/<node>/<machine>/alert         QoS 1, in order, one in flight
    <prefix>/<node>/<machine>/command       what people ask for, where the configuration allows it
    homeassistant/device/<id>/config        discovery, retained

A broker's word is not for ever (a killed mosquitto forgets retained messages), so availability, discovery and every state are sent
again on each connect, and alerts that are open as well. All but alerts go with QoS 0: paho repeats unconfirmed QoS 1 messages after a
reconnect, and an old state must not overwrite the present one. The result of paho's publish() is not looked at either: it says "no
connection" for messages that arrive later; only `on_publish` knows.
"""

from __future__ import annotations

import logging
import queue
import ssl
import sys
import threading
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from asd_daemon.errors import BrokerError
from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.tell.commands import Command, parse_command
from asd_daemon.tell.mqtt.connection import CLOSED_SILENTLY, Backoff, BrokerAddress, make_client, why_not_connected
from asd_daemon.tell.mqtt.discovery import discoveries
from asd_daemon.tell.mqtt.node_availability import NodeAvailability
from asd_daemon.tell.mqtt.topics import Topics
from asd_daemon.tell.payloads import (
    NO_DETAILS,
    AlertDetails,
    Availability,
    MachineState,
    PublishedScore,
    alert_payload,
    score_payload,
    state_payload,
    to_json,
)
from asd_daemon.tell.publisher import BrokerStatus
from asd_daemon.tell.storage.outbox import Outbox

_LOG = logging.getLogger(__name__)
_CHECK_OUTBOX, _CONNECTED, _NO_MESSAGE = -1, -2, -3  # no message has such an id
_RETRY_DISK_EVERY_S = 30.0


class MqttPublisher:
    """Publishes to a broker."""

    def __init__(
        self, address: BrokerAddress, topics: Topics, *, outbox: Outbox | None = None, wait_for_broker: bool = False
    ) -> None:
        """Prepare the connection; nothing is sent before `start`.

        Args:
            address: the broker.
            topics: what goes there.
            outbox: where alerts wait for their confirmation.
            wait_for_broker: whether a refusal at the very first attempt is waited out like any later one.

        Raises:
            BrokerError: a certificate file that can't be used.
        """
        self._address, self._topics, self._node, self._base = address, topics, topics.node, topics.base
        self._failed: Callable[[Exception], None] = lambda _: None
        self.on_command: Callable[[str, Command], None] = lambda machine, _: _LOG.warning(
            "%s: takes no commands", machine
        )
        """Called, from the connection's thread, with what people ask for."""
        self.outbox = outbox if outbox is not None else Outbox(machines=topics.machines)
        self.connects = self.refused_commands = 0
        self._open_alerts: dict[str, tuple[AlertEvent, AlertDetails]] = {}  # as they were published last
        self._states: dict[str, MachineState] = {}
        self._lock = threading.Lock()  # guards _states; never held around a QoS 1 publish, see _send_alerts
        self._signals: queue.SimpleQueue[int | None] = queue.SimpleQueue()  # for the alert sender
        self._sender = threading.Thread(target=self._send_alerts, name="tell-alerts", daemon=True)
        self._connected = threading.Event()
        self._waits_out_refusals = wait_for_broker
        self._answered = False  # whether the broker has answered on the connection at hand
        self._last_trouble: str | None = None
        client = make_client(address)
        shared = not topics.owns_node and len(topics.machines) == 1
        will_topic = topics.availability(topics.machines[0]) if shared else topics.availability()
        client.will_set(will_topic, Availability.OFFLINE.value, qos=1, retain=True)
        self._node_availability = NodeAvailability(address, topics.availability()) if shared else None
        self._own_availability = [topics.availability(m) for m in topics.machines] + (
            [] if shared else [topics.availability()]
        )
        self._backoff = Backoff()
        client.on_connect, client.on_connect_fail = self._on_connect, self._on_connect_fail
        client.on_disconnect, client.on_publish = self._on_disconnect, self._on_publish
        client.on_message = self._on_message
        self._client = client

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and has not gone since, as far as we know."""
        return self._connected.is_set()

    @property
    def broker_status(self) -> BrokerStatus:
        """How the connection is."""
        return BrokerStatus(
            str(self._address), self.connected, self.connects, self.refused_commands, self._last_trouble
        )

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for the broker to accept us."""
        return self._connected.wait(timeout_s)

    def start(self, failed: Callable[[Exception], None]) -> None:
        """Connect in the background, again and again until it works; only a refusal at the very first attempt is a failure, if that."""
        self._failed = failed
        self._client.connect_async(self._address.host, self._address.port, keepalive=self._address.keepalive_s)
        self._client.loop_start()
        self._sender.start()
        if self._node_availability is not None:
            self._node_availability.start()

    def publish_state(self, machine: str, state: MachineState) -> None:
        """Publish a machine's state, now or on the next connect."""
        with self._lock:
            self._states[machine] = state
            if self.connected:
                self._send_state(machine, state)

    def publish_score(self, machine: str, score: PublishedScore) -> None:
        """Publish a score, if we are connected."""
        if self.connected:
            payload = to_json(score_payload(self._node, machine, score))
            self._client.publish(f"{self._base}/{machine}/score", payload, qos=0)

    def publish_alert(
        self, machine: str, event: AlertEvent, details: AlertDetails = NO_DETAILS, memory: bytes | None = None
    ) -> None:
        """Keep an alert, and what the alarm knows after it, until the broker confirms it; on disk when this returns."""
        payload = to_json(alert_payload(self._node, machine, event, details))
        topic = f"{self._base}/{machine}/alert"
        self.outbox.put(machine, topic, payload, kind=event.kind, event_id=event.event_id, memory=memory)
        self._remember_open(machine, event, details)
        self._signals.put(_CHECK_OUTBOX)

    def republish_alert(self, machine: str, event: AlertEvent) -> None:
        """An alert was told by an earlier run and is still open."""
        self._remember_open(machine, event, NO_DETAILS)
        if self.connected:  # else it is said when we are
            self._signals.put(_CONNECTED)

    def _remember_open(self, machine: str, event: AlertEvent, details: AlertDetails) -> None:
        with self._lock:
            if event.kind is AlertKind.CLOSE:
                self._open_alerts.pop(machine, None)
            else:
                self._open_alerts[machine] = (event, details)

    def close(self, timeout_s: float) -> None:
        """Wait for the alerts that are on their way, say `stopped`, and leave."""
        if self._node_availability is not None:
            self._node_availability.close()
        if self.connected:
            self.outbox.wait_empty(timeout_s / 2)
            for topic in self._own_availability:
                self._client.publish(topic, Availability.STOPPED.value, qos=0, retain=True)
        if len(self.outbox):
            _LOG.warning(
                "%d alerts were not confirmed by broker %s; %s",
                *(len(self.outbox), self._address),
                "they wait on disk for the next start" if self.outbox.is_durable else "they are lost",
            )
        self._signals.put(None)
        self._client.disconnect()
        # paho's loop_stop joins its thread, which may sit in a connection attempt
        stopper = threading.Thread(target=self._client.loop_stop, name="mqtt-stop", daemon=True)
        stopper.start()
        stopper.join(timeout_s / 2)
        if self._sender.is_alive():
            self._sender.join(1.0)

    def _send_state(self, machine: str, state: MachineState) -> None:
        payload = to_json(state_payload(self._node, machine, state))
        self._client.publish(f"{self._base}/{machine}/state", payload, qos=0, retain=True)

    def _send_alerts(self) -> None:
        """The alert sender's thread: one alert in flight, the next when the broker has confirmed it.

        A thread of its own, because paho confirms while it holds the lock that a QoS 1 publish needs: a lock of ours around
        both would be a deadlock. An alert on its way when the connection breaks is repeated by paho itself.
        """
        message_id, key = _NO_MESSAGE, _NO_MESSAGE
        while (signal := self._next_signal()) is not None:
            if signal == message_id:
                self.outbox.delivered(key)
                message_id = _NO_MESSAGE
            elif signal == _CONNECTED:
                self._repeat_open_alerts()
            alert = self.outbox.first()
            if message_id == _NO_MESSAGE and alert is not None and self.connected:
                message_id, key = self._client.publish(alert.topic, alert.payload, qos=1).mid, alert.key

    def _next_signal(self) -> int | None:
        try:
            return self._signals.get(timeout=_RETRY_DISK_EVERY_S)
        except queue.Empty:
            self.outbox.retry_writing()
            return _CHECK_OUTBOX

    def _repeat_open_alerts(self) -> None:
        """Say again what is open, to whoever has come or was restarted meanwhile; what still waits says it itself."""
        with self._lock:
            still_open = dict(self._open_alerts)
        for machine, (event, details) in still_open.items():
            if not self.outbox.waits_for(machine):
                payload = to_json(alert_payload(self._node, machine, event, details, repeated=True))
                self._client.publish(f"{self._base}/{machine}/alert", payload, qos=0)

    def _on_connect(
        self, client: paho.Client, _data: Any, _flags: paho.ConnectFlags, code: ReasonCode, _more: Properties | None
    ) -> None:
        self._answered = True
        if code.is_failure:
            self._report_failure(
                f"broker {self._address} refuses us: {code}; check username, password and rights", refusal=True
            )
            return
        self._waits_out_refusals, self._last_trouble = True, None
        self._backoff.succeeded()
        self.connects += 1
        if self._topics.takes_commands:
            client.subscribe([(f"{self._base}/{machine}/command", 1) for machine in self._topics.machines])
        with self._lock:
            for topic in self._own_availability:
                client.publish(topic, Availability.ONLINE.value, qos=0, retain=True)
            self._publish_discovery()
            for machine, state in self._states.items():
                self._send_state(machine, state)
            self._connected.set()
        self._signals.put(_CONNECTED)
        _LOG.info("connected to broker %s, %d alerts wait", self._address, len(self.outbox))

    def _publish_discovery(self) -> None:
        """Describe every machine to Home Assistant."""
        for topic, payload in discoveries(self._topics):
            self._client.publish(topic, to_json(payload), qos=0, retain=True)

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        """Pass a command on."""
        machine = message.topic.removeprefix(f"{self._base}/").removesuffix("/command")
        try:
            command = parse_command(bytes(message.payload), retained=message.retain)
        except ValueError as e:
            self.refused_commands += 1
            _LOG.warning("%s: command refused: %s", message.topic, e)
            return
        _LOG.info("%s: asked to %s", machine, command.command.value)
        self.on_command(machine, command)

    def _on_connect_fail(self, client: paho.Client, _data: Any) -> None:
        self._backoff.apply(client)
        # paho calls this while it handles the error but does not pass it on
        error = sys.exc_info()[1]
        trouble = f"broker {self._address} can't be reached: {why_not_connected(error)}"
        self._report_failure(trouble, refusal=isinstance(error, ssl.SSLCertVerificationError))

    def _on_disconnect(
        self, client: paho.Client, _data: Any, _flags: paho.DisconnectFlags, code: ReasonCode, _more: Properties | None
    ) -> None:
        was_connected, was_answered = self.connected, self._answered
        self._connected.clear()
        self._answered = False
        self._backoff.apply(client)
        if was_connected and code.is_failure:
            self._last_trouble = f"connection to broker {self._address} lost ({code})"
            _LOG.warning("%s; trying again, alerts wait", self._last_trouble)
        elif not was_answered and code.is_failure:
            self._report_failure(f"broker {self._address} {CLOSED_SILENTLY}", refusal=False)

    def _on_publish(
        self, _client: paho.Client, _data: Any, message_id: int, _code: ReasonCode, _more: Properties | None
    ) -> None:
        self._signals.put(message_id)

    def _report_failure(self, trouble: str, *, refusal: bool) -> None:
        """Log a trouble when it begins or changes, not at every attempt; a refusal at the very first one is passed on."""
        is_final, is_new = refusal and not self._waits_out_refusals, trouble != self._last_trouble
        self._waits_out_refusals, self._last_trouble = True, trouble
        if is_final:
            self._failed(BrokerError(trouble))
        elif is_new:
            _LOG.warning("%s; trying again, alerts wait", trouble)
