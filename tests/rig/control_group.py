"""A control group of the kernel: so much memory, no swap, and a share of the processors, for processes that are put into it.

Made by hand in the file system, version 1 or 2, below the group that we are in ourselves (version 2: below the root, since a group with
processes can have none below it). Wants root.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rig.waiting import wait_until

GROUPS = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000


def missing(groups: Path = GROUPS) -> str | None:
    """What keeps such a group from being made here; None when nothing does."""
    if os.geteuid() != 0:
        return "a control group wants root"
    if _is_second(groups):
        has = (groups / "cgroup.controllers").read_text().split()
        return None if {"memory", "cpu"} <= set(has) else f"{groups} has no controllers for memory and cpu"
    for controller in ("memory", "cpu"):
        if not os.access(groups / controller, os.W_OK):
            return f"there is no {groups / controller} that can be written"
    return None if (groups / "memory" / "memory.memsw.limit_in_bytes").exists() else "the kernel does not limit swap"


def _is_second(groups: Path) -> bool:
    return (groups / "cgroup.controllers").exists()


def _own(controller: str) -> str:
    """The group of version 1 that we are in, as a path below its controller."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    return next((path.strip("/") for _, names, path in lines if controller in names.split(",")), "")


class ControlGroup:
    """`with ControlGroup("board", 512 * 2**20, 0.08) as group:`; processes are started with `group.prefix` before their words.

    Args:
        name: of the group; the number of this process is added.
        memory_bytes: all that its processes and their files in memory may take.
        processors: share of one processor, for all of them together; None: as much as there is.
    """

    def __init__(self, name: str, memory_bytes: int, processors: float | None = None, *, groups: Path = GROUPS) -> None:
        folder = f"{name}-{os.getpid()}"
        self._second = _is_second(groups)
        if self._second:
            self._memory = self._processor = groups / folder
        else:
            self._memory = groups / "memory" / _own("memory") / folder
            self._processor = groups / "cpu" / _own("cpu") / folder
        self._groups, self._memory_bytes, self._processors = groups, memory_bytes, processors

    @property
    def _folders(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys((self._memory, self._processor)))

    def __enter__(self) -> Self:
        if self._second:
            (self._groups / "cgroup.subtree_control").write_text("+memory +cpu")
        for folder in self._folders:
            folder.mkdir()
        limit = str(self._memory_bytes)
        if self._second:
            (self._memory / "memory.max").write_text(limit)
            (self._memory / "memory.swap.max").write_text("0")
        else:
            (self._memory / "memory.limit_in_bytes").write_text(limit)
            (self._memory / "memory.memsw.limit_in_bytes").write_text(limit)
        if self._processors is not None:
            quota_us = round(self._processors * _PERIOD_US)
            if self._second:
                (self._processor / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
            else:
                (self._processor / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
                (self._processor / "cpu.cfs_quota_us").write_text(str(quota_us))
        return self

    def __exit__(self, *exc: object) -> None:
        wait_until(self._is_gone, f"{self._memory} is empty and gone")

    def _is_gone(self) -> bool:
        """End what is left in it, and take it away as soon as the kernel lets go of it."""
        for folder in self._folders:
            if not folder.exists():
                continue
            for number in (folder / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(number), signal.SIGKILL)
            with contextlib.suppress(OSError):
                folder.rmdir()
        return not any(folder.exists() for folder in self._folders)

    @property
    def prefix(self) -> Sequence[str]:
        """Words before those of a program, which then runs in this group."""
        joins = " && ".join(f'echo $$ > "{folder}/cgroup.procs"' for folder in self._folders)
        return ("/bin/sh", "-c", f'{joins} && exec "$@"', "sh")

    @property
    def peak_mb(self) -> float:
        """The most that it has taken, with files that could have been dropped."""
        name = "memory.peak" if self._second else "memory.max_usage_in_bytes"
        return int((self._memory / name).read_text()) / 2**20

    @property
    def anonymous_mb(self) -> float:
        """What it takes now and can't be dropped."""
        return self._stat("anon" if self._second else "total_rss") / 2**20

    @property
    def killed(self) -> int:
        """Processes that were killed because it was full."""
        name = "memory.events" if self._second else "memory.oom_control"
        found = re.search(r"^oom_kill (\d+)$", (self._memory / name).read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1])

    def _stat(self, key: str) -> int:
        found = re.search(rf"^{key} (\d+)$", (self._memory / "memory.stat").read_text(), re.MULTILINE)
        assert found is not None, key
        return int(found[1])
