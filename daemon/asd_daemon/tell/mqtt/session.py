"""One connection to a broker, from CONNECT to its end; one thread uses it, and hears of everything as an event.

Owns the network loop of the MQTT library and what the broker has said of its limits. It decides nothing: what is published, what an end
means and when to try again is for others.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from asd_daemon.tell.mqtt.connection import BrokerAddress, make_client

MQTT_5, MQTT_3 = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
_WINDOW = 16  # messages on the way; brokers allow 20 and more
_SHORT_HEADER_BYTES, _LENGTH_BYTES = 1, 4


@dataclass(frozen=True)
class Will:
    """What the broker says when we are gone without a word; retained, QoS 1."""

    topic: str
    payload: str


@dataclass(frozen=True)
class Limits:
    """What the broker takes."""

    packet_bytes: int | None = None
    """Largest packet; None where it has not said."""
    window: int = _WINDOW
    """How many messages may be on the way."""

    def takes(self, topic: str, payload: bytes) -> bool:
        """Whether a message of QoS 1 is small enough."""
        return self.packet_bytes is None or packet_bytes(topic, payload) <= self.packet_bytes


@dataclass(frozen=True)
class Accepted:
    """The broker takes us."""

    limits: Limits


@dataclass(frozen=True)
class Confirmed:
    """The broker has said yes or no to a message."""

    message_id: int
    code: int
    detail: str = ""
    """What the broker adds in words."""


@dataclass(frozen=True)
class Subscribed:
    """The broker has said yes or no to subscriptions, in their order."""

    message_id: int
    codes: tuple[int, ...]


@dataclass(frozen=True)
class Heard:
    """A message for us."""

    topic: str
    payload: bytes
    retained: bool


@dataclass(frozen=True)
class Ended:
    """The connection is over."""

    refused: int | None = None
    """The code with which the broker has refused us."""
    code: int | None = None
    """The code with which it has ended the connection; None where it said nothing."""
    detail: str = ""
    """What it adds in words."""
    silent: bool = False
    """We have ended it, since the broker gave no sign of life."""
    nonsense: str | None = None
    """What came was not MQTT of this version."""


Event = Accepted | Confirmed | Subscribed | Heard | Ended


def packet_bytes(topic: str, payload: bytes) -> int:
    """Length of a PUBLISH of QoS 1 in MQTT 5 without properties, at most."""
    return _SHORT_HEADER_BYTES + _LENGTH_BYTES + 2 + len(topic.encode()) + 2 + 1 + len(payload)


class Session:
    """One connection.

    Args:
        address: the broker.
        protocol: the version of MQTT to speak.
        will: what to leave behind.
        server_name: the name that its certificate must have; None: the one that is connected to.

    Raises:
        BrokerError: a certificate file that can't be used.
    """

    def __init__(
        self,
        address: BrokerAddress,
        protocol: MQTTProtocolVersion,
        will: Will | None = None,
        *,
        server_name: str | None = None,
    ) -> None:
        self.address, self.protocol = address, protocol
        self._events: list[Event] = []
        self._accepted = self._ended = False
        client = make_client(address, protocol, server_name)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish, client.on_subscribe, client.on_message = (
            self._on_publish,
            self._on_subscribe,
            self._on_message,
        )
        self._client = client

    def connect(self, host: str | None = None) -> None:
        """Reach the broker, or that node of it, and ask to be taken.

        Raises:
            OSError, ValueError: it can't be reached.
        """
        self._client.connect(host or self.address.host, self.address.port, keepalive=self.address.keepalive_s)

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended."""
        return self._ended

    @property
    def is_accepted(self) -> bool:
        """Whether the broker has taken us, and has not gone since."""
        return self._accepted and not self._ended

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> int:
        """Send a message; the number by which it will be confirmed."""
        return self._client.publish(topic, payload, qos=qos, retain=retain).mid

    def subscribe(self, topics: Sequence[str]) -> int | None:
        """Ask for topics; the number by which that will be answered."""
        return self._client.subscribe([(topic, 1) for topic in topics])[1]

    def poll(self, timeout_s: float, wake: int | None = None) -> list[Event]:
        """Do what the network wants, and wait for events: for so many seconds, or until a descriptor can be read."""
        self._turn(timeout_s, wake)
        events, self._events = self._events, []
        return events

    def close(self, timeout_s: float = 1.0) -> None:
        """Say good-bye, wait until the broker has read it and hangs up, and hang up.

        The library closes the socket behind its DISCONNECT. Where something has come that was not read, the kernel resets the connection
        then, and a broker that finds it reset may read no further: the last messages are lost, and the last will is published.
        """
        deadline_s = time.monotonic() + timeout_s
        with contextlib.suppress(OSError, ValueError):
            sock: Any = self._client.socket()
            if sock is not None and self._client.is_connected():
                with socket.socket(fileno=os.dup(sock.fileno())) as kept_open:
                    self._client.disconnect()
                    while self._client.want_write() and not self._ended and time.monotonic() < deadline_s:
                        self._turn(0.1, None)
                    _read_to_the_end(kept_open, deadline_s)
        self.hang_up()

    def give_up(self, why: str) -> None:
        """End the connection because of something that the broker does; the next event says so."""
        self._end(Ended(nonsense=why))
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connection without a word; the last will is said."""
        sock = self._client.socket()
        self._ended = True
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()

    def _turn(self, timeout_s: float, wake: int | None) -> None:
        sock: Any = self._client.socket()
        if sock is None or self._ended:
            self._end(Ended())
            return
        waits = self._client.want_write()
        ready = select.poll()
        ready.register(sock.fileno(), select.POLLIN | (select.POLLOUT if waits else 0))
        if wake is not None:
            ready.register(wake, select.POLLIN)
        has_more = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        found = dict(ready.poll(0 if has_more or self._events else timeout_s * 1000))
        here = found.get(sock.fileno(), 0)
        try:
            if here & ~select.POLLOUT or has_more:
                self._client.loop_read()
            if here & select.POLLOUT:
                self._client.loop_write()
            self._client.loop_misc()
        except Exception as e:  # noqa: BLE001  # the library raises whatever its parser meets; our own callbacks only take notes
            self.give_up(f"{type(e).__name__}: {e}")

    def _end(self, ended: Ended) -> None:
        if not self._ended:
            self._ended = True
            self._events.append(ended)

    def _on_connect(self, _client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, more: Any) -> None:
        if code.is_failure:
            self._end(Ended(refused=code.value, detail=_detail(more)))
            return
        self._accepted = True
        window = min(_WINDOW, getattr(more, "ReceiveMaximum", _WINDOW))
        self._events.append(Accepted(Limits(getattr(more, "MaximumPacketSize", None), max(1, window))))

    def _on_disconnect(self, _client: paho.Client, _data: Any, flags: Any, code: ReasonCode, more: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._end(Ended(code=code.value or None, detail=_detail(more)))  # 0 is no reason
        elif code.value == paho.convert_disconnect_error_code_to_reason_code(MQTTErrorCode.MQTT_ERR_KEEPALIVE).value:
            self._end(Ended(silent=True))
        elif code.value == paho.convert_disconnect_error_code_to_reason_code(MQTTErrorCode.MQTT_ERR_PROTOCOL).value:
            self._end(Ended(nonsense="an answer that is none"))
        else:
            self._end(Ended())

    def _on_publish(self, _client: paho.Client, _data: Any, message_id: int, code: ReasonCode, more: Any) -> None:
        self._events.append(Confirmed(message_id, code.value, _detail(more)))

    def _on_subscribe(self, _client: paho.Client, _data: Any, message_id: int, codes: Any, _more: Any) -> None:
        self._events.append(Subscribed(message_id, tuple(code.value for code in codes)))

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        try:
            self._events.append(Heard(message.topic, bytes(message.payload), message.retain))
        except UnicodeDecodeError:  # a topic that is no text is none of ours
            return


def _read_to_the_end(sock: socket.socket, deadline_s: float) -> None:
    """Read and forget what still comes, until the other side hangs up too; what is read may be encrypted."""
    sock.shutdown(socket.SHUT_WR)
    while (left_s := deadline_s - time.monotonic()) > 0:
        sock.settimeout(left_s)
        if not sock.recv(1 << 16):
            return


def _detail(more: Properties | None) -> str:
    return " ".join(str(getattr(more, "ReasonString", "")).split())
