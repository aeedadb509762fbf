"""Files of the state folder: readable by nobody but their owner, and owned by whoever owns the folder they lie in.

Owns modes and owners. What root makes in a service's state folder belongs to the service, which could not read it otherwise.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

FOLDER_MODE, FILE_MODE = 0o700, 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for its owner alone; one that exists stays as it is.

    Raises:
        OSError: the disk refuses.
    """
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    for each in reversed(missing):
        each.mkdir(FOLDER_MODE, exist_ok=True)
        give_to_owner_of(each.parent, [each])


def make_private_file(file: Path) -> None:
    """Have an empty file there that its owner alone may read, for whoever opens it by its name; one that exists keeps its content.

    Raises:
        OSError: the disk refuses.
    """
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
    give_to_owner_of(file.parent, [file])


def write_private(file: Path, text: str) -> None:
    """Replace a text file as a whole; it is on the disk when this returns.

    Raises:
        OSError: the disk refuses; the file before it stays.
    """
    fresh = file.with_name(f".{file.name}.new")
    fresh.unlink(missing_ok=True)
    make_private_file(fresh)
    with fresh.open("w", encoding="utf-8") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    fresh.replace(file)


def give_to_owner_of(folder: Path, paths: Iterable[Path]) -> None:
    """Where root writes into somebody else's folder, what it wrote becomes theirs."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(OSError):
        owner = folder.stat()
        if owner.st_uid != 0:
            for path in paths:
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def tighten(folder: Path, names: Iterable[str]) -> int:
    """Take the rights of others from a state folder and from what lies in it under these names, as far as it is ours; how many changed.

    A folder that is shared by its nature (/tmp, a home, the root) is left alone, what is ours in it is not.
    """
    changed = 0 if _is_shared(folder) else _tighten(folder)
    for name in names:
        for path in folder.glob(name):
            changed += _tighten(path)
            if path.is_dir() and not path.is_symlink():
                changed += sum(_tighten(below) for below in path.rglob("*"))
    return changed


def _is_shared(folder: Path) -> bool:
    try:
        sticky = bool(folder.stat().st_mode & stat.S_ISVTX)
        return sticky or folder.resolve() in (Path("/"), Path.home().resolve())
    except (OSError, RuntimeError):  # RuntimeError: nobody's home
        return True


def _tighten(path: Path) -> int:
    try:
        found = path.lstat()
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid() or not mode & _OTHERS:
            return 0
        path.chmod(mode & ~_OTHERS)
    except OSError:  # gone meanwhile, or a file system without modes
        return 0
    return 1
