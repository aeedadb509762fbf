"""What a running daemon can say of each machine, and the interface of those who pass it on: status file, metrics, dead-man ping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from asd_daemon.hear.source import Vitals
from asd_daemon.tell.payloads import MachineState
from asd_daemon.tell.publisher import Contact
from asd_daemon.watch.counters import Counts


@dataclass(frozen=True)
class MachineReport:
    """How a machine and the way to it are at this moment."""

    state: MachineState
    counts: Counts
    vitals: Vitals


@dataclass(frozen=True)
class Stock:
    """What the stores hold and have given up."""

    alerts_waiting: int = 0
    """Messages that the broker has not confirmed."""
    alerts_given_up: int = 0
    """Messages that were dropped because too many waited."""
    clips_written: int = 0
    clips_failed: int = 0
    scores_given_up: int = 0
    """Scores that could not be written for too long."""


@dataclass(frozen=True)
class TellingReport:
    """How what is told and kept gets on, for all machines of a process together."""

    contact: Contact = field(default_factory=Contact)
    stock: Stock = field(default_factory=Stock)


Telling = Callable[[], TellingReport]
Reports = Callable[[], Mapping[str, MachineReport]]


class Attendant(Protocol):
    """Looks on while the service runs and tells somebody; it never holds the service up."""

    def start(self, reports: Reports) -> None:
        """Begin.

        Args:
            reports: gives the machines' reports, from any thread.

        Raises:
            CannotStartError: it can't do what it was asked for.
        """

    def progressed(self) -> None:
        """A window, or the lack of one, went all the way; from any thread."""

    def close(self) -> None:
        """End within a second or so."""
