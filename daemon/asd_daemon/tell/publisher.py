"""Whoever tells people: the interface, and the one that prints where there is no broker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from asd_daemon.judge.alarm.alarm import AlertEvent
from asd_daemon.tell.commands import Command
from asd_daemon.tell.payloads import (
    NO_DETAILS,
    AlertDetails,
    MachineState,
    PublishedScore,
    alert_payload,
    score_payload,
    state_payload,
    to_json,
)
from asd_daemon.tell.storage.outbox import Outbox


@dataclass(frozen=True)
class BrokerStatus:
    """How the way to those who are told is."""

    broker: str | None = None
    """HOST:PORT; None where nobody but standard output is told."""
    connected: bool = False
    connects: int = 0
    """How often the broker has accepted us."""
    refused_commands: int = 0
    """Commands that made no sense."""
    trouble: str | None = None
    """Why we are not connected, in words."""
    troubles: tuple[str, ...] = ()
    """What else is wrong, connected or not: topics that the broker does not take, another client of our name."""
    protocol: str | None = None
    """Version of MQTT, 5 or 3.1.1, on the last connection."""
    refused_alerts: int = 0
    """How often the broker has refused an alert; each of them waits and is tried again."""


class Publisher(Protocol):
    """Takes what is to be told, from any thread, and returns at once."""

    on_command: Callable[[str, Command], None]
    """Called, from any thread, with what people ask a machine's alarm for, where they can."""

    def start(self, failed: Callable[[Exception], None]) -> None:
        """Begin; what is told before is not lost.

        Args:
            failed: called, from any thread, when nobody can ever be told.
        """

    def publish_state(self, machine: str, state: MachineState) -> None:
        """A machine's state has changed."""

    def publish_score(self, machine: str, score: PublishedScore) -> None:
        """A window was judged."""

    def publish_alert(
        self, machine: str, event: AlertEvent, details: AlertDetails = NO_DETAILS, memory: bytes | None = None
    ) -> None:
        """An alert opened, changed or closed.

        Args:
            machine: whose it is.
            event: what happened.
            details: what else there is to tell of it.
            memory: what the monitor knows after it; kept together with the alert, both or none.
        """

    def republish_alert(self, machine: str, event: AlertEvent) -> None:
        """An alert was told by an earlier run of the daemon and is still open."""

    def close(self, timeout_s: float) -> None:
        """Say that we stop, and try to get rid of what waits within the time."""


Form = Callable[[str, dict[str, Any]], Iterable[str]]
"""What kind of message, and its payload → the lines to print."""


def json_line(what: str, payload: dict[str, Any]) -> Iterable[str]:
    """One JSON object, with the topic that it would have gone to."""
    yield to_json({"topic": what, **payload}).decode()


class PrintingPublisher:
    """Prints what is told, from any thread, a message at a time.

    Args:
        out: where.
        node: this box's name.
        outbox: keeps what alarms know.
        form: makes lines of a message.
    """

    def __init__(self, out: TextIO, node: str, outbox: Outbox | None = None, form: Form = json_line) -> None:
        self._out, self._node, self._outbox, self._form = out, node, outbox, form
        self._lock, self._is_read = threading.Lock(), True
        self.on_command: Callable[[str, Command], None] = lambda *_: None  # nobody speaks to a printer
        self.broker_status = BrokerStatus()

    def start(self, failed: Callable[[Exception], None]) -> None:
        """Nothing to do, and nothing that could fail."""

    def publish_state(self, machine: str, state: MachineState) -> None:
        """Print it."""
        self._print("state", state_payload(self._node, machine, state))

    def publish_score(self, machine: str, score: PublishedScore) -> None:
        """Print it."""
        self._print("score", score_payload(self._node, machine, score))

    def publish_alert(
        self, machine: str, event: AlertEvent, details: AlertDetails = NO_DETAILS, memory: bytes | None = None
    ) -> None:
        """Print it."""
        self._print("alert", alert_payload(self._node, machine, event, details))
        if self._outbox is not None and memory is not None:
            self._outbox.remember(machine, memory)

    def republish_alert(self, machine: str, event: AlertEvent) -> None:
        """Print it again."""
        self._print("alert", alert_payload(self._node, machine, event, repeated=True))

    def publish_answer(self, machine: str, payload: bytes) -> None:
        """Nobody gives commands here that would be answered."""

    def publish_about(self, machine: str, payload: bytes) -> None:
        """Nobody here looks after many boxes."""

    def close(self, timeout_s: float) -> None:
        """Nothing waits here, so there is nothing to spend the time on."""

    def _print(self, what: str, payload: dict[str, Any]) -> None:
        with self._lock:
            if self._is_read:
                try:
                    for line in self._form(what, payload):
                        print(line, file=self._out, flush=True)
                except OSError as e:  # a pipe that is closed, a terminal that is gone: said once, so that the rest still stops in order
                    self._is_read = False
                    raise BrokenPipeError(e.errno, "nobody reads what is printed any more") from e
