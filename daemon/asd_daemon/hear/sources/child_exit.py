"""What a child process leaves behind: its last words on standard error, how it ended, and orphans.

Owns no process; the supervisor asks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections import deque
from typing import IO

from asd_daemon.redaction import redact

_CHUNK_BYTES = 1 << 16
_REAP_S = 1.0
_LINE_BYTES = 1000


class StderrTail:
    """What a child prints to standard error: the last lines are kept and the rest is counted, so that no log fills a card."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=8)
        self._rest = b""
        self.count = 0

    def feed(self, data: bytes) -> bool:
        """Take in some bytes; False where there are none, at the end."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES:  # cut between two words, or half a secret would not be known as one
            self._rest = self._rest[-_LINE_BYTES:].partition(b" ")[2]
        for line in whole:
            self.count += 1
            if line.strip():
                self._lines.append(_shown(line))
        return bool(data)

    def last(self) -> str:
        """The last line that says something."""
        rest = _shown(self._rest)
        return rest or (self._lines[-1] if self._lines else "")


def _shown(line: bytes) -> str:
    return redact(line.decode(errors="replace").strip())[:200]


def has_living_orphans(group: int) -> bool:
    """Reap what is dead of a process group that is ours to reap; whether some of it still lives."""
    try:
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    except ChildProcessError:  # none of it is ours, or left
        return False
    return True


def file_descriptor(pipe: IO[bytes] | None) -> int:
    """The number of a pipe that was asked for."""
    if pipe is None:
        raise ValueError("a child without a pipe")
    return pipe.fileno()


def exit_reason(child: subprocess.Popen[bytes], stderr_tail: StderrTail) -> str:
    """Why the child ended, as far as it can be known."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_REAP_S)
    if child.returncode is not None:
        stderr = file_descriptor(child.stderr)
        os.set_blocking(stderr, False)
        with contextlib.suppress(BlockingIOError):
            stderr_tail.feed(os.read(stderr, _CHUNK_BYTES))
    how = "ended" if not child.returncode else f"ended with code {child.returncode}"
    if child.returncode is not None and child.returncode < 0:
        how = f"was killed by {signal.Signals(-child.returncode).name}"
    return f"{how}: {stderr_tail.last()}" if stderr_tail.last() else how
