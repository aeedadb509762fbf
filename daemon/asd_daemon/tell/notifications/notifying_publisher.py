"""A publisher beside which people are told too: everything goes to it, alerts and states to the notifier first."""

from __future__ import annotations

import logging
from collections.abc import Callable

from asd_daemon.judge.alarm.alarm import AlertEvent
from asd_daemon.tell.commands import Command
from asd_daemon.tell.notifications.notifier import Notifier
from asd_daemon.tell.payloads import NO_DETAILS, AlertDetails, MachineState, PublishedScore
from asd_daemon.tell.publisher import Publisher

_LOG = logging.getLogger(__name__)
_STOP_S = 0.5


class NotifyingPublisher:
    """Both.

    Args:
        publisher: the broker's, or the one that prints.
        notifier: tells people. It keeps an alert before the publisher does: a crash in between has an alert told twice, never not at all.
    """

    def __init__(self, publisher: Publisher, notifier: Notifier) -> None:
        self._publisher, self._notifier = publisher, notifier

    @property
    def on_command(self) -> Callable[[str, Command], None]:
        """Called with what people ask a machine's alarm for."""
        return self._publisher.on_command

    @on_command.setter
    def on_command(self, called: Callable[[str, Command], None]) -> None:
        self._publisher.on_command = called

    def start(self, failed: Callable[[Exception], None]) -> None:
        """Begin both."""
        self._publisher.start(failed)
        self._notifier.start()

    def publish_state(self, machine: str, state: MachineState) -> None:
        """A machine's state has changed."""
        self._guarded(lambda: self._notifier.state(machine, state))
        self._publisher.publish_state(machine, state)

    def publish_score(self, machine: str, score: PublishedScore) -> None:
        """A window was judged."""
        self._publisher.publish_score(machine, score)

    def publish_alert(
        self, machine: str, event: AlertEvent, details: AlertDetails = NO_DETAILS, memory: bytes | None = None
    ) -> None:
        """An alert opened, changed or closed."""
        self._guarded(lambda: self._notifier.alert(machine, event, details))
        self._publisher.publish_alert(machine, event, details, memory)

    def republish_alert(self, machine: str, event: AlertEvent) -> None:
        """An alert was told by an earlier run of the daemon and is still open."""
        self._guarded(lambda: self._notifier.still_open(machine, event))
        self._publisher.republish_alert(machine, event)

    def close(self, timeout_s: float) -> None:
        """Both; what people were not told yet waits on disk."""
        self._publisher.close(timeout_s)
        self._notifier.close(_STOP_S)

    @staticmethod
    def _guarded(work: Callable[[], None]) -> None:
        """A defect in telling people costs their message: never a window, never the broker's."""
        try:
            work()
        except Exception:  # noqa: BLE001  # the judging thread goes on, whatever it is
            _LOG.exception("what happened can't be told to people")
