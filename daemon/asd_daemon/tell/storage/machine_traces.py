"""What the stores hold under a machine's name: scores, clips, alerts of the past, the memory of its alarm, alerts and messages that wait.

Owns moving all of it to another name and deleting it. Tables are found by their column, so that a store may have more of them. What brokers
keep is under the name that it was published by, and stays until it is cleared there (tell/mqtt/clearing.py).
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from asd_daemon.errors import UsageError

ALERTS, HISTORY, SCORES, CLIPS = "alerts.sqlite", "history.sqlite", "scores.sqlite", "clips"
PAST_ALERTS, COMMANDS, PICTURES = "alerts", "commands", "pictures"
_BY_MACHINE = (ALERTS, HISTORY, "notices.sqlite")
_FOLDERS = (CLIPS, PAST_ALERTS, COMMANDS, PICTURES)  # each with one below it for each machine
_AT_BROKERS = "retained"
_BUSY_S = 5.0


@dataclass(frozen=True)
class MachineTraces:
    """How much is kept under a name."""

    scores: int = 0
    clips: int = 0
    clip_bytes: int = 0
    alerts_waiting: int = 0
    """Messages that the broker has not confirmed."""


def traces_of(folder: Path, machine: str) -> MachineTraces:
    """What a state folder keeps of a machine.

    Raises:
        UsageError: a store can't be read.
    """
    clips = [f.stat().st_size for f in (folder / CLIPS / machine).glob("*.flac")]
    scores = waiting = 0
    with _opened(folder / SCORES) as database:
        if database is not None:
            number = "(select number from machine where name = ?)"
            scores = _count(database, f"select count(*) from score where machine = {number}", machine)  # noqa: S608
    with _opened(folder / ALERTS) as database:
        if database is not None and "waiting" in _tables_by_machine(database):
            waiting = _count(database, "select count(*) from waiting where machine = ?", machine)
    return MachineTraces(scores, len(clips), sum(clips), waiting)


def traced_machines(folder: Path) -> set[str]:
    """Names under which something is kept.

    Raises:
        UsageError: a store can't be read.
    """
    names = {f.name for kept in (CLIPS, PAST_ALERTS) for f in (folder / kept).glob("*") if f.is_dir()}
    with _opened(folder / SCORES) as database:
        if database is not None:
            names |= {str(row[0]) for row in database.execute("select name from machine")}
    for file in _BY_MACHINE:
        with _opened(folder / file) as database:
            if database is None:
                continue
            for table in _tables_by_machine(database):
                names |= {str(row[0]) for row in database.execute(f"select distinct machine from {table}")}  # noqa: S608
    return names


def rename_traces(folder: Path, machine: str, new: str) -> None:
    """Move all of it to another name.

    Raises:
        UsageError: something is kept under the new name, or a store can't be changed.
    """
    if new in traced_machines(folder):
        raise UsageError(f"{folder}: scores, clips or alerts of a machine {new} are there; remove it first")
    with _opened(folder / SCORES, writes=True) as database:
        if database is not None:
            database.execute("update machine set name = ? where name = ?", (new, machine))
    for file in _BY_MACHINE:
        with _opened(folder / file, writes=True) as database:
            if database is None:
                continue
            for table in _tables_by_machine(database):
                database.execute(f"update {table} set machine = ? where machine = ?", (new, machine))  # noqa: S608
    for kept in _FOLDERS:
        if (folder / kept / machine).is_dir():
            (folder / kept / machine).rename(folder / kept / new)


def remove_traces(folder: Path, machine: str) -> None:
    """Delete all of it.

    Raises:
        UsageError: a store can't be changed.
    """
    with _opened(folder / SCORES, writes=True) as database:
        if database is not None:
            number = "(select number from machine where name = ?)"
            database.execute(f"delete from score where machine = {number}", (machine,))  # noqa: S608
            database.execute("delete from machine where name = ?", (machine,))
    for file in _BY_MACHINE:
        with _opened(folder / file, writes=True) as database:
            if database is None:
                continue
            for table in _tables_by_machine(database):
                database.execute(f"delete from {table} where machine = ?", (machine,))  # noqa: S608
    for kept in _FOLDERS:
        shutil.rmtree(folder / kept / machine, ignore_errors=True)


def _count(database: sqlite3.Connection, query: str, machine: str) -> int:
    return int(database.execute(query, (machine,)).fetchone()[0])


def _tables_by_machine(database: sqlite3.Connection) -> list[str]:
    """Tables with a column `machine` that holds a name, but for what brokers keep."""
    names = [str(row[0]) for row in database.execute("select name from sqlite_master where type = 'table'")]
    return [name for name in names if name != _AT_BROKERS and "machine" in _columns(database, name)]


def _columns(database: sqlite3.Connection, table: str) -> list[str]:
    return [str(row[1]) for row in database.execute(f"pragma table_info({table})")]


@contextmanager
def _opened(file: Path, *, writes: bool = False) -> Iterator[sqlite3.Connection | None]:
    """A store in one transaction; None where there is none."""
    if not file.exists():
        yield None
        return
    try:
        uri = f"{file.resolve().as_uri()}?mode={'rw' if writes else 'ro'}"
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_S)) as database, database:
            yield database
    except sqlite3.Error as e:
        raise UsageError(f"{file}: can't be {'changed' if writes else 'read'}: {e}") from e
