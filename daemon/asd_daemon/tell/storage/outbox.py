"""Alerts on their way to the broker, and what the alarms know: on disk before anything is sent, gone when it is confirmed.

One SQLite file (WAL, synchronous=FULL: a commit is on the disk when it returns). All that waits is held in memory too, so a disk that
is full, read-only or broken costs the durability and nothing else: alerts still go out, in order, and are written down as soon as
the disk takes them. A file that is no database any more is set aside under another name, never deleted.

When more than `limit` messages wait, the oldest `update` goes first, and where there is none the oldest message; both are counted.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asd_daemon.errors import UsageError
from asd_daemon.judge.alarm.alarm import AlertKind
from asd_daemon.tell.storage.database import is_broken, open_database, set_aside

_LOG = logging.getLogger(__name__)
_VERSION = 1
_TABLES = """
create table if not exists waiting (
    machine text not null, key integer not null,
    kind text not null, event_id text not null, topic text not null, payload blob not null,
    primary key (machine, key)
) without rowid;
create table if not exists memory (machine text primary key, content blob not null);
"""


def read_kept_memory(file: Path, machine: str) -> bytes | None:
    """What a machine's alarm knew when it was last written down; nothing is made or changed.

    Raises:
        UsageError: the file can't be read.
    """
    if not file.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            row = database.execute("select content from memory where machine = ?", (machine,)).fetchone()
    except sqlite3.Error as e:
        raise UsageError(f"{file}: can't be read: {e}") from e
    return None if row is None else bytes(row[0])


@dataclass(frozen=True)
class WaitingAlert:
    """One message that must arrive."""

    key: int
    """Its place in the order."""
    machine: str
    kind: AlertKind
    event_id: str
    topic: str
    payload: bytes


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
        self._write_error: str | None = None
        self.dropped = 0
        """Messages that were given up because too many waited."""
        self.set_aside = 0
        """Broken files."""
        if self._is_on_disk:
            with self._lock:
                self._guarded(self._load)

    @property
    def write_error(self) -> str | None:
        """Why nothing can be written to disk at present, in words; None where it can."""
        return self._write_error

    @property
    def is_durable(self) -> bool:
        """Whether what waits is on disk."""
        return self._is_on_disk and self._write_error is None

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
            self._next_key += 1
            self._alerts[alert.key] = alert
            self._unsaved.add(alert.key)
            if memory is not None:
                self._memories[machine] = memory
                self._unsaved_memories.add(machine)
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

    def first(self) -> WaitingAlert | None:
        """The oldest that still waits."""
        with self._lock:
            return next(iter(self._alerts.values()), None)

    def waits_for(self, machine: str) -> bool:
        """Whether a message of a machine still waits."""
        with self._lock:
            return any(alert.machine == machine for alert in self._alerts.values())

    def delivered(self, key: int) -> None:
        """Forget one that the broker has confirmed."""
        with self._lock:
            alert = self._alerts.pop(key, None)
            if alert is not None:
                self._forget(alert)
                self._save()
            if not self._alerts:
                self._lock.notify_all()

    def retry_writing(self) -> None:
        """Try again to write what could not be written; cheap when there is nothing."""
        with self._lock:
            if self._write_error is not None:
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

    def _save(self) -> None:
        if self._is_on_disk and (self._unsaved or self._undeleted or self._unsaved_memories or self._write_error):
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
            if self._write_error is None:
                _LOG.error("%s; alerts wait in memory only", write_error)
            self._write_error = write_error
        else:
            if self._write_error is not None:
                _LOG.info("%s can be written again", self._path)
            self._write_error = None

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            self._database = open_database(self._path, _TABLES, version=_VERSION, synchronous="full")
        return self._database

    def _load(self) -> None:
        """Take over what an earlier run has left; it goes before what came while the disk could not be read."""
        database = self._open()
        mine = f"machine in ({','.join('?' * len(self._machines))})"
        if self._alerts:
            last = database.execute(f"select max(key) from waiting where {mine}", self._machines).fetchone()[0] or 0  # noqa: S608
            database.execute(f"update waiting set key = key - ? where {mine}", (last + 1, *self._machines))  # noqa: S608
        rows = database.execute(
            f"select key, machine, kind, event_id, topic, payload from waiting where {mine} order by key",  # noqa: S608
            self._machines,
        ).fetchall()
        left = {
            key: WaitingAlert(key, machine, AlertKind(kind), event_id, topic, bytes(payload))
            for key, machine, kind, event_id, topic, payload in rows
        }
        self._alerts = OrderedDict({**left, **self._alerts})
        self._next_key = max([self._next_key, *(key + 1 for key in left)])
        for machine, content in database.execute(f"select machine, content from memory where {mine}", self._machines):  # noqa: S608
            self._memories.setdefault(machine, bytes(content))
        others = database.execute(f"select machine, count(*) from waiting where not {mine} group by 1", self._machines)  # noqa: S608
        for machine, count in others.fetchall():
            _LOG.info("%d alerts of machine %s wait for a daemon that hears it", count, machine)
        self._is_loaded = True

    def _write(self) -> None:
        """Bring the disk to what is in memory, in one transaction."""
        if not self._is_loaded:
            self._load()
        database = self._open()
        database.execute("begin immediate")
        try:
            for key in sorted(self._unsaved):
                self._insert(database, self._alerts[key])
            database.executemany("delete from waiting where machine = ? and key = ?", list(self._undeleted))
            database.executemany(
                "insert into memory values (?, ?) on conflict (machine) do update set content = excluded.content",
                [(machine, self._memories[machine]) for machine in self._unsaved_memories],
            )
            database.execute("commit")
        except BaseException:
            if database.in_transaction:
                database.execute("rollback")
            raise
        self._unsaved.clear()
        self._undeleted.clear()
        self._unsaved_memories.clear()

    def _insert(self, database: sqlite3.Connection, alert: WaitingAlert) -> None:
        content = (alert.machine, alert.key, alert.kind.value, alert.event_id, alert.topic, alert.payload)
        database.execute("insert into waiting values (?, ?, ?, ?, ?, ?)", content)

    def _put_aside(self, error: Exception) -> None:
        """Make room for a fresh file, to which all that is known in memory is written."""
        self._close_database()
        set_aside(self._path, error, self._now_s())
        self.set_aside += 1
        self._unsaved, self._undeleted = set(self._alerts), set()
        self._unsaved_memories = set(self._memories)

    def _close_database(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
