"""A disk of its own that is small and can be filled."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A tmpfs of so many kB mounted at a folder; skips the test where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(file: Path, leave_kilobytes: int = 0) -> None:
    """Write zeros into a file until its disk has no more than so much room left."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        while os.statvfs(file).f_bavail * os.statvfs(file).f_frsize > leave_kilobytes * 1024:
            os.write(descriptor, bytes(4096))
    except OSError as e:
        if e.errno != errno.ENOSPC:
            raise
    finally:
        os.close(descriptor)


def make_read_only(folder: Path) -> None:
    """Let a small disk take nothing any more, as a card does that has failed."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
