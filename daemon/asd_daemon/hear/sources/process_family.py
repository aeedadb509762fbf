"""A child process with all that it has started, wherever that went: known by descent and by a mark in its environment, ended together.

A process group alone does not do: a program may begin a session of its own (`setsid`) or let its parent end, and would then hold the
device for ever. What can't be known is a descendant that has both left and emptied its environment. Linux tells by /proc; elsewhere the
group is all there is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MARK_VARIABLE = "ASD_CHILD_MARK"
_PROC = Path("/proc")
_ROUNDS = 5  # while they are ended they may start others


def new_mark() -> str:
    """A value of MARK_VARIABLE that no other child has."""
    return f"{os.getpid()}-{uuid.uuid4().hex}"


@dataclass(frozen=True)
class _Process:
    pid: int
    parent: int
    group: int
    started: int
    """Clock ticks since boot."""


def started_at(pid: int) -> int:
    """When a process began, in the kernel's ticks; 0 where that can't be known."""
    found = _look_at(pid)
    return found.started if found else 0


def end_family(pid: int, mark: str, since: int = 0) -> set[int]:
    """Kill a child that leads a process group, its group, its descendants and whatever carries its mark.

    Args:
        pid: of the child; it may be over.
        mark: what MARK_VARIABLE was when it was started.
        since: `started_at` of the first child with this mark: what is older is not looked at.

    Returns:
        the process groups that were met, for those who have to reap their dead.
    """
    groups = {pid}
    for _ in range(_ROUNDS):
        family = _family(pid, mark, since)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        if not family:
            break
        for process in family:
            groups.add(process.group)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)
    return groups - {os.getpgrp()}


def _family(pid: int, mark: str, since: int) -> list[_Process]:
    """All that lives of it but the child itself."""
    wanted = f"{MARK_VARIABLE}={mark}".encode()
    living = [p for p in _living() if p.started >= since and p.pid not in (pid, os.getpid())]
    known = {pid}
    while more := {p.pid for p in living if p.parent in known} - known:
        known |= more
    return [p for p in living if p.pid in known or wanted in _environment(p.pid).split(b"\0")]


def _living() -> Iterator[_Process]:
    try:
        names = os.listdir(_PROC)
    except OSError:
        return
    for name in names:
        if name.isdecimal() and (found := _look_at(int(name))) is not None:
            yield found


def _look_at(pid: int) -> _Process | None:
    """What the kernel says of a process; None where it is over."""
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rfind(b")") + 2 :].split()  # a program's name may hold anything
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return _Process(pid, parent=int(fields[1]), group=int(fields[2]), started=int(fields[19]))


def _environment(pid: int) -> bytes:
    try:
        return (_PROC / str(pid) / "environ").read_bytes()
    except OSError:  # over, or not ours
        return b""
