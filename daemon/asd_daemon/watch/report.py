"""What a running daemon can say of each machine, and the interface of those who pass it on: status file, metrics, dead-man ping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from asd_daemon.hear.source import SourceHealth
from asd_daemon.tell.learning_report import LearningReport
from asd_daemon.tell.notifications.notice import NotificationStatus
from asd_daemon.tell.payloads import AboveThreshold, MachineState
from asd_daemon.tell.publisher import BrokerStatus
from asd_daemon.watch.counters import Counts


@dataclass(frozen=True)
class MachineReport:
    """How a machine is at this moment."""

    state: MachineState
    counts: Counts
    source_health: SourceHealth
    above: AboveThreshold | None = None
    """How near an alert is."""
    learning: LearningReport | None = None
    """How far the learning of it is; None where it can't be learned while it is heard."""


@dataclass(frozen=True)
class StoreReport:
    """What the stores hold and have given up."""

    alerts_waiting: int = 0
    """Messages that the broker has not confirmed."""
    alerts_given_up: int = 0
    """Messages that were dropped because too many waited."""
    clips_written: int = 0
    clips_failed: int = 0
    scores_given_up: int = 0
    """Scores that could not be written for too long."""
    alerts_durable: bool = True
    """Whether what waits is on disk; what is in memory only dies with the daemon."""


@dataclass(frozen=True)
class DeliveryReport:
    """How the delivery of alerts gets on, for all machines of a process together."""

    broker_status: BrokerStatus = field(default_factory=BrokerStatus)
    store_report: StoreReport = field(default_factory=StoreReport)
    notifications: NotificationStatus = field(default_factory=NotificationStatus)
    """How telling people gets on."""


DeliveryReports = Callable[[], DeliveryReport]
Reports = Callable[[], Mapping[str, MachineReport]]


class HealthReporter(Protocol):
    """Reports how the running service is, to a file, a monitoring system or a watchdog; it never holds the service up."""

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
