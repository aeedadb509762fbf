"""A broker of our own that does what a test tells it: refuse a version, answer with reason codes, hang up on what it dislikes.

It speaks as much of MQTT 3.1.1 and 5 as the daemon uses, keeps retained messages, says last wills and lets a second client of a name
throw the first one out. What a test says of a publish is a `Verdict`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

from rig.waiting import PATIENT_S

HOST = "127.0.0.1"
_TAKEN_OVER = 0x8E
_OTHER_VERSION = 0x84


class Verdict(Enum):
    """What becomes of a publish, beside a reason code."""

    HANG_UP = "hang up"
    SAY_NOTHING = "say nothing"


@dataclass(frozen=True)
class Disconnect:
    """End the connection with a DISCONNECT packet (MQTT 5)."""

    code: int


Answer = int | Verdict | Disconnect


@dataclass(frozen=True)
class Published:
    """One message that came, whatever became of it."""

    client: str
    topic: str
    payload: bytes
    qos: int
    retained: bool
    connection: int
    """The how manieth connection it came on, from 1."""


@dataclass
class _Peer:
    sock: socket.socket
    number: int
    client: str = ""
    version: int = 0
    will: tuple[str, bytes] | None = None
    subscriptions: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, kind: int, body: bytes) -> None:
        with self.lock, contextlib.suppress(OSError):
            self.sock.sendall(bytes([kind]) + _length(len(body)) + body)


class ScriptedBroker:
    """`with ScriptedBroker() as broker:`; what it does can be changed at any time.

    Args:
        versions: of MQTT that it takes: 4 is 3.1.1.
        answer: what becomes of a publish: 0 or another reason code, or worse.
        limits: properties of CONNACK: 0x27 the largest packet, 0x21 how many messages may be on the way.
        refuses: a code for every CONNECT.
    """

    def __init__(
        self,
        *,
        versions: tuple[int, ...] = (4, 5),
        answer: Callable[[Published], Answer] = lambda _: 0,
        limits: Mapping[int, int] | None = None,
        refuses: int = 0,
        slams: tuple[int, ...] = (),
    ) -> None:
        self.versions, self.answer, self.limits, self.refuses, self.slams = (
            versions,
            answer,
            limits or {},
            refuses,
            slams,
        )
        self.published: list[Published] = []
        self.retained: dict[str, bytes] = {}
        self.connects: list[tuple[float, str, int]] = []
        """Time, client and version of every CONNECT."""
        self._arrived = threading.Condition()
        self._peers: dict[str, _Peer] = {}
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="scripted-broker", daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.throw_all_out()
        for thread in self._threads:
            thread.join(PATIENT_S)

    def throw_all_out(self) -> None:
        """Hang up on everybody."""
        for peer in list(self._peers.values()):
            _hang_up(peer)

    def wait_for(self, fits: Callable[[Self], bool], timeout_s: float = PATIENT_S) -> None:
        """Wait until something is true of what has come."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: fits(self), timeout_s), self.published

    def alerts(self) -> list[Published]:
        """What came on topics of alerts."""
        return [message for message in self.published if message.topic.endswith("/alert")]

    def _accept(self) -> None:
        number = 0
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            number += 1
            thread = threading.Thread(target=self._serve, args=(_Peer(sock, number),), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: _Peer) -> None:
        in_order = False
        try:
            with peer.sock.makefile("rb") as stream:
                while (packet := _read(stream)) is not None:
                    kind, body = packet
                    if kind >> 4 == 14:
                        in_order = True
                        break
                    if not self._handle(peer, kind, body):
                        break
        except OSError:
            pass
        finally:
            _hang_up(peer)
            peer.sock.close()
            if self._peers.get(peer.client) is peer:
                del self._peers[peer.client]
            if peer.will is not None and not in_order:
                self._pass_on(peer.will[0], peer.will[1], retained=True)

    def _handle(self, peer: _Peer, kind: int, body: bytes) -> bool:
        """Whether the connection goes on."""
        what = kind >> 4
        if what == 1:
            return self._connect(peer, body)
        if what == 3:
            return self._publish(peer, kind, body)
        if what == 8:
            self._subscribe(peer, body)
        elif what == 12:
            peer.send(0xD0, b"")
        return True

    def _connect(self, peer: _Peer, body: bytes) -> bool:
        peer.version = body[6]
        at = 10
        if peer.version == 5:
            at += 1 + body[at]
        peer.client, at = _text(body, at)
        if body[7] & 0x04:
            if peer.version == 5:
                at += 1 + body[at]
            topic, at = _text(body, at)
            size = struct.unpack_from("!H", body, at)[0]
            peer.will = (topic, body[at + 2 : at + 2 + size])
        with self._arrived:
            self.connects.append((time.monotonic(), peer.client, peer.version))
            self._arrived.notify_all()
        if peer.version in self.slams:
            peer.will = None
            return False
        if peer.version not in self.versions or self.refuses:
            old = self.refuses or 1
            code = (self.refuses or _OTHER_VERSION) if 5 in self.versions else old
            is_new_form = peer.version == 5 and 5 in self.versions
            peer.send(0x20, bytes([0, code]) + (b"\0" if is_new_form else b""))
            peer.will = None
            return False
        before = self._peers.get(peer.client)
        self._peers[peer.client] = peer
        if before is not None:
            if before.version == 5:
                before.send(0xE0, bytes([_TAKEN_OVER, 0]))
            _hang_up(before)
        peer.send(0x20, b"\0\0" + (self._properties() if peer.version == 5 else b""))
        return True

    def _properties(self) -> bytes:
        sizes = {0x27: "!BI", 0x21: "!BH"}
        packed = b"".join(struct.pack(sizes[name], name, value) for name, value in self.limits.items())
        return _length(len(packed)) + packed

    def _publish(self, peer: _Peer, kind: int, body: bytes) -> bool:
        topic, at = _text(body, 0)
        qos, number = (kind >> 1) & 3, b""
        if qos:
            number, at = body[at : at + 2], at + 2
        if peer.version == 5:
            at += 1 + body[at]
        message = Published(peer.client, topic, body[at:], qos, bool(kind & 1), peer.number)
        answer = self.answer(message)
        with self._arrived:
            self.published.append(message)
            self._arrived.notify_all()
        if isinstance(answer, Disconnect):
            peer.send(0xE0, bytes([answer.code, 0]))
        if isinstance(answer, Disconnect) or answer is Verdict.HANG_UP:
            return False
        if answer == 0:
            self._pass_on(topic, message.payload, retained=message.retained)
        if qos and isinstance(answer, int):
            peer.send(0x40, number + (bytes([answer, 0]) if peer.version == 5 and answer else b""))
        return True

    def _pass_on(self, topic: str, payload: bytes, *, retained: bool) -> None:
        if retained and payload:
            self.retained[topic] = payload
        elif retained:
            self.retained.pop(topic, None)
        for peer in list(self._peers.values()):
            if topic in peer.subscriptions:
                self._send_message(peer, topic, payload, retained=False)

    def _subscribe(self, peer: _Peer, body: bytes) -> None:
        at, codes = 2, b""
        if peer.version == 5:
            at += 1 + body[at]
        while at < len(body):
            topic, at = _text(body, at)
            at += 1
            peer.subscriptions.append(topic)
            codes += b"\x01"
        peer.send(0x90, body[:2] + (b"\0" if peer.version == 5 else b"") + codes)
        for topic in peer.subscriptions:
            if topic in self.retained:
                self._send_message(peer, topic, self.retained[topic], retained=True)

    @staticmethod
    def _send_message(peer: _Peer, topic: str, payload: bytes, *, retained: bool) -> None:
        name = topic.encode()
        properties = b"\0" if peer.version == 5 else b""
        peer.send(0x31 if retained else 0x30, struct.pack("!H", len(name)) + name + properties + payload)


def _hang_up(peer: _Peer) -> None:
    with contextlib.suppress(OSError):
        peer.sock.shutdown(socket.SHUT_RDWR)


def _length(value: int) -> bytes:
    packed = b""
    while True:
        value, digit = divmod(value, 128)
        packed += bytes([digit | (0x80 if value else 0)])
        if not value:
            return packed


def _read(stream: object) -> tuple[int, bytes] | None:
    read = stream.read  # type: ignore[attr-defined]
    head = read(1)
    if not head:
        return None
    size = shift = 0
    while True:
        digit = read(1)
        if not digit:
            return None
        size |= (digit[0] & 0x7F) << shift
        shift += 7
        if not digit[0] & 0x80:
            break
    body = read(size)
    return (head[0], body) if len(body) == size else None


def _text(body: bytes, at: int) -> tuple[str, int]:
    size = struct.unpack_from("!H", body, at)[0]
    return body[at + 2 : at + 2 + size].decode(), at + 2 + size
