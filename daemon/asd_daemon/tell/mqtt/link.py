"""A broker that is to be had for as long as the process lives: one session after the other, in a thread of its own.

Owns the thread and the order of connecting, being taken, talking, leaving. What is said is its user's business; when to try again, and
in which version of MQTT, is `reconnecting`'s.
"""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable
from typing import Protocol

from asd_daemon.errors import BrokerError
from asd_daemon.tell.mqtt.connection import BrokerAddress, make_client, why_not_connected
from asd_daemon.tell.mqtt.nodes import Nodes
from asd_daemon.tell.mqtt.reconnecting import Attempt, Reconnecting, trouble_of
from asd_daemon.tell.mqtt.session import MQTT_5, Accepted, Ended, Event, Limits, Session, Will

_LOG = logging.getLogger(__name__)
_ANSWER_S = 10.0
_TURN_S = 1.0


class SessionUser(Protocol):
    """Says something over a session; all is called from the link's thread."""

    def accepted(self, session: Session, limits: Limits) -> None:
        """The broker has taken us."""

    def handle(self, session: Session, event: Event) -> None:
        """Something came."""

    def send_waiting(self, session: Session, lived_s: float) -> None:
        """Say what is to be said now; asked after every event and once a second at least."""

    def ended(self, ended: Ended) -> tuple[bool, bool]:
        """The session is over; whether it has brought something forward, and whether a message was on the way."""

    def is_done(self) -> bool:
        """Whether all is said that is worth waiting for when the process stops."""

    def disconnect(self, session: Session) -> None:
        """Say good-bye; the connection is closed after it."""


class Link:
    """One thread, one connection at a time.

    Args:
        address: the broker.
        will: what to leave behind when we are gone without a word.
        user: who talks.
        wait_for_broker: whether a refusal at the very first attempt is waited out like any later one.

    Raises:
        BrokerError: a certificate file that can't be used.
    """

    def __init__(self, address: BrokerAddress, will: Will, user: SessionUser, *, wait_for_broker: bool = False) -> None:
        make_client(address, MQTT_5)  # certificates are looked at now
        self._address, self._will, self._user = address, will, user
        self._failed: Callable[[Exception], None] = lambda _: None
        self._reconnecting, self._nodes = Reconnecting(str(address), address.client_id), Nodes(address)
        self._waits_out_refusals = wait_for_broker
        self._connected = threading.Event()
        self._leaving = threading.Event()
        self._leave_by_s = float("inf")
        self._wake_lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{address.client_id}", daemon=True)
        self._has_begun = False
        self.trouble: str | None = None
        """Why we are not connected, in words."""
        self.protocol: str | None = None
        """The version of MQTT that is spoken, in words; None before the first connection."""
        self.connects = 0

    @property
    def connected(self) -> bool:
        """Whether the broker has taken us and has not gone since, as far as we know."""
        return self._connected.is_set()

    @property
    def node(self) -> str | None:
        """The node of a cluster that was tried last, in words; None where the broker has one address and was given by it."""
        node = self._nodes.last
        return None if node is None or node.address == str(self._address.host) else str(node)

    @property
    def second_client(self) -> str | None:
        """Who uses our name too, in words."""
        return self._reconnecting.second_client

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for the broker to take us."""
        return self._connected.wait(timeout_s)

    def start(self, failed: Callable[[Exception], None]) -> None:
        """Begin to connect, again and again; `failed` hears of a refusal at the very first attempt."""
        self._failed, self._has_begun = failed, True
        self._thread.start()

    def wake(self) -> None:
        """There is something to say; from any thread."""
        with self._wake_lock, contextlib.suppress(BlockingIOError):  # it is woken already
            if self._wake_write >= 0:
                os.write(self._wake_write, b"\0")

    def close(self, timeout_s: float) -> None:
        """Say what waits, and good-bye, within the time; what hangs is left behind."""
        self._leave_by_s = time.monotonic() + timeout_s / 2
        self._leaving.set()
        self.wake()
        if self._has_begun:
            self._thread.join(timeout_s)
        if not self._has_begun or not self._thread.is_alive():
            with self._wake_lock:
                for end in {self._wake_read, self._wake_write} - {-1}:
                    os.close(end)
                self._wake_read = self._wake_write = -1

    def _run(self) -> None:
        while not self._leaving.is_set():
            attempt, trouble, is_refusal = self._attempt()
            if self._leaving.is_set():
                return
            before = self._reconnecting.second_client
            wait_s = self._reconnecting.wait_s(attempt)
            if wait_s > 0:
                self._tell(
                    self._reconnecting.second_client or trouble,
                    is_refusal=is_refusal,
                    is_new=self._reconnecting.second_client != before,
                )
            self._leaving.wait(wait_s)

    def _attempt(self) -> tuple[Attempt, str, bool]:
        """One connection from its beginning to its end; how it went, in words too, and whether that was a refusal."""
        try:
            session = self._nodes.connect(self._reconnecting.protocol, self._will)
        except (OSError, ValueError) as e:
            words = f"broker {self._address} can't be reached: {why_not_connected(e)}"
            return Attempt(_UNREACHED, was_accepted=False), words, isinstance(e, ssl.SSLCertVerificationError)
        except BrokerError as e:  # a certificate file has gone
            return Attempt(_UNREACHED, was_accepted=False), str(e), False
        try:
            attempt = self._converse(session)
        finally:
            self._connected.clear()
            session.close()
        return attempt, trouble_of(str(self._address), attempt), attempt.ended.refused is not None

    def _converse(self, session: Session) -> Attempt:
        asked_s, accepted_s = time.monotonic(), None
        while True:
            events = session.poll(_TURN_S, self._wake_read)
            self._hush()
            now_s = time.monotonic()
            for event in events:
                if isinstance(event, Ended):
                    return self._end(event, accepted_s)
                if isinstance(event, Accepted):
                    accepted_s = now_s
                    self._begin(session, event.limits)
                else:
                    self._user.handle(session, event)
            if accepted_s is None:
                if now_s - asked_s > _ANSWER_S or self._leaving.is_set():
                    return Attempt(Ended(silent=True), was_accepted=False)
                continue
            self._reconnecting.lives(now_s - accepted_s)
            self._user.send_waiting(session, now_s - accepted_s)
            if self._leaving.is_set() and (self._user.is_done() or now_s >= self._leave_by_s):
                self._user.disconnect(session)
                return Attempt(Ended(), was_accepted=True, lived_s=now_s - accepted_s)

    def _begin(self, session: Session, limits: Limits) -> None:
        self._waits_out_refusals, self.trouble = True, None
        self.connects += 1
        self.protocol = "5" if session.protocol is MQTT_5 else "3.1.1"
        self._user.accepted(session, limits)
        self._connected.set()

    def _end(self, ended: Ended, accepted_s: float | None) -> Attempt:
        self._connected.clear()
        if accepted_s is None:
            return Attempt(ended, was_accepted=False)
        had_progress, had_messages = self._user.ended(ended)
        return Attempt(
            ended,
            was_accepted=True,
            lived_s=time.monotonic() - accepted_s,
            made_progress=had_progress,
            had_messages=had_messages,
        )

    def _hush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _tell(self, trouble: str, *, is_refusal: bool, is_new: bool) -> None:
        """Log a trouble when it begins or changes, not at every attempt; a refusal at the very first one is passed on."""
        is_final = is_refusal and not self._waits_out_refusals
        is_new = is_new or trouble != self.trouble
        self._waits_out_refusals, self.trouble = True, trouble
        if is_final:
            self._failed(BrokerError(trouble))
        elif is_new:
            _LOG.warning("%s; trying again, alerts wait", trouble)


_UNREACHED = Ended(refused=None, nonsense="not reached", code=0x88)  # no version of MQTT would help
