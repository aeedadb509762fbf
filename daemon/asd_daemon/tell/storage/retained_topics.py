"""Which topics brokers keep a message of ours on: remembered before the message goes, until the broker has been made to forget it.

A table in the file of the outbox. It is written when a topic is new or is cleared, never at rest; a disk that does not take it costs
the tidying up later, not the telling now. What is no longer ours is decided here; who clears it is the connection's business.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from asd_daemon.tell.storage.database import open_database

_LOG = logging.getLogger(__name__)
_VERSION = 1  # of the outbox, whose file it is; an older program does not mind one more table
_TABLES = """
create table if not exists retained (
    broker text not null, topic text not null, machine text not null, owner text not null, unwanted integer not null,
    primary key (broker, topic)
) without rowid;
"""
_NOTE = """
insert into retained values (?, ?, ?, ?, 0) on conflict (broker, topic) do update
    set machine = excluded.machine, owner = excluded.owner, unwanted = 0
    where machine != excluded.machine or owner != excluded.owner or unwanted != 0
"""


@dataclass(frozen=True)
class Ownership:
    """What a process may clear, when it is no longer said."""

    broker: str
    """HOST:PORT."""
    machines: tuple[str, ...]
    """Those that the process hears."""
    owner: str = ""
    """The configuration that it runs by; empty where there is none, which then says nothing of other machines."""
    configured: tuple[str, ...] = ()
    """All machines of that configuration."""
    is_heard: Callable[[str], bool] = lambda _: False
    """Whether another process of this box hears a machine."""


class RetainedTopics:
    """One process's view of the table.

    Args:
        file: the database; None remembers nothing.
        ownership: whose topics they are.
    """

    def __init__(self, file: Path | None, ownership: Ownership) -> None:
        self.file, self._ownership = file, ownership
        self._noted: set[str] = set()
        self._looked_at: tuple[int, ...] = ()

    def note(self, topics: Iterable[tuple[str, str]]) -> None:
        """Messages are about to be kept on topics; known when this returns.

        Args:
            topics: where, and whose each is: a machine's, or the empty word for the node's own.
        """
        fresh = [(topic, machine) for topic, machine in topics if topic not in self._noted]
        if not fresh or self.file is None:
            return
        self._noted.update(topic for topic, _ in fresh)
        broker, owner = self._ownership.broker, self._ownership.owner
        with self._guarded() as database:
            database.execute("begin immediate")
            database.executemany(_NOTE, [(broker, topic, machine, owner) for topic, machine in fresh])
            database.execute("commit")

    def unwanted(self, wanted: Collection[str]) -> list[tuple[str, str]]:
        """Topic and machine of what this broker keeps of ours and nobody says any more.

        Args:
            wanted: topics that this process says.
        """
        if self.file is None or not self.file.exists():
            return []
        ours, found = self._ownership, []
        with self._guarded() as database:
            rows = database.execute(
                "select topic, machine, owner, unwanted from retained where broker = ?", (ours.broker,)
            )
            for topic, machine, owner, is_marked in rows.fetchall():
                if topic not in wanted and (is_marked or self._is_ours(machine, owner)) and not self._is_heard(machine):
                    found.append((topic, machine))
        self._looked_at = self._signature()
        return found

    def has_changed(self) -> bool:
        """Whether somebody has written to the file since it was last looked at; cheap."""
        return self.file is not None and self._signature() != self._looked_at

    def cleared(self, topic: str) -> None:
        """The broker has forgotten what it kept."""
        self._noted.discard(topic)
        with self._guarded() as database:
            database.execute("delete from retained where broker = ? and topic = ?", (self._ownership.broker, topic))

    def _is_ours(self, machine: str, owner: str) -> bool:
        if machine in self._ownership.machines:
            return True
        is_of_the_configuration = bool(owner) and owner == self._ownership.owner
        return is_of_the_configuration and machine not in self._ownership.configured

    def _is_heard(self, machine: str) -> bool:
        return bool(machine) and machine not in self._ownership.machines and self._ownership.is_heard(machine)

    def _signature(self) -> tuple[int, ...]:
        found = []
        for end in ("", "-wal"):
            with contextlib.suppress(OSError):
                found.append(os.stat(f"{self.file}{end}").st_mtime_ns)
        return tuple(found)

    def _guarded(self) -> _Guarded:
        return _Guarded(self.file or Path())


class _Guarded(contextlib.AbstractContextManager[sqlite3.Connection]):
    """The database for a moment; what goes wrong is logged, and nothing else is lost by it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._database = open_database(self._file, _TABLES, version=_VERSION, synchronous="full")
        except (sqlite3.Error, OSError) as e:
            _LOG.warning("%s: which topics a broker keeps is not remembered: %s", self._file, e)
            self._database = sqlite3.connect(":memory:", isolation_level=None)
            self._database.executescript(_TABLES)
        return self._database

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if self._database is not None:
            self._database.close()
        if isinstance(error, sqlite3.Error | OSError):
            _LOG.warning("%s: which topics a broker keeps is not remembered: %s", self._file, error)
            return True
        return False


def mark_unwanted(file: Path, machine: str) -> int:
    """A machine is gone for good: what brokers keep of it is to be cleared by the next connection to them; how many topics.

    Args:
        file: the outbox's database.
        machine: whose topics.

    Raises:
        sqlite3.Error, OSError: the file can't be written.
    """
    if not file.exists():
        return 0
    with contextlib.closing(open_database(file, _TABLES, version=_VERSION, synchronous="full")) as database:
        return database.execute("update retained set unwanted = 1 where machine = ?", (machine,)).rowcount


def kept_topics(file: Path, machine: str) -> Iterable[tuple[str, str]]:
    """Broker and topic of all that is kept of a machine.

    Raises:
        sqlite3.Error, OSError: the file can't be read.
    """
    if not file.exists():
        return []
    with contextlib.closing(open_database(file, _TABLES, version=_VERSION, synchronous="full")) as database:
        rows = database.execute("select broker, topic from retained where machine = ? order by 1, 2", (machine,))
        return [(str(broker), str(topic)) for broker, topic in rows.fetchall()]
