"""Tells people: takes what happens from the monitors, keeps it, and sends it from threads of its own that no monitor waits for.

Who is told what and when is decided by `following` and `waiting_messages`; what is sent and how, by `message_words` and `sender`.
Without a configuration it does nothing and costs nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from typing import Protocol

from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.tell.notifications.following import Addressed, Following
from asd_daemon.tell.notifications.message_words import message_of
from asd_daemon.tell.notifications.notice import Message, NotificationRules, NotificationStatus
from asd_daemon.tell.notifications.recipients import Recipient
from asd_daemon.tell.notifications.sender import Job, Result, Sender
from asd_daemon.tell.notifications.waiting_messages import Batch, WaitingMessages
from asd_daemon.tell.payloads import AlertDetails, MachineState
from asd_daemon.tell.storage.alert_pictures import AlertPictures
from asd_daemon.tell.storage.waiting_notices import WaitingNotices

_LOG = logging.getLogger(__name__)
_LOOK_EVERY_S = 60.0
"""At least so often: a clock that was set must not make anybody wait for hours."""
_MOST_PROCESSES = 3  # of some 55 MB each; a recipient that hangs keeps one for a minute


@dataclass(frozen=True)
class Telling:
    """Who is told, and by which rules."""

    rules: NotificationRules = field(default_factory=NotificationRules)
    recipients: Sequence[Recipient] = ()
    zone: tzinfo | None = None
    """In which times are told; None: this box's own."""


class Sends(Protocol):
    """Sends jobs, and says what became of each."""

    def send(self, jobs: Sequence[Job], result: Result) -> None:
        """Send all of them; returns when it is known what became of each."""

    def close(self) -> None:
        """End what runs."""


class Notifier:
    """Of all machines of a process; safe from all threads.

    Args:
        node: this box's name.
        items: what waits, on disk.
        pictures: of alerts.
        telling: who is told; None: nobody.
        sender: sends.
        now_s: Unix time.
    """

    def __init__(
        self,
        node: str,
        items: WaitingNotices,
        pictures: AlertPictures,
        telling: Telling | None = None,
        *,
        sender: Sends | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._node, self._items, self._pictures, self._now_s = node, items, pictures, now_s
        self._sender, self._telling = sender or Sender(), telling or Telling()
        self._following = Following(items, lambda: self._telling.rules)
        self._waiting = WaitingMessages(items, lambda: self._telling.rules)
        self._waiting.change_recipients(self._telling.recipients)
        self._is_on = telling is not None
        self._changed = threading.Condition(threading.RLock())
        self._is_started = self._is_closed = False
        self._processes: set[threading.Thread] = set()
        self._thread: threading.Thread | None = None

    @property
    def status(self) -> NotificationStatus:
        """How it gets on."""
        with self._changed:
            if not self._is_on:
                return NotificationStatus()
            is_durable = self._items.write_error is None
            return NotificationStatus(self._waiting.statuses(), self._waiting.given_up, is_durable)

    @property
    def troubles(self) -> tuple[str, ...]:
        """What is wrong, in words; the lines of a machine's troubles, so short and without figures that change."""
        failing = [r for r in self.status.recipients if r.trouble is not None]
        lines = [f"{r.name} is not told: {r.trouble}" for r in failing]
        return (*lines, *filter(None, [self._items.write_error if self._is_on else None]))

    def start(self) -> None:
        """Begin to send; there is no thread before there is something to do."""
        with self._changed:
            self._is_started = True
            self._begin()

    def _begin(self) -> None:
        """Have a thread, where there is something to do or to wait for."""
        with self._changed:
            may_run = self._is_started and self._is_on and not self._is_closed and self._thread is None
            if may_run and self._next_s(self._now_s()) < float("inf"):
                self._thread = threading.Thread(target=self._run, name="tell-people", daemon=True)
                self._thread.start()

    def change(self, telling: Telling | None) -> None:
        """Tell others, or by other rules, from now on; None: nobody."""
        with self._changed:
            self._is_on, self._telling = telling is not None, telling or Telling()
            self._waiting.change_recipients(self._telling.recipients)
            self._items.save()
            self._changed.notify_all()
            self._begin()

    def alert(self, machine: str, event: AlertEvent, details: AlertDetails) -> None:
        """An alert opened, changed or closed; what is to be told of it is on disk when this returns."""
        if not self._is_on:
            return
        if event.kind is AlertKind.OPEN and details.picture is not None and self._telling.rules.pictures:
            self._pictures.put(machine, event.event_id, details.picture.png())
        self._take(lambda now_s: self._following.alert(machine, event, details, now_s))

    def still_open(self, machine: str, event: AlertEvent) -> None:
        """An alert that an earlier run has told is open."""
        if self._is_on:
            with self._changed:
                self._following.still_open(machine, event, self._now_s())
                self._items.save()
                self._begin()

    def state(self, machine: str, state: MachineState) -> None:
        """How a machine is has changed."""
        if self._is_on:
            self._take(lambda now_s: self._following.state(machine, state, now_s))

    def take_up(self, machines: Collection[str]) -> None:
        """Look after further machines too."""
        self._items.take_up(list(machines))

    def let_go(self, machines: Collection[str]) -> None:
        """Look after some machines no more: nobody is told of what they do not hear any more."""
        with self._changed:
            self._following.forget(lambda machine: machine in machines)
            self._items.let_go(list(machines))

    def close(self, timeout_s: float) -> None:
        """Stop sending; what waits is on disk."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            threads = [*self._processes, *([self._thread] if self._thread is not None else [])]
        until_s = time.monotonic() + timeout_s
        for thread in threads:
            thread.join(max(0.0, until_s - time.monotonic()) / 2)
        self._sender.close()
        for thread in threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        self._items.close()

    def look(self) -> float:
        """Send what is to be sent now; seconds until there may be more. Called by its thread, and by tests."""
        with self._changed:
            now_s = self._now_s()
            for addressed in self._following.tick(now_s):
                self._waiting.put(addressed, now_s)
            batches: list[Batch] = []
            if self._is_on and len(self._processes) < _MOST_PROCESSES:
                batches = self._waiting.batches(now_s)
            self._items.save()
            for has_failed in (False, True):
                together = [batch for batch in batches if batch.has_failed is has_failed]
                if together:
                    thread = threading.Thread(target=self._send, args=(together,), name="tell-people-now", daemon=True)
                    self._processes.add(thread)
                    thread.start()
            return min(_LOOK_EVERY_S, max(0.0, self._next_s(now_s) - now_s))

    def _next_s(self, now_s: float) -> float:
        """Unix time at which there is something to do."""
        return min(self._following.next_s(), self._waiting.next_s(now_s))

    def wait_sent(self, timeout_s: float) -> bool:
        """Wait until nothing is on its way; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._processes, timeout_s)

    def _take(self, happened: Callable[[float], list[Addressed]]) -> None:
        with self._changed:
            now_s = self._now_s()
            for addressed in happened(now_s):
                self._waiting.put(addressed, now_s)
            self._items.save()
            self._begin()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._is_closed:
                    return
                try:
                    pause_s = self.look()
                except Exception:  # noqa: BLE001  # the top of a thread: no defect here may end the daemon
                    _LOG.exception("it is not known whom to tell now")
                    pause_s = _LOOK_EVERY_S
                if self._is_closed:
                    return
                is_full = len(self._processes) >= _MOST_PROCESSES
                self._changed.wait(_LOOK_EVERY_S if is_full else max(pause_s, 0.05))

    def _send(self, batches: Sequence[Batch]) -> None:
        """One process's worth, from a thread of its own."""
        unknown = set(range(len(batches)))

        def result(number: int, why: str | None) -> None:
            with self._changed:
                unknown.discard(number)
                if why is None:
                    self._waiting.told(batches[number], self._now_s())
                elif not self._is_closed:
                    self._waiting.failed(batches[number], why, self._now_s())
                self._items.save()

        try:
            self._sender.send([Job(batch.recipient, self._message(batch)) for batch in batches], result)
        except Exception as e:  # noqa: BLE001  # the same: it costs a try
            _LOG.exception("people could not be told")
            for number in tuple(unknown):
                result(number, f"{type(e).__name__}, see the log")
        finally:
            with self._changed:
                self._processes.discard(threading.current_thread())
                self._changed.notify_all()

    def _message(self, batch: Batch) -> Message:
        telling = self._telling
        rules = telling.rules
        shown = [n for n in batch.notices if not n.is_over] if rules.pictures else []
        found = (self._pictures.get(n.machine, n.event_id) for n in shown)
        picture = next((png for png in found if png is not None), None)
        named = [replace(n, machine=rules.of(n.machine).title or n.machine) for n in batch.notices]
        held_back = None
        if batch.is_last_of_the_hour:
            held_back = f"{rules.most_per_hour} messages within an hour: what comes now is gathered into one (notify.most_per_hour)"
        return message_of(
            named, self._node, zone=telling.zone, page_url=rules.page_url, picture=picture, held_back=held_back
        )
