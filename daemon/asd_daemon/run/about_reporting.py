"""Says over MQTT what each machine is heard by: program, bundle, what was learned, room on the disk; for whoever looks after many boxes.

Said when the daemon starts, when something of it changes, and so that the free disk is never older than an hour; nothing is written.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from asd_daemon.errors import AsdError
from asd_daemon.judge.scoring.scoring_choice import Scoring
from asd_daemon.run.shared_bundle import enrolled_folder
from asd_daemon.tell.payloads import about_payload, time_text, to_json
from asd_daemon.watch.report import Reports

_LOOK_EVERY_S = 60.0
_SAY_EVERY_S = 3600.0
_DISK_STEP = 0.01
Say = Callable[[str, bytes], None]


class AboutReporting:
    """A reporter on the running daemon.

    Args:
        node: this box's name.
        folder: the state folder, of whose disk it tells.
        bundle: name and version of the bundle; None until it is loaded.
        title: what people call a machine.
        scoring: by what a machine is judged, as it is configured.
        say: publishes a machine's payload.
        rollout: how far a bundle that is offered has come; None: nothing is asked for.
        clock_s: seconds that never go back.
    """

    def __init__(
        self,
        node: str,
        folder: Path,
        bundle: Callable[[], str | None],
        title: Callable[[str], str | None],
        scoring: Callable[[str], Scoring],
        say: Say,
        rollout: Callable[[], dict[str, Any] | None] = lambda: None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node, self._folder, self._bundle, self._title, self._say = node, folder, bundle, title, say
        self._scoring, self._rollout = scoring, rollout
        self._clock_s, self._started_at = clock_s, datetime.now(UTC)
        self._reports: Reports | None = None
        self._lock = threading.Lock()
        self._looked_s = self._said_s = float("-inf")
        self._said: dict[str, dict[str, Any]] = {}
        self._records: dict[str, tuple[int, dict[str, Any]]] = {}

    def start(self, reports: Reports) -> None:
        """Begin with the first progress."""
        self._reports = reports

    def progressed(self) -> None:
        """Look once a minute whether there is something to say; cheap."""
        now_s = self._clock_s()
        if now_s - self._looked_s < _LOOK_EVERY_S or not self._lock.acquire(blocking=False):
            return
        try:
            self._looked_s = now_s
            self._look(now_s)
        finally:
            self._lock.release()

    def close(self) -> None:
        """There is nothing to end."""

    def _look(self, now_s: float) -> None:
        machines = list(self._reports()) if self._reports is not None else []
        shared = self._facts()
        if shared["bundle"] is None:  # it is being loaded; the next window asks again
            self._looked_s = float("-inf")
            return
        is_old = now_s - self._said_s >= _SAY_EVERY_S
        for machine in machines:
            facts = shared | {"title": self._title(machine), "scoring": self._scoring(machine)} | self._learned(machine)
            before = self._said.get(machine)
            if is_old or before is None or _differs(before, facts):
                self._said[machine] = facts
                self._say(machine, to_json(about_payload(self._node, machine, datetime.now(UTC), facts)))
        if is_old:
            self._said_s = now_s

    def _learned(self, machine: str) -> dict[str, Any]:
        """When and from how much it was learned on this box; read again when the record is another one."""
        from asd_daemon.learn.enrolment_record import RECORD, read_enrolment

        file = enrolled_folder() / machine / RECORD
        try:
            changed_ns = file.stat().st_mtime_ns
        except OSError:
            return {"learned": None, "learned_windows": None}
        if machine not in self._records or self._records[machine][0] != changed_ns:
            try:
                record = read_enrolment(enrolled_folder(), machine)
            except AsdError:  # the judge says what is wrong with it
                record = None
            facts = {
                "learned": None if record is None else record.created,
                "learned_windows": None if record is None else record.windows,
            }
            self._records[machine] = (changed_ns, facts)
        return self._records[machine][1]

    def _facts(self) -> dict[str, Any]:
        free, total = _disk(self._folder)
        return {
            "version": metadata.version("asd-edge"),
            "bundle": self._bundle(),
            "started_at": time_text(self._started_at),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "disk_free_bytes": free,
            "disk_bytes": total,
            "rollout": self._rollout(),
        }


def _disk(folder: Path) -> tuple[int | None, int | None]:
    """Bytes that are free, and all."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None, None
    return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize


def _differs(before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether there is something new in it; the free disk moves all the time."""
    free, total = now["disk_free_bytes"], now["disk_bytes"]
    if (
        None not in (free, total, before["disk_free_bytes"])
        and abs(free - before["disk_free_bytes"]) > _DISK_STEP * total
    ):
        return True
    return any(before[key] != now[key] for key in now if key != "disk_free_bytes")
