"""Alerts on their way to the broker, and what the alarms know: on disk before anything is sent, gone when it is confirmed.

One SQLite file (WAL, synchronous=FULL: a commit is on the disk when it returns). All that waits is held in memory too, so a disk that
is full, read-only or broken costs the durability and nothing else: alerts still go out, in order, and are written down as soon as
the disk takes them. A file that is no database any more is set aside under another name, never deleted.

A message that the broker refuses stays, and is asked for again later; others go past it, but for those of the same event, whose order is
kept. When more than `limit` messages wait, the oldest `update` goes first, and where there is none the oldest message; both are counted.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from asd_daemon.judge.alarm.alarm import AlertKind
from asd_daemon.tell.storage import alert_rows
from asd_daemon.tell.storage.alert_rows import WaitingAlert
from asd_daemon.tell.storage.database import is_broken, set_aside
from asd_daemon.tell.storage.refusals import Refusals
from asd_daemon.wording import counted

_LOG = logging.getLogger(__name__)


class Outbox:
    """A bounded queue on disk; safe from several threads, and from several processes of different machines.

    Args:
        file: the database; None keeps everything in memory.
        machines: whose messages and memories this process looks after.
        limit: how many messages may wait.
        now_s: Unix time, for the name under which a broken file is set aside.
    """

    def __init__(
        self,
        file: Path | None = None,
        machines: Sequence[str] = (),
        *,
        limit: int = 10_000,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._is_on_disk = file or Path(), file is not None
        self._machines, self._limit, self._now_s = tuple(machines), limit, now_s
        self._lock = threading.Condition()
        self._alerts: OrderedDict[int, WaitingAlert] = OrderedDict()
        self._memories: dict[str, bytes] = {}
        self._next_key = 1
        self._unsaved: set[int] = set()
        self._undeleted: set[tuple[str, int]] = set()
        self._unsaved_memories: set[str] = set()
        self._database: sqlite3.Connection | None = None
        self._is_loaded = False
        self.write_error: str | None = None
        """Why nothing can be written to disk at present, in words; None where it can."""
        self._refusals = Refusals()
        self.dropped = 0
        """Messages that were given up because too many waited."""
        if self._is_on_disk:
            with self._lock:
                self._guarded(self._load)

    @property
    def is_durable(self) -> bool:
        """Whether what waits is on disk."""
        return self._is_on_disk and self.write_error is None

    def take_up(self, machines: Sequence[str]) -> None:
        """Look after further machines too: what an earlier run has left of them waits with the rest."""
        with self._lock:
            self._machines += tuple(machines)
            if self._is_on_disk and self._is_loaded:  # else the first writing takes over what there is of all
                self._guarded(lambda: self._take_over(self._open(), machines))

    def let_go(self, machines: Sequence[str]) -> None:
        """Leave what is kept of some machines to another process; it stays on disk."""
        with self._lock:
            self._save()
            self._machines = tuple(m for m in self._machines if m not in machines)
            theirs = {key for key, alert in self._alerts.items() if alert.machine in machines}
            for key in theirs - self._unsaved:  # one that could not be written is sent from here
                del self._alerts[key]
                self._refusals.forget(key)
            self._memories = {name: kept for name, kept in self._memories.items() if name not in machines}
            self._unsaved_memories.difference_update(machines)  # given up: they may be another process's by now

    def put(
        self,
        machine: str,
        topic: str,
        payload: bytes,
        *,
        kind: AlertKind,
        event_id: str,
        memory: bytes | None = None,
    ) -> WaitingAlert:
        """Add a message at the end, and what the alarm knows after it, in one transaction; on disk when this returns."""
        with self._lock:
            alert = WaitingAlert(self._next_key, machine, kind, event_id, topic, payload)
            self._next_key, self._alerts[alert.key] = self._next_key + 1, alert
            self._unsaved.add(alert.key)
            if memory is not None:
                self._memories[machine], self._unsaved_memories = memory, self._unsaved_memories | {machine}
            if len(self._alerts) > self._limit:
                self._drop_one()
            self._save()
            return self._alerts.get(alert.key, alert)

    def remember(self, machine: str, memory: bytes) -> None:
        """Keep what a machine's alarm knows."""
        with self._lock:
            if self._memories.get(machine) == memory:
                return
            self._memories[machine] = memory
            self._unsaved_memories.add(machine)
            self._save()

    def memory(self, machine: str) -> bytes | None:
        """What was kept last."""
        with self._lock:
            return self._memories.get(machine)

    def next(self, now_s: float) -> WaitingAlert | None:
        """The one to send now: the oldest that was not refused, else the oldest whose time has come again.

        Args:
            now_s: time.monotonic().
        """
        held: set[str] = set()  # events of which an earlier message was refused
        again = None
        with self._lock:
            for alert in self._alerts.values():
                if alert.event_id in held:
                    continue
                if not self._refusals.is_refused(alert.key):
                    return alert
                held.add(alert.event_id)
                if again is None and self._refusals.may_go(alert.key, now_s):
                    again = alert
            return again

    def refused(
        self, alert: WaitingAlert, why: str, now_s: float, *, is_costly: bool = False, is_of_the_topic: bool = False
    ) -> None:
        """The broker does not take one at present; it stays. The words are those of `Refusals.refused`."""
        with self._lock:
            if alert.key in self._alerts:
                self._refusals.refused(
                    alert.key, alert.topic, why, now_s, is_costly=is_costly, is_of_the_topic=is_of_the_topic
                )

    @property
    def refusals(self) -> Refusals:
        """What the broker refuses; to be looked at, not changed."""
        return self._refusals

    def ask_again(self) -> None:
        """The connection is new, and with it what the broker takes."""
        with self._lock:
            self._refusals.ask_again()

    def refusals_of(self, machine: str) -> tuple[str, ...]:
        """Why a machine's messages are refused, in words."""
        with self._lock:
            if not len(self._refusals):
                return ()
            keys = [alert.key for alert in self._alerts.values() if alert.machine == machine]
            return tuple(f"{topic}: {why}" for topic, why in self._refusals.reasons(keys).items())

    def waits_for(self, machine: str) -> bool:
        """Whether a message of a machine still waits."""
        with self._lock:
            return any(alert.machine == machine for alert in self._alerts.values())

    def delivered(self, key: int) -> None:
        """Forget one that the broker has confirmed."""
        with self._lock:
            alert = self._alerts.pop(key, None)
            if alert is not None:
                if self._refusals.taken(key, alert.topic):
                    _LOG.info("the broker takes %s again", alert.topic)
                self._forget(alert)
                self._save()
            if not self._alerts:
                self._lock.notify_all()

    def retry_writing(self) -> None:
        """Try again to write what could not be written; cheap when there is nothing."""
        with self._lock:
            self._save()

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until none waits."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._alerts, timeout_s)

    def close(self) -> None:
        """Let go of the file; what comes later stays in memory."""
        with self._lock:
            self._save()
            self._close_database()
            self._is_on_disk = False

    def __del__(self) -> None:
        """Whoever drops it has let go of the file too."""
        if hasattr(self, "_database"):
            self._close_database()

    def __len__(self) -> int:
        with self._lock:
            return len(self._alerts)

    def _drop_one(self) -> None:
        updates = (key for key, alert in self._alerts.items() if alert.kind is AlertKind.UPDATE)
        key = next(updates, next(iter(self._alerts)))
        given_up = self._alerts.pop(key)
        self._forget(given_up)
        self.dropped += 1
        _LOG.error("more than %d alerts wait for the broker: the oldest %s is dropped", self._limit, given_up.kind)

    def _forget(self, alert: WaitingAlert) -> None:
        self._undeleted.add((alert.machine, alert.key))
        self._unsaved.discard(alert.key)
        self._refusals.forget(alert.key)

    def _save(self) -> None:
        if self._is_on_disk and (self._unsaved or self._undeleted or self._unsaved_memories or self.write_error):
            self._guarded(self._write)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do something with the disk; what goes wrong becomes `write_error`, and a broken file is set aside once."""
        try:
            try:
                work()
            except sqlite3.DatabaseError as e:
                if not is_broken(e):
                    raise
                self._put_aside(e)
                work()
        except (sqlite3.Error, OSError) as e:
            self._close_database()
            write_error = f"{self._path} can't be written: {e}"
            if self.write_error is None:
                _LOG.error("%s; alerts wait in memory only", write_error)
            self.write_error = write_error
        else:
            if self.write_error is not None:
                _LOG.info("%s can be written again", self._path)
            self.write_error = None

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = alert_rows.open_alerts(self._path)
        return self._database

    def _load(self) -> None:
        """Take over what an earlier run has left; it goes before what came while the disk could not be read."""
        self._take_over(self._open(), self._machines)
        for machine, count in alert_rows.count_others(self._open(), self._machines):
            _LOG.info("%s: %s waiting for a daemon that hears it", machine, counted(count, "alert"))
        self._is_loaded = True

    def _take_over(self, database: sqlite3.Connection, machines: Sequence[str]) -> None:
        left = alert_rows.take_over(database, machines, self._alerts)
        self._alerts = OrderedDict({**left, **self._alerts})
        self._next_key = max([self._next_key, *(key + 1 for key in left)])
        for machine, content in alert_rows.read_memories(database, machines):
            self._memories.setdefault(machine, content)

    def _write(self) -> None:
        """Bring the disk to what is in memory, in one transaction."""
        if not self._is_loaded:
            self._load()
        alert_rows.write(
            self._open(),
            [self._alerts[key] for key in sorted(self._unsaved)],
            list(self._undeleted),
            {machine: self._memories[machine] for machine in self._unsaved_memories},
        )
        self._unsaved.clear()
        self._undeleted.clear()
        self._unsaved_memories.clear()

    def _put_aside(self, error: Exception) -> None:
        """Make room for a fresh file, to which all that is known in memory is written."""
        self._close_database()
        set_aside(self._path, error, self._now_s())
        self._unsaved, self._undeleted = set(self._alerts), set()
        self._unsaved_memories = set(self._memories)

    def _close_database(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
