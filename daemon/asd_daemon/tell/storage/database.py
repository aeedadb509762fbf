"""The two SQLite files of the state folder: how they are opened, and what becomes of one that is broken.

Owns the pragmas and the rule that a broken file is renamed, never deleted. It knows no table.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from pathlib import Path
from typing import Literal

from asd_daemon.private_files import make_private_file, make_private_folder

_LOG = logging.getLogger(__name__)
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY_S = 5.0


def open_database(
    file: Path, tables: str, *, version: int, synchronous: Literal["full", "normal"], page_bytes: int = 4096
) -> sqlite3.Connection:
    """Open a file, made where it is missing, in WAL mode; every statement is its own transaction unless one is begun.

    Args:
        file: where it lies; its folder is made.
        tables: statements that make what is missing.
        version: of the tables, kept in the file.
        page_bytes: size of a page, a power of two.
        synchronous: full: a commit is on the disk when it returns; normal: a power cut may cost the last ones.

    Raises:
        sqlite3.Error, OSError: it can't be opened, is broken, or is of a later version.
    """
    make_private_folder(file.parent)
    make_private_file(file)  # its companions get the same mode
    database = sqlite3.connect(file, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        database.execute(f"pragma page_size={page_bytes}")  # of a file that is made now
        database.execute("pragma journal_mode=wal")
        database.execute(f"pragma synchronous={synchronous}")
        found = _check_version(database, version)
        database.executescript(tables)
        if found != version:
            database.execute(f"pragma user_version={version}")
    except BaseException:
        database.close()
        raise
    return database


def _check_version(database: sqlite3.Connection, version: int) -> int:
    found = int(database.execute("pragma user_version").fetchone()[0])
    if found > version:
        raise sqlite3.DatabaseError(f"it is of a later version ({found}) of this program, which knows {version}")
    return found


def is_broken(error: Exception) -> bool:
    """Whether an error says that the file is no database any more, rather than that it can't be reached."""
    return isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN


def set_aside(file: Path, error: Exception, now_s: float) -> Path:
    """Rename a broken file and its companions; the new name of the file.

    Raises:
        OSError: the folder does not allow it.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    aside = file.with_name(f"{file.name}.broken-{stamp}")
    for end in ("", "-wal", "-shm"):
        part = file.with_name(file.name + end)
        if part.exists():
            os.replace(part, aside.with_name(aside.name + end))
    _LOG.error("%s is broken (%s) and set aside as %s", file, error, aside.name)
    return aside
