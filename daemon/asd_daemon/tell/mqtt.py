"""The MQTT side: one connection a process, its topics, its last will, and alerts that wait until the broker has them.

    <prefix>/<node>/availability          online | offline | stopped, retained; offline is the last will
    <prefix>/<node>/<machine>/state       retained
    <prefix>/<node>/<machine>/score       QoS 0, every window
    <prefix>/<node>/<machine>/alert       QoS 1, in order, one in flight

A broker's word is not for ever (a killed mosquitto forgets retained messages), so availability and every state are sent again on
each connect. They go with QoS 0: paho repeats unconfirmed QoS 1 messages after a reconnect, and an old state must not overwrite
the present one. The result of paho's publish() is not looked at either: it says "no connection" for messages that arrive later;
only `on_publish` knows. Home Assistant and the store on disk come here later.
"""

from __future__ import annotations

import logging
import queue
import random
import ssl
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from asd_daemon.errors import BrokerError
from asd_daemon.judge.alarm import AlertEvent
from asd_daemon.tell.messages import (
    Availability,
    MachineState,
    ScoreTold,
    alert_payload,
    score_payload,
    state_payload,
    to_json,
)
from asd_daemon.tell.waiting import WaitingAlerts

_LOG = logging.getLogger(__name__)
_RETRY_LEAST_S, _RETRY_MOST_S = 1, 60
_CONNECT_TIMEOUT_S = 5.0
_LOOK, _NONE = -1, -2  # no message has such an id


@dataclass(frozen=True)
class BrokerAddress:
    """Where the broker is and how it knows us."""

    host: str
    port: int
    client_id: str
    tls: bool = False
    ca_file: Path | None = None
    """The authorities to trust; None for those of the system."""
    cert_file: Path | None = None
    """Our own certificate, where the broker asks for one."""
    key_file: Path | None = None
    username: str | None = None
    password: str | None = None
    keepalive_s: int = 15
    """A broker that falls silent is noticed after about one and a half times this."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class _TidySocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho leaves that to the garbage collector, one descriptor an attempt."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands."""
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def make_client(address: BrokerAddress) -> paho.Client:
    """A client ready to connect, certificates checked where TLS is on.

    Raises:
        BrokerError: a certificate file that can't be used.
    """
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=address.client_id, protocol=paho.MQTTv311)
    client.connect_timeout = _CONNECT_TIMEOUT_S
    if address.username is not None:
        client.username_pw_set(address.username, address.password)
    if address.tls:
        try:
            context = ssl.create_default_context(cafile=str(address.ca_file) if address.ca_file else None)
            context.sslsocket_class = _TidySocket
            if address.cert_file is not None:
                context.load_cert_chain(address.cert_file, address.key_file)
        except (OSError, ssl.SSLError) as e:
            files = ", ".join(str(f) for f in (address.ca_file, address.cert_file, address.key_file) if f)
            raise BrokerError(f"broker {address}: a certificate file can't be used ({files}): {e}") from e
        client.tls_set_context(context)
    return client


def why_not_connected(error: BaseException | None) -> str:
    """A failed attempt in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails: {error.reason or error}"
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if error else "no connection"


class MqttTeller:
    """Tells a broker."""

    def __init__(
        self,
        address: BrokerAddress,
        *,
        node: str,
        prefix: str = "asd",
        waiting: WaitingAlerts | None = None,
    ) -> None:
        """Prepare the connection; nothing is sent before `start`.

        Args:
            address: the broker.
            node: this box's name in the topics.
            prefix: the first part of all topics.
            waiting: where alerts wait for their confirmation.

        Raises:
            BrokerError: a certificate file that can't be used.
        """
        self._address, self._node, self._base = address, node, f"{prefix}/{node}"
        self._failed: Callable[[Exception], None] = lambda _: None
        self.waiting = waiting if waiting is not None else WaitingAlerts()
        self.connects = 0
        self._states: dict[str, MachineState] = {}
        self._lock = threading.Lock()  # guards _states; never held around a QoS 1 publish, see _send_alerts
        self._words: queue.SimpleQueue[int | None] = queue.SimpleQueue()  # for the alert sender
        self._sender = threading.Thread(target=self._send_alerts, name="tell-alerts", daemon=True)
        self._connected = threading.Event()
        self._tried = False  # whether the first attempt to connect is over
        self._last_trouble: str | None = None
        client = make_client(address)
        client.will_set(self._availability_topic, Availability.OFFLINE.value, qos=1, retain=True)
        # Boxes that lose a broker together must not all come back in the same second
        client.reconnect_delay_set(_RETRY_LEAST_S + random.randint(0, 2), _RETRY_MOST_S)  # noqa: S311
        client.on_connect, client.on_connect_fail = self._on_connect, self._on_connect_fail
        client.on_disconnect, client.on_publish = self._on_disconnect, self._on_publish
        self._client = client

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and has not gone since, as far as we know."""
        return self._connected.is_set()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for the broker to accept us."""
        return self._connected.wait(timeout_s)

    def start(self, failed: Callable[[Exception], None]) -> None:
        """Connect in the background, again and again until it works; only a refusal at the very first attempt is a failure."""
        self._failed = failed
        self._client.connect_async(self._address.host, self._address.port, keepalive=self._address.keepalive_s)
        self._client.loop_start()
        self._sender.start()

    def state(self, machine: str, state: MachineState) -> None:
        """Publish a machine's state, now or on the next connect."""
        with self._lock:
            self._states[machine] = state
            if self.connected:
                self._publish_state(machine, state)

    def score(self, machine: str, told: ScoreTold) -> None:
        """Publish a score if there is someone to hear it."""
        if self.connected:
            payload = to_json(score_payload(self._node, machine, told))
            self._client.publish(f"{self._base}/{machine}/score", payload, qos=0)

    def alert(self, machine: str, event: AlertEvent) -> None:
        """Keep an alert until the broker confirms it."""
        self.waiting.put(f"{self._base}/{machine}/alert", to_json(alert_payload(self._node, machine, event)))
        self._words.put(_LOOK)

    def close(self, timeout_s: float) -> None:
        """Wait for the alerts that are on their way, say `stopped`, and leave."""
        if self.connected:
            self.waiting.wait_empty(timeout_s / 2)
            self._client.publish(self._availability_topic, Availability.STOPPED.value, qos=0, retain=True)
        if len(self.waiting):
            _LOG.error("%d alerts were not confirmed by broker %s and are lost", len(self.waiting), self._address)
        self._words.put(None)
        self._client.disconnect()
        # paho's loop_stop joins its thread, which may sit in a connection attempt
        stopper = threading.Thread(target=self._client.loop_stop, name="mqtt-stop", daemon=True)
        stopper.start()
        stopper.join(timeout_s / 2)

    @property
    def _availability_topic(self) -> str:
        return f"{self._base}/availability"

    def _publish_state(self, machine: str, state: MachineState) -> None:
        payload = to_json(state_payload(self._node, machine, state))
        self._client.publish(f"{self._base}/{machine}/state", payload, qos=0, retain=True)

    def _send_alerts(self) -> None:
        """The alert sender's life: one alert on its way at a time, the next when the broker has confirmed it.

        A thread of its own, because paho confirms while it holds the lock that a QoS 1 publish needs: a lock of ours around
        both would be a deadlock. An alert on its way when the connection breaks is repeated by paho itself.
        """
        message_id, key = _NONE, _NONE
        while (word := self._words.get()) is not None:
            if word == message_id:
                self.waiting.delivered(key)
                message_id = _NONE
            alert = self.waiting.first()
            if message_id == _NONE and alert is not None and self.connected:
                message_id, key = self._client.publish(alert.topic, alert.payload, qos=1).mid, alert.key

    def _on_connect(
        self, client: paho.Client, _data: Any, _flags: paho.ConnectFlags, code: ReasonCode, _more: Properties | None
    ) -> None:
        if code.is_failure:
            self._in_trouble(
                f"broker {self._address} refuses us: {code}; check username, password and rights", refusal=True
            )
            return
        self._tried, self._last_trouble = True, None
        self.connects += 1
        with self._lock:
            client.publish(self._availability_topic, Availability.ONLINE.value, qos=0, retain=True)
            for machine, state in self._states.items():
                self._publish_state(machine, state)
            self._connected.set()
        self._words.put(_LOOK)
        _LOG.info("connected to broker %s, %d alerts wait", self._address, len(self.waiting))

    def _on_connect_fail(self, _client: paho.Client, _data: Any) -> None:
        # paho calls this while it handles the error but does not pass it on
        error = sys.exc_info()[1]
        trouble = f"broker {self._address} can't be reached: {why_not_connected(error)}"
        self._in_trouble(trouble, refusal=isinstance(error, ssl.SSLCertVerificationError))

    def _on_disconnect(
        self, _client: paho.Client, _data: Any, _flags: paho.DisconnectFlags, code: ReasonCode, _more: Properties | None
    ) -> None:
        was_connected = self.connected
        self._connected.clear()
        if was_connected and code.is_failure:
            _LOG.warning("connection to broker %s lost (%s); trying again, alerts wait", self._address, code)

    def _on_publish(
        self, _client: paho.Client, _data: Any, message_id: int, _code: ReasonCode, _more: Properties | None
    ) -> None:
        self._words.put(message_id)

    def _in_trouble(self, trouble: str, *, refusal: bool) -> None:
        """Log a trouble when it begins or changes, not at every attempt; a refusal at the very first one is passed on."""
        if refusal and not self._tried:
            self._failed(BrokerError(trouble))
        elif trouble != self._last_trouble:
            _LOG.warning("%s; trying again, alerts wait", trouble)
        self._tried, self._last_trouble = True, trouble


def try_broker(address: BrokerAddress, timeout_s: float = _CONNECT_TIMEOUT_S) -> None:
    """Connect once and leave.

    Raises:
        BrokerError: it can't be reached, or refuses.
    """
    client = make_client(address)
    verdicts: list[ReasonCode] = []
    answered = threading.Event()

    def note(_client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _more: Any) -> None:
        verdicts.append(code)
        answered.set()

    client.on_connect = note
    try:
        client.connect(address.host, address.port, keepalive=address.keepalive_s)
    except (OSError, ValueError) as e:
        raise BrokerError(f"broker {address} can't be reached: {why_not_connected(e)}") from e
    client.loop_start()
    try:
        if not answered.wait(timeout_s):
            raise BrokerError(f"broker {address} does not answer in {timeout_s:g} s")
    finally:
        client.disconnect()
        client.loop_stop()
    if verdicts[0].is_failure:
        raise BrokerError(f"broker {address} refuses us: {verdicts[0]}; check username, password and rights")
