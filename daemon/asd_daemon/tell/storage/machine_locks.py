"""One daemon a machine on this box: a lock file each in the state folder, held as long as the process lives.

Several daemons may share a state folder if they hear different machines. The kernel lets go of a lock when its process is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

from asd_daemon.errors import CannotStartError
from asd_daemon.private_files import make_private_folder

_LOG = logging.getLogger(__name__)
_FOLDER = "locks"
_LOOKS, _LOOK_S = 5, 0.02


class MachineLocks:
    """The locks of one process's machines.

    Raises:
        CannotStartError: another process of this box hears one of them.
    """

    def __init__(self, state_folder: Path, machines: Iterable[str]) -> None:
        self._folder, self._descriptors = state_folder, dict[str, int]()
        self.take(machines)

    def take(self, machines: Iterable[str]) -> None:
        """Take the locks of further machines: all of them, or none.

        Raises:
            CannotStartError: another process of this box hears one of them.
        """
        taken: list[str] = []
        try:
            for machine in machines:
                taken.append(machine)
                self._take(machine)
        except BaseException:
            self.release(taken)
            raise

    def _take(self, machine: str) -> None:
        state_folder, file = self._folder, _file(self._folder, machine)
        try:
            make_private_folder(file.parent)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as e:  # a state folder that can't be written costs what is kept, not the listening
            _LOG.warning("%s: can't be opened, so a second daemon would not be noticed: %s", file, e.strerror)
            return
        try:
            _lock(descriptor)
        except BlockingIOError as e:
            holder = "".join(c for c in os.pread(descriptor, 50, 0).decode(errors="replace") if c.isdigit())
            os.close(descriptor)
            raise CannotStartError(
                f"machine {machine} is heard by another daemon on this box already{f' (process {holder})' if holder else ''},"
                f" in the state folder {state_folder}; stop that one, or give this one another ASD_STATE_DIR and node"
            ) from e
        except OSError as e:  # a file system without locks
            os.close(descriptor)
            _LOG.warning("%s: can't be locked, so a second daemon would not be noticed: %s", file, e.strerror)
            return
        self._descriptors[machine] = descriptor
        with contextlib.suppress(OSError):  # a full disk
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f'{{"process": {os.getpid()}}}\n'.encode(), 0)

    def release(self, machines: Iterable[str]) -> None:
        """Let go of some."""
        for machine in machines:
            descriptor = self._descriptors.pop(machine, None)
            if descriptor is not None:
                os.close(descriptor)

    def close(self) -> None:
        """Let go of them."""
        self.release(list(self._descriptors))


def is_heard(state_folder: Path, machine: str) -> bool:
    """Whether a process of this box hears a machine now."""
    try:
        descriptor = os.open(_file(state_folder, machine), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def remove_lock(state_folder: Path, machine: str) -> None:
    """Delete the lock file of a machine that nobody hears."""
    with contextlib.suppress(OSError):
        _file(state_folder, machine).unlink()


def _lock(descriptor: int) -> None:
    """Take a lock; somebody may just be looking whether it is held, so it is tried for a moment."""
    for _ in range(_LOOKS):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_LOOK_S)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _file(state_folder: Path, machine: str) -> Path:
    return state_folder / _FOLDER / f"{machine}.json"
