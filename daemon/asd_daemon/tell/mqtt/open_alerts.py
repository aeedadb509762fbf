"""Alerts that are open, as they were published last, to be said again to whoever has come or was restarted meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Collection

from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.tell.mqtt.message import Kind, Message
from asd_daemon.tell.mqtt.topics import Topics
from asd_daemon.tell.payloads import AlertDetails, alert_payload, to_json
from asd_daemon.tell.storage.outbox import Outbox


class OpenAlerts:
    """Those of all machines; safe from several threads.

    Args:
        outbox: where alerts wait; what waits there says it itself.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._lock = threading.Lock()  # guards the one below
        self._open: dict[str, tuple[AlertEvent, AlertDetails]] = {}

    def note(self, machine: str, event: AlertEvent, details: AlertDetails) -> None:
        """An alert has opened, changed or closed."""
        with self._lock:
            if event.kind is AlertKind.CLOSE:
                self._open.pop(machine, None)
            else:
                self._open[machine] = (event, details)

    def forget_all_but(self, machines: Collection[str]) -> None:
        """Others are not heard any more."""
        with self._lock:
            self._open = {machine: alert for machine, alert in self._open.items() if machine in machines}

    def repeated(self, topics: Topics, only: str | None = None) -> list[Message]:
        """The messages that say them again, of all machines or of one."""
        with self._lock:
            still_open = dict(self._open)
        said = {
            machine: to_json(alert_payload(topics.node, machine, event, details, repeated=True))
            for machine, (event, details) in still_open.items()
            if only in (None, machine) and not self._outbox.waits_for(machine)
        }
        return [Message(Kind.REPEATED, f"{topics.base}/{m}/alert", payload, m) for m, payload in said.items()]
