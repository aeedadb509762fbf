"""The tables of the outbox: alerts that wait and what the alarms know, read and written for some machines.

Owns the SQL. What waits, and for how long, is the outbox's business.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asd_daemon.errors import UsageError
from asd_daemon.judge.alarm.alarm import AlertKind
from asd_daemon.tell.storage.database import open_database

_VERSION = 1
_TABLES = """
create table if not exists waiting (
    machine text not null, key integer not null,
    kind text not null, event_id text not null, topic text not null, payload blob not null,
    primary key (machine, key)
) without rowid;
create table if not exists memory (machine text primary key, content blob not null);
"""


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


def open_alerts(file: Path) -> sqlite3.Connection:
    """Open the file, made where it is missing; a commit is on the disk when it returns.

    Raises:
        sqlite3.Error, OSError: it can't be opened, is broken, or is of a later version.
    """
    return open_database(file, _TABLES, version=_VERSION, synchronous="full")


def take_over(database: sqlite3.Connection, machines: Sequence[str], taken: Collection[int]) -> dict[int, WaitingAlert]:
    """The machines' messages by their places, in order; where places are taken, or shared by machines, they get others before these."""
    count = f"select count(*), count(distinct key) from waiting where {_of(machines)}"  # noqa: S608
    messages, places = database.execute(count, machines).fetchone()
    if taken or messages != places:
        _make_room(database, machines, min([1, *taken]))
    return _read_alerts(database, machines)


def _make_room(database: sqlite3.Connection, machines: Sequence[str], before: int) -> None:
    """Give the machines' messages places before one, no two the same; each machine's keep their order."""
    for machine in machines:
        first, last = database.execute(
            "select min(key), max(key) from waiting where machine = ?", (machine,)
        ).fetchone()
        if first is None:
            continue
        shift = max(last - before + 1, last - first + 1)  # at least by their span: else places would meet on the way
        database.execute("update waiting set key = key - ? where machine = ?", (shift, machine))
        before = min(before, first - shift)


def _read_alerts(database: sqlite3.Connection, machines: Sequence[str]) -> dict[int, WaitingAlert]:
    rows = database.execute(
        f"select key, machine, kind, event_id, topic, payload from waiting where {_of(machines)} order by key",  # noqa: S608
        machines,
    )
    return {
        key: WaitingAlert(key, machine, AlertKind(kind), event_id, topic, bytes(payload))
        for key, machine, kind, event_id, topic, payload in rows.fetchall()
    }


def read_memories(database: sqlite3.Connection, machines: Sequence[str]) -> list[tuple[str, bytes]]:
    """What is kept of the machines' alarms."""
    rows = database.execute(f"select machine, content from memory where {_of(machines)}", machines)  # noqa: S608
    return [(machine, bytes(content)) for machine, content in rows.fetchall()]


def count_others(database: sqlite3.Connection, machines: Sequence[str]) -> list[tuple[str, int]]:
    """How many messages wait of each other machine."""
    rows = database.execute(f"select machine, count(*) from waiting where not {_of(machines)} group by 1", machines)  # noqa: S608
    return list(rows.fetchall())


def write(
    database: sqlite3.Connection,
    fresh: Iterable[WaitingAlert],
    gone: Iterable[tuple[str, int]],
    memories: Mapping[str, bytes],
) -> None:
    """Change all of it in one transaction.

    Args:
        database: the open file.
        fresh: messages to add.
        gone: machine and place of those to delete.
        memories: what is kept of alarms from now on.
    """
    database.execute("begin immediate")
    try:
        for alert in fresh:
            content = (alert.machine, alert.key, alert.kind.value, alert.event_id, alert.topic, alert.payload)
            database.execute("insert into waiting values (?, ?, ?, ?, ?, ?)", content)
        database.executemany("delete from waiting where machine = ? and key = ?", gone)
        database.executemany(
            "insert into memory values (?, ?) on conflict (machine) do update set content = excluded.content",
            memories.items(),
        )
        database.execute("commit")
    except BaseException:
        if database.in_transaction:
            database.execute("rollback")
        raise


def _of(machines: Sequence[str]) -> str:
    return f"machine in ({','.join('?' * len(machines))})"


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
