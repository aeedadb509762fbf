"""The status file: written by the running daemon, read by `asd-daemon status`.

One small JSON file a daemon, in memory (/run) where there is such a folder, replaced as a whole. A file that can't be written costs
the status, never the listening.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asd_daemon.report import MachineReport, Reports
from asd_daemon.tell.messages import state_payload, time_text

_LOG = logging.getLogger(__name__)
SCHEMA = 1
STALE_S = 60.0  # six windows without any progress
_WRITE_EVERY_S = 1.0
_SYSTEM_FOLDER = Path("/run/asd-daemon")
_GOOD = ("normal", "starting", "learning")


class StatusFile:
    """Writes the file as windows go by, at most once a second unless a state has changed, and removes it at the end."""

    def __init__(self, file: Path, *, node: str, version: str) -> None:
        self._file, self._node, self._version = file, node, version
        self._started_at = datetime.now(UTC)
        self._reports: Reports | None = None
        self._lock = threading.Lock()
        self._written_s = float("-inf")
        self._written_states: list[tuple[str, object]] = []
        self._failed = False

    def start(self, reports: Reports) -> None:
        """Write it for the first time."""
        self._reports = reports
        self._write()

    def progressed(self) -> None:
        """Write it, if it is a second old or a state has changed."""
        with self._lock:
            is_fresh = time.monotonic() - self._written_s < _WRITE_EVERY_S
            if is_fresh and self._states() == self._written_states:
                return
        self._write()

    def close(self) -> None:
        """Remove it: who stops in order leaves nothing behind."""
        with contextlib.suppress(OSError):
            self._file.unlink()

    def _states(self) -> list[tuple[str, object]]:
        """What is worth writing at once."""
        reports = self._reports() if self._reports else {}
        return [(name, (r.state.condition, r.state.reason, r.state.event_id)) for name, r in reports.items()]

    def _write(self) -> None:
        if self._reports is None:
            return
        content = {
            "schema": SCHEMA,
            "node": self._node,
            "version": self._version,
            "pid": os.getpid(),
            "started_at": time_text(self._started_at),
            "updated_at": time_text(datetime.now(UTC)),
            "machines": {name: _machine(self._node, name, report) for name, report in self._reports().items()},
        }
        fresh = self._file.with_suffix(".new")
        with self._lock:
            self._written_s, self._written_states = time.monotonic(), self._states()
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                fresh.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
                fresh.replace(self._file)
            except OSError as e:
                if not self._failed:
                    _LOG.warning("%s: can't be written, `asd-daemon status` shows nothing: %s", self._file, e)
                self._failed = True


def _machine(node: str, name: str, report: MachineReport) -> dict[str, Any]:
    state = state_payload(node, name, report.state)
    kept = {k: state[k] for k in ("state", "since", "score", "threshold", "reason", "event_id")}
    return {**kept, "counts": asdict(report.counts), "source": asdict(report.vitals)}


def status_folder(state_folder: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the file lies: beside the state where that is chosen, else in systemd's or the user's runtime folder."""
    if environment.get("ASD_STATE_DIR"):
        return Path(environment["ASD_STATE_DIR"]) / "status"
    if environment.get("RUNTIME_DIRECTORY"):
        return Path(environment["RUNTIME_DIRECTORY"].split(":")[0])
    if environment.get("XDG_RUNTIME_DIR"):
        return Path(environment["XDG_RUNTIME_DIR"]) / "asd-daemon"
    return state_folder / "status"


def status_file(folder: Path, machines: Iterable[str]) -> Path:
    """A daemon's file: named after its machines, so that several daemons of one user have one each."""
    return folder / f"status-{'-'.join(machines)[:100]}.json"


@dataclass(frozen=True)
class DaemonStatus:
    """What one daemon's file says, and whether it still holds."""

    file: Path
    content: Mapping[str, Any]
    trouble: str | None
    """Why the file can't be trusted: its daemon is gone, or has made no progress for a minute."""

    @property
    def well(self) -> bool:
        """Whether the daemon lives and every machine is judged and normal."""
        states = [machine.get("state") for machine in self.content.get("machines", {}).values()]
        return self.trouble is None and all(state in _GOOD for state in states)


def read_statuses(folder: Path, now: datetime, system: Path = _SYSTEM_FOLDER) -> list[DaemonStatus]:
    """The status of every daemon that is found: of this user's folder and of the system's services.

    Raises:
        PermissionError: the system's folder is not ours to read.
    """
    files = [*folder.glob("status-*.json"), *system.glob("status-*.json"), *system.glob("*/status-*.json")]
    if not files and system.is_dir():
        for below in system.iterdir():
            os.listdir(below)  # raises where it may not be read, which glob keeps silent about
    return [_read(file, now) for file in sorted(set(files))]


def _read(file: Path, now: datetime) -> DaemonStatus:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        age_s = (now - datetime.fromisoformat(content["updated_at"])).total_seconds()
        process_id = int(content["pid"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        return DaemonStatus(file, {}, f"can't be read: {e}")
    if not _lives(process_id):
        return DaemonStatus(file, content, f"the daemon (process {process_id}) is gone; it did not stop in order")
    if age_s > STALE_S:
        return DaemonStatus(file, content, f"no progress for {age_s:.0f} s")
    return DaemonStatus(file, content, None)


def _lives(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's, but there
        return True
    return True
