"""Every window's score on disk, in batches: what `asd-daemon replay` plays again.

One SQLite file for all machines. Scores are collected in memory and written every few minutes in one transaction, because a card wears
by writes and not by bytes; a kill costs the batch at hand, and no alert. Nothing here may stop the daemon: a disk that does not take
scores is told as `write_error`, and the oldest of those that wait are given up and counted.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from asd_daemon.errors import UsageError
from asd_daemon.tell.storage.database import is_broken, open_database, set_aside
from asd_daemon.tell.storage.plausible_clock import EARLIEST_S, PlausibleClock
from asd_daemon.wording import counted

_LOG = logging.getLogger(__name__)
_VERSION = 1
_TABLES = """
create table if not exists machine (number integer primary key, name text not null unique);
create table if not exists score (
    number integer primary key, machine integer not null references machine, at_ms integer not null,
    score real, threshold real, unfit text
);
"""
_DAY_S = 86_400.0
_TIDY_EVERY_S = 24 * 3600.0
_PAGE_BYTES = 1024  # a batch of thirty scores fills one; larger pages are written for nothing


@dataclass(frozen=True)
class LoggedScore:
    """One window."""

    machine: str
    at: datetime
    """UTC time of the window's end."""
    score: float | None
    """None where the window could not be judged."""
    threshold: float | None
    unfit: str | None = None
    """Why it could not."""


class ScoreLog:
    """The file while the daemon runs; safe from several threads and processes.

    Args:
        file: the database.
        every_s: seconds between two batches.
        days: older scores are deleted.
        clock_s: a steady clock.
        now_s: Unix time.
        clock: whether ages hold; by default asked of `now_s` and `clock_s` alone.
    """

    def __init__(
        self,
        file: Path,
        *,
        every_s: float,
        days: float,
        most_waiting: int = 20_000,
        clock_s: Callable[[], float] = time.monotonic,
        now_s: Callable[[], float] = time.time,
        clock: PlausibleClock | None = None,
    ) -> None:
        self._file, self._every_s, self._days, self._clock_s, self._now_s = file, every_s, days, clock_s, now_s
        self._clock = clock or PlausibleClock(now_s, clock_s)
        self._first_own: int | None = None
        self._lock = threading.Lock()
        self._waiting: deque[LoggedScore] = deque()
        self._recent: deque[LoggedScore] = deque(maxlen=most_waiting)
        self._added = 0
        self._most_waiting = most_waiting
        self._written_s = clock_s()
        self._tidied_s = clock_s() - _TIDY_EVERY_S
        self._database: sqlite3.Connection | None = None
        self._write_error: str | None = None
        self.dropped = 0
        """Scores that could not be written and were given up."""

    @property
    def write_error(self) -> str | None:
        """Why nothing can be written at present, in words; None where it can."""
        return self._write_error

    def add(self, score: LoggedScore) -> None:
        """Take in a window; now and then this writes a batch."""
        with self._lock:
            self._waiting.append(score)
            self._recent.append(score)
            self._added += 1
            if len(self._waiting) > self._most_waiting:
                self._waiting.popleft()
                self.dropped += 1
            if self._clock_s() - self._written_s >= self._every_s:
                self._flush()

    def recent(self, seen: int) -> tuple[int, list[LoggedScore]]:
        """The windows after the first `seen` of this run, as far as they are remembered, and how many there are now; from any thread."""
        with self._lock:
            new = min(self._added - seen, len(self._recent))
            return self._added, list(self._recent)[-new:] if new else []

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            self._flush()

    def close(self) -> None:
        """Write what waits, and let go of the file."""
        with self._lock:
            self._flush()
            self._close_database()

    def __del__(self) -> None:
        """Whoever drops it has let go of the file too."""
        if hasattr(self, "_database"):
            self._close_database()

    def _close_database(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _flush(self) -> None:
        self._written_s = self._clock_s()
        if not self._waiting:
            return
        try:
            try:
                self._write()
            except sqlite3.DatabaseError as e:
                self._close_database()
                if not is_broken(e):
                    raise
                set_aside(self._file, e, self._now_s())
                self._write()
        except (sqlite3.Error, OSError) as e:
            self._close_database()
            if self._write_error is None:
                _LOG.error("%s can't be written: %s; scores wait in memory", self._file, e)
            self._write_error = f"{self._file} can't be written: {e}"
        else:
            self._write_error = None

    def _write(self) -> None:
        # Kept open: closing would copy the write-ahead log into the file after every batch, six times as many bytes
        if self._database is None:
            self._database = open_database(
                self._file, _TABLES, version=_VERSION, synchronous="normal", page_bytes=_PAGE_BYTES
            )
        self._database.execute("begin immediate")
        try:
            self._insert(self._database)
            self._database.execute("commit")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("rollback")
            raise
        self._waiting.clear()

    def _insert(self, database: sqlite3.Connection) -> None:
        names = {(score.machine,) for score in self._waiting}
        database.executemany("insert or ignore into machine (name) values (?)", sorted(names))
        numbers = dict(database.execute("select name, number from machine").fetchall())
        database.executemany(
            "insert into score (machine, at_ms, score, threshold, unfit) values (?, ?, ?, ?, ?)",
            [
                (numbers[k.machine], round(k.at.timestamp() * 1000), k.score, k.threshold, k.unfit)
                for k in self._waiting
            ],
        )
        if self._first_own is None:
            written = database.execute("select coalesce(max(number), 0) from score").fetchone()[0]
            self._first_own = written - len(self._waiting) + 1
        if self._clock_s() - self._tidied_s >= _TIDY_EVERY_S:
            self._tidied_s = self._clock_s()
            self._delete_old(database)

    def _delete_old(self, database: sqlite3.Connection) -> None:
        """Delete the scores of earlier runs that are too old, where the clock can be trusted.

        Those that were written while the clock said what can't be are as old as what was written next to them.
        """
        objection = self._clock.objection(self._days * _DAY_S)
        if objection is not None:
            _LOG.warning("no score is deleted for its age: %s", objection)
            return
        oldest_ms, earliest_ms = (self._now_s() - self._days * _DAY_S) * 1000, EARLIEST_S * 1000
        bounds = (oldest_ms, earliest_ms, self._first_own)
        old = "number < ?3 and at_ms between ?2 and ?1"
        undated = f"at_ms < ?2 and number < (select max(number) from score where {old})"  # noqa: S608
        gone = database.execute(f"delete from score where number < ?3 and {undated}", bounds).rowcount  # noqa: S608
        gone += database.execute(f"delete from score where {old}", bounds).rowcount  # noqa: S608
        if gone:
            _LOG.info("deleted: %s older than %s", counted(gone, "score"), f"{self._days:g} days")


def read_scores(file: Path, machine: str, since: datetime | None = None) -> Iterator[LoggedScore]:
    """The kept windows of a machine in the order in which they were heard, whatever the clock did meanwhile.

    Raises:
        UsageError: there is no such file, it can't be read, or it knows no such machine; lists those there are.
    """
    if not file.exists():
        raise UsageError(f"{file}: there is no such file; `asd-daemon run` makes it (see keep.scores_every_s)")
    try:
        database = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
        try:
            numbers = dict(database.execute("select name, number from machine").fetchall())
            if machine not in numbers:
                raise UsageError(
                    f"{file}: knows no machine {machine!r}; machines: {', '.join(sorted(numbers)) or 'none'}"
                )
            least_ms = -(2**62) if since is None else round(since.timestamp() * 1000)
            for at_ms, score, threshold, unfit in database.execute(
                "select at_ms, score, threshold, unfit from score where machine = ? and at_ms >= ? order by number",
                (numbers[machine], least_ms),
            ):
                yield LoggedScore(machine, datetime.fromtimestamp(at_ms / 1000, UTC), score, threshold, unfit)
        finally:
            database.close()
    except sqlite3.Error as e:
        raise UsageError(f"{file}: can't be read as scores: {e}") from e
