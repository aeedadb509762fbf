"""What a daemon was collecting when it was stopped, so that it goes on by itself."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from asd_daemon.learn.collected_windows import COLLECTING, FAILURE_FILE, NOTE, OLDEST, CollectionKey, CollectionNote


def unfinished_collection(home: Path, now: datetime | None = None) -> tuple[CollectionKey, int] | None:
    """What a daemon has collected windows of a machine for when it was stopped, and how many it wants; None where there is no such thing.

    Args:
        home: the machine's folder.
        now: UTC time; None: that of the clock.
    """
    folder = home / COLLECTING
    try:
        note = CollectionNote.model_validate_json((folder / NOTE).read_bytes())
        age = (now or datetime.now(UTC)) - datetime.fromtimestamp((folder / NOTE).stat().st_mtime, UTC)
    except (OSError, ValidationError):
        return None
    key = note.key
    if not note.unattended:
        return None
    if key.over_s is not None:
        return None if key.windows is None else (key, key.windows)
    if note.wanted is None or age > OLDEST or (folder / FAILURE_FILE).exists():  # somebody must say that it goes on
        return None
    return key, note.wanted
