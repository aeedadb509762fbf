"""Scores of a machine over a span of time, packed for a browser.

    uint32 length of the head | JSON head, padded to a multiple of 4 | float64 seconds (N,) | float32 scores (N,) | float32
    thresholds (N,) | uint8 reasons (N,)

all little-endian; NaN where there is none; a reason is 0 for a window that was judged, else its place in the head's list, from 1. A
span of more windows than a chart can use comes in buckets: of each the highest score, the last threshold and the first reason, if nothing
in it was judged.
"""

from __future__ import annotations

import json
import sqlite3
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from math import isnan, nan
from pathlib import Path

MOST_WINDOWS = 130_000
"""Two weeks of windows, one every 10 s; 2.2 MB."""
_MOST_REASONS = 254
Row = tuple[int, float | None, float | None, str | None]
"""Unix time in ms of the window's end, score, threshold, why it could not be judged."""


def open_read_only(file: Path) -> sqlite3.Connection:
    """A store, for reading alone.

    Raises:
        sqlite3.Error: it can't be opened.
    """
    database = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=2.0)
    try:
        database.execute("select 1 from sqlite_master").fetchone()
    except (
        sqlite3.OperationalError
    ):  # nobody has it open and its folder is not ours to write: it can't change meanwhile
        database.close()
        if Path(f"{file}-wal").exists():
            raise
        database = sqlite3.connect(f"{file.resolve().as_uri()}?immutable=1", uri=True)
    return database


def stored_machines(files: Iterable[Path]) -> set[str]:
    """Machines of which scores are kept."""
    names: set[str] = set()
    for file in files:
        if not file.exists():
            continue
        try:
            with closing(open_read_only(file)) as database:
                names |= {str(row[0]) for row in database.execute("select name from machine")}
        except sqlite3.Error:  # being made, or set aside as broken; `asd-daemon status` tells
            continue
    return names


def read_rows(file: Path, machine: str, begin_ms: int, end_ms: int) -> Iterator[Row]:
    """The kept windows of a machine within a span, in the order of their times.

    Raises:
        sqlite3.Error: the file can't be read.
    """
    if not file.exists():
        return
    with closing(open_read_only(file)) as database:
        found = database.execute("select number from machine where name = ?", (machine,)).fetchone()
        if found is None:
            return
        yield from database.execute(
            "select at_ms, score, threshold, unfit from score where machine = ? and at_ms between ? and ?"
            " order by at_ms, number",
            (found[0], begin_ms, end_ms),
        )


def packed(rows: Iterable[Row], *, begin_ms: int, end_ms: int, most: int = MOST_WINDOWS) -> bytes:
    """Rows in the order of their times, as a browser unpacks them."""
    table = _Table(begin_ms, end_ms)
    for kept, row in enumerate(rows, 1):
        table.add(row)
        if kept > most and not table.bucket_ms:
            table = table.in_buckets(most // 16)
    return table.to_bytes()


class _Table:
    def __init__(self, begin_ms: int, end_ms: int, bucket_ms: float = 0.0) -> None:
        self._begin_ms, self._end_ms, self.bucket_ms = begin_ms, end_ms, bucket_ms
        self._times, self._scores, self._thresholds = array("d"), array("f"), array("f")
        self._codes = bytearray()
        self._reasons: list[str] = []
        self._bucket = -1

    def add(self, row: Row) -> None:
        at_ms, score, threshold, unfit = row
        code = 0 if score is not None else self._code(unfit or "not judged")
        if self.bucket_ms:
            bucket = int((at_ms - self._begin_ms) // self.bucket_ms)
            if bucket == self._bucket and self._times:
                self._join(score, threshold)
                return
            self._bucket = bucket
        self._times.append(at_ms / 1000)
        self._scores.append(nan if score is None else score)
        self._thresholds.append(nan if threshold is None else threshold)
        self._codes.append(code)

    def _join(self, score: float | None, threshold: float | None) -> None:
        if score is not None:
            self._scores[-1] = score if self._codes[-1] else max(self._scores[-1], score)
            self._codes[-1] = 0
        if threshold is not None:
            self._thresholds[-1] = threshold

    def _code(self, reason: str) -> int:
        if reason not in self._reasons:
            if len(self._reasons) >= _MOST_REASONS:
                return len(self._reasons)
            self._reasons.append(reason)
        return self._reasons.index(reason) + 1

    def in_buckets(self, count: int) -> _Table:
        """The same, joined into buckets of time."""
        coarse = _Table(self._begin_ms, self._end_ms, (self._end_ms - self._begin_ms + 1) / count)
        for row in self._rows():
            coarse.add(row)
        return coarse

    def _rows(self) -> Iterator[Row]:
        for time_s, score, threshold, code in zip(
            self._times, self._scores, self._thresholds, self._codes, strict=True
        ):
            reason = self._reasons[code - 1] if code else None
            yield (
                round(time_s * 1000),
                None if code else score,
                None if isnan(threshold) else threshold,
                reason,
            )

    def to_bytes(self) -> bytes:
        head = json.dumps(
            {"windows": len(self._times), "reasons": self._reasons, "bucket_s": round(self.bucket_ms / 1000, 1)}
        ).encode()
        head += b" " * (-(len(head) + 4) % 8)
        columns = map(_little_endian, (self._times, self._scores, self._thresholds))
        return b"".join((struct.pack("<I", len(head)), head, *columns, bytes(self._codes)))


def _little_endian(values: array[float]) -> bytes:
    if sys.byteorder == "big":
        values = array(values.typecode, values)
        values.byteswap()
    return values.tobytes()


def with_recent(rows: Iterable[Row], recent: Sequence[Row]) -> Iterator[Row]:
    """Kept rows, then those that a daemon has not written yet."""
    last_ms = -1
    for row in rows:
        last_ms = row[0]
        yield row
    yield from (row for row in recent if row[0] > last_ms)
