"""The links by which a box knows its bundles: `current`, and `previous`, the one to go back to. Both change together or not at all.

    ROOT/current, ROOT/previous     → versions/FOLDER
    ROOT/.switching                 where both shall lead, while they are being switched: whoever finds it finishes that

A kill between the two would leave a `previous` that is one version too old. Owns both links.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ValidationError

from asd_daemon.errors import BundleError
from asd_daemon.private_files import write_private

CURRENT = "current"
PREVIOUS = "previous"
VERSIONS = "versions"
_SWITCHING = ".switching"


class _Pair(BaseModel):
    """Where both links shall lead: names of version folders; None: there is no such link."""

    current: str | None
    previous: str | None


def current_version(root: Path) -> Path | None:
    """The version folder that is current; None where there is no link or nothing behind it."""
    return _target(root, CURRENT)


def previous_version(root: Path) -> Path | None:
    """The version folder before it, likewise; of a switch that was broken off, the one that it would have left."""
    pair = _unfinished(root)
    if pair is None:
        return _target(root, PREVIOUS)
    return None if pair.previous is None else _existing(root, pair.previous)


def switch_links(root: Path, current: Path | None, previous: Path | None) -> None:
    """Let both links lead elsewhere; by whoever holds the lock.

    Args:
        root: where the box keeps its bundles.
        current: a version folder; None: the program's own, without a link.
        previous: likewise; None: there is none.

    Raises:
        BundleError: a link can't be switched; `current` is what it was.
    """
    pair = _Pair(current=current and current.name, previous=previous and previous.name)
    try:
        write_private(root / _SWITCHING, pair.model_dump_json())
        sync(root)
    except OSError as e:
        raise BundleError(f"{root / _SWITCHING}: can't be written: {e.strerror or e}") from e
    try:
        _lead(root, CURRENT, pair.current)
    except BundleError:
        (root / _SWITCHING).unlink()
        raise
    _finish(root, pair)


def finish_switch(root: Path) -> None:
    """After a kill: have both links as they were before the switch, or as they are after it; by whoever holds the lock."""
    pair = _unfinished(root)
    if pair is not None:
        _finish(root, pair)
    else:  # it had not begun yet
        (root / _SWITCHING).unlink(missing_ok=True)


def _finish(root: Path, pair: _Pair) -> None:
    _lead(root, PREVIOUS, pair.previous)
    (root / _SWITCHING).unlink()
    sync(root)


def _unfinished(root: Path) -> _Pair | None:
    """The switch that has begun with `current`, and was broken off before its end."""
    try:
        pair = _Pair.model_validate_json((root / _SWITCHING).read_bytes())
    except (OSError, ValidationError):
        return None
    link = root / CURRENT
    leads_to = Path(os.readlink(link)).name if link.is_symlink() else None
    return pair if leads_to == pair.current else None


def _target(root: Path, link: str) -> Path | None:
    path = root / link
    return _existing(root, Path(os.readlink(path)).name) if path.is_symlink() else None


def _existing(root: Path, name: str) -> Path | None:
    folder = root / VERSIONS / name
    return folder if folder.is_dir() else None


def _lead(root: Path, link: str, name: str | None) -> None:
    """Let a link lead to another version, in one step; without a name, remove it."""
    if name is None:
        (root / link).unlink(missing_ok=True)
        sync(root)
        return
    fresh = root / f".{link}-{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(Path(VERSIONS) / name)
    try:
        fresh.replace(root / link)
    except OSError as e:
        fresh.unlink()
        raise BundleError(f"{root / link}: can't be switched: {e.strerror}; it must be a link or not there") from e
    sync(root)


def sync(path: Path) -> None:
    """Have a file or folder on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
