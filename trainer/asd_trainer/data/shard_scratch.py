"""A folder for the shard at hand, and what killed calls have left of theirs.

A call holds a lock of its folder for as long as it lives, which no signal leaves behind; so a folder without one is nobody's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

_PREFIX = ".shard-"
_HELD = re.compile(r"shard-\d{5,}\.parquet")


@contextlib.contextmanager
def scratch_folder(beside: Path | None) -> Iterator[Path]:
    """A folder of one's own, gone at the end; what earlier calls that were killed have left beside it is removed first.

    Args:
        beside: where it lies, so that a shard is moved and not copied; None: where temporary files lie.

    Raises:
        OSError: it can't be made.
    """
    home = Path(gettempdir()) if beside is None else beside
    with contextlib.ExitStack() as stack:
        with _locked(home):  # nobody sweeps between the folder and its lock
            remove_left_behind(home)
            scratch = Path(stack.enter_context(TemporaryDirectory(prefix=_PREFIX, dir=home)))
            stack.enter_context(_locked(scratch))
        yield scratch


def remove_left_behind(home: Path) -> None:
    """Remove the folders of calls that were killed: those that hold nothing but shards, and that nobody has locked."""
    for folder in home.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, in use, or gone by now
            if folder.is_symlink() or not all(_HELD.fullmatch(file.name) for file in folder.iterdir()):
                continue
            with _locked(folder, waits=False):
                shutil.rmtree(folder)


@contextlib.contextmanager
def _locked(folder: Path, *, waits: bool = True) -> Iterator[None]:
    """Hold a folder's lock.

    Raises:
        OSError: somebody else holds it, and one shall not wait; or it can't be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except OSError:
            if not waits:
                raise
            # a file system without locks: there nothing can be held, and nothing is ever removed either
        yield
    finally:
        os.close(descriptor)
