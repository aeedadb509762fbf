"""The sound of clips that lie in shards: row → bytes, through a local folder where the shards are far away.

Owns that folder: a shard is fetched once for all processes of this machine, kept under its SHA-256, checked before it is used, and the
one that was not used for longest goes when the folder grows beyond its bound. Shards on a disk are read where they are, their pages
checked by the sums that Parquet keeps.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asd_daemon.errors import DataSetError, RecordingError, SettingsError
from asd_trainer.data.clip import Clip, Shard
from asd_trainer.data.shard_index import pyarrow
from asd_trainer.data.storage import Storage

log = logging.getLogger(__name__)

FOLDER_VARIABLE, BOUND_VARIABLE = "ASD_SHARD_CACHE", "ASD_SHARD_CACHE_GB"
BOUND_GB = 20.0
OPENED = 64
"""Shards of a process that are open at once; each takes about 2 MB of memory."""
TRIES = 2


def clip_content(clip: Clip) -> bytes | None:
    """The bytes of a clip's sound; None where it has a file of its own.

    Raises:
        RecordingError: the shard is gone, damaged or not what the index says, or can't be fetched; names clip and shard.
    """
    if clip.shard is None:
        return None
    try:
        return _opened(clip.shard).sound(clip.row)
    except (DataSetError, OSError) as e:
        raise RecordingError(f"{clip.path}: its shard can't be read: {e}") from e


def cache_folder() -> Path:
    """Where shards from afar are kept."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(FOLDER_VARIABLE) or base / "asd-edge" / "shards")


def cache_bound_bytes() -> float:
    """What the folder may grow to.

    Raises:
        SettingsError: the variable holds no number above 0.
    """
    text = os.environ.get(BOUND_VARIABLE, str(BOUND_GB))
    try:
        bound = float(text)
    except ValueError:
        bound = 0.0
    if not bound > 0:
        raise SettingsError(f"{BOUND_VARIABLE}: {text!r} is no number of GB above 0")
    return bound * 1e9


class _OpenShard:
    """A shard's file, with the rows that were read last: neighbours are read one after the other."""

    def __init__(self, path: Path, shard: Shard) -> None:
        self._arrow = pyarrow(shard.url)
        self._name = shard.url
        self._lock = threading.Lock()
        if path.stat().st_size != shard.size_bytes:
            raise DataSetError(f"{shard.url}: has {path.stat().st_size} bytes, the index says {shard.size_bytes}")
        try:
            self._file: Any = self._arrow.parquet.ParquetFile(path, page_checksum_verification=True)
        except (self._arrow.ArrowException, ValueError) as e:
            raise DataSetError(f"{shard.url}: {e}") from e
        self._group, self._rows = -1, None
        self._group_rows = self._file.metadata.row_group(0).num_rows  # of all groups but the last

    def sound(self, row: int) -> bytes:
        """Content of a row."""
        group, within = divmod(row, self._group_rows)
        with self._lock:
            try:
                if group != self._group:
                    self._rows = self._file.read_row_group(group, columns=["sound"])["sound"]
                    self._group = group
                return bytes(self._rows[within].as_py())  # type: ignore[index]  # a row group has been read
            except (self._arrow.ArrowException, OSError, IndexError, KeyError, TypeError) as e:
                self._group = -1
                raise DataSetError(f"{self._name}: row {row}: {e}") from e


class _Place:
    """Of one shard among those that are open; it may be about to be opened, which nobody but its own readers waits for."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.opened: _OpenShard | None = None


_OPEN: OrderedDict[str, _Place] = OrderedDict()
_OPEN_LOCK = threading.Lock()


def _opened(shard: Shard) -> _OpenShard:
    with _OPEN_LOCK:
        place = _OPEN.setdefault(shard.url, _Place())
        _OPEN.move_to_end(shard.url)
        while len(_OPEN) > OPENED:
            _OPEN.popitem(last=False)
    with place.lock:
        if place.opened is None:
            place.opened = _open(shard)
        return place.opened


def _open(shard: Shard) -> _OpenShard:
    if "://" not in shard.url:
        return _OpenShard(Path(shard.url), shard)
    while True:
        local = _fetched(shard)
        try:
            return _OpenShard(local, shard)
        except FileNotFoundError:
            log.debug("%s: went before it was opened; fetched again", local)


def _fetched(shard: Shard) -> Path:
    """The local file of a shard from afar, fetched unless it is there."""
    bound = cache_bound_bytes()
    folder = cache_folder()
    local = folder / f"{shard.sha256}.parquet"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _claimed(folder / f"{shard.sha256[:2]}.lock"):
            if local.exists():
                os.utime(local)
                return local
            _fetch(shard, local)
        with _claimed(folder / "room.lock"):
            _make_room(folder, bound, keep=local)
    except OSError as e:
        raise DataSetError(
            f"{folder}: shards can't be kept there: {e.strerror or e}; make room, or name another folder ({FOLDER_VARIABLE})"
        ) from e
    return local


def _fetch(shard: Shard, local: Path) -> None:
    """Fetch a file, and once more where it comes damaged; it appears when it is whole and right."""
    parent, name = shard.url.rsplit("/", 1)
    storage = Storage(parent)
    partial = local.with_suffix(".partial")
    try:
        for _ in range(TRIES):
            try:
                storage.get(name, partial)
            except FileNotFoundError as e:
                raise DataSetError(f"{storage.name}/{name}: there is no such file any more") from e
            with partial.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found == shard.sha256:
                os.replace(partial, local)
                return
        raise DataSetError(f"{storage.name}/{name}: SHA-256 is {found}, the index says {shard.sha256}")
    finally:
        partial.unlink(missing_ok=True)


def _make_room(folder: Path, bound: float, keep: Path) -> None:
    """Remove what was not used for longest until the bound holds; who has it open reads on."""
    there = [(path.stat(), path) for path in folder.glob("*.parquet")]
    total = sum(status.st_size for status, _ in there)
    for status, path in sorted(there, key=lambda one: one[0].st_mtime_ns):
        if total <= bound:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            total -= status.st_size


@contextmanager
def _claimed(lock: Path) -> Iterator[None]:
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
