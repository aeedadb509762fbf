"""What people must still be told, and what is followed until they need not be told any more: on disk before anything is sent.

One SQLite file (WAL, synchronous=FULL), small JSON by machine, kind and name. All of it is held in memory too, so a disk that is full,
read-only or broken costs the durability and nothing else; it is written as a whole as soon as the disk takes it. A file that is no
database any more is set aside, never deleted. What the words mean, and how many there may be, is the business of whoever keeps them here.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asd_daemon.tell.storage.database import is_broken, open_database, set_aside

_LOG = logging.getLogger(__name__)
_VERSION = 1
_TABLES = """
create table if not exists item (
    machine text not null, kind text not null, name text not null, content text not null,
    primary key (machine, kind, name)
) without rowid;
"""
_PUT = "insert into item values (?, ?, ?, ?) on conflict (machine, kind, name) do update set content = excluded.content"
_DELETE = "delete from item where machine = ? and kind = ? and name = ?"

Place = tuple[str, str, str]
"""Machine, kind and name of an item."""


class WaitingNotices:
    """Items of the machines of this process; safe from several threads.

    Args:
        file: the database; None keeps everything in memory.
        machines: whose items this process looks after.
        now_s: Unix time, for the name under which a broken file is set aside.
    """

    def __init__(
        self, file: Path | None = None, machines: Sequence[str] = (), *, now_s: Callable[[], float] = time.time
    ) -> None:
        self._file, self._machines, self._now_s = file, tuple(machines), now_s
        self._lock = threading.RLock()
        self._items: dict[Place, Any] = {}
        self._changed: set[Place] = set()
        self._database: sqlite3.Connection | None = None
        self._is_loaded = file is None
        self.write_error: str | None = None
        """Why nothing can be written to disk at present, in words; None where it can."""
        if file is not None and file.exists():  # else it is made with the first item
            self._guarded(self._load)

    def take_up(self, machines: Sequence[str]) -> None:
        """Look after further machines too."""
        with self._lock:
            self._machines += tuple(machines)
            if self._database is not None:
                self._guarded(lambda: self._read(machines))
            else:  # what there is of them is read before the next writing
                self._is_loaded = self._file is None

    def let_go(self, machines: Sequence[str]) -> None:
        """Leave the items of some machines to another process; they stay on disk."""
        with self._lock:
            self.save()
            self._machines = tuple(m for m in self._machines if m not in machines)
            for place in [place for place in self._items if place[0] in machines]:
                del self._items[place]
                self._changed.discard(place)

    def of_kind(self, kind: str) -> dict[Place, Any]:
        """All items of a kind, in the order of their names."""
        with self._lock:
            return {place: self._items[place] for place in sorted(self._items, key=lambda p: p[2]) if place[1] == kind}

    def count(self, kind: str) -> int:
        """How many items there are of a kind."""
        with self._lock:
            return sum(place[1] == kind for place in self._items)

    def get(self, place: Place) -> Any:
        """An item; None where there is none."""
        with self._lock:
            return self._items.get(place)

    def put(self, place: Place, content: Any) -> None:
        """Keep an item, in the place of the one before; `save` writes it."""
        with self._lock:
            if self._items.get(place) != content:
                self._items[place] = content
                self._changed.add(place)

    def delete(self, place: Place) -> None:
        """Forget an item; `save` writes that."""
        with self._lock:
            if self._items.pop(place, None) is not None:
                self._changed.add(place)

    def save(self) -> None:
        """Write what has changed, in one transaction; on the disk when this returns, unless `write_error` says why not."""
        with self._lock:
            if self._file is not None and (self._changed or self.write_error):
                self._guarded(self._write)

    def close(self) -> None:
        """Write what can be written, and let go of the file."""
        with self._lock:
            self.save()
            self._close_database()
            self._file = None

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            try:
                work()
            except sqlite3.DatabaseError as e:
                if not is_broken(e) or self._file is None:
                    raise
                self._close_database()
                set_aside(self._file, e, self._now_s())
                self._changed = set(self._items)
                work()
        except (sqlite3.Error, OSError) as e:
            self._close_database()
            if self.write_error is None:
                _LOG.error("%s can't be written: %s; what people must be told waits in memory only", self._file, e)
            self.write_error = f"{self._file} can't be written: {e}"
        else:
            self.write_error = None

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            assert self._file is not None  # noqa: S101  # nothing is written without one
            self._database = open_database(self._file, _TABLES, version=_VERSION, synchronous="full")
        return self._database

    def _load(self) -> None:
        self._read(self._machines)
        self._is_loaded = True

    def _read(self, machines: Sequence[str]) -> None:
        places = ",".join("?" * len(machines))
        rows = self._open().execute(f"select * from item where machine in ({places})", tuple(machines))  # noqa: S608
        for machine, kind, name, content in rows.fetchall():
            place = (str(machine), str(kind), str(name))
            if place not in self._items and place not in self._changed:
                self._items[place] = json.loads(content)

    def _write(self) -> None:
        if not self._is_loaded:
            self._load()
        database = self._open()
        database.execute("begin immediate")
        try:
            for place in self._changed:
                if place in self._items:
                    database.execute(_PUT, (*place, json.dumps(self._items[place], ensure_ascii=False)))
                else:
                    database.execute(_DELETE, place)
            database.execute("commit")
        except BaseException:
            if database.in_transaction:
                database.execute("rollback")
            raise
        self._changed.clear()

    def _close_database(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
