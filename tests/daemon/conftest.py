"""What holds for every test of the daemon."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def databases_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a test leaves open, as a crash would; since Python 3.13 an open database that nobody knows any more is a warning."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def remembered(*words: Any, **more: Any) -> sqlite3.Connection:
        database: sqlite3.Connection = connect(*words, **more)
        opened.append(database)
        return database

    monkeypatch.setattr(sqlite3, "connect", remembered)
    yield
    for database in opened:
        try:
            database.close()
        except sqlite3.ProgrammingError:  # of a thread that is over, which has closed it
            continue
