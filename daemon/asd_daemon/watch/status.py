"""The status file: written by the running daemon, read by `asd-daemon status`.

One small JSON file a daemon, in memory (/run) where there is such a folder, replaced as a whole. Where its folder takes nothing (a disk
that is full or read-only) it goes to a folder in memory under the same name, where `status` looks too: just then it is asked for. A
file that can't be written anywhere costs the status, never the listening.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from asd_daemon.private_files import make_private_file, make_private_folder
from asd_daemon.redaction import redact_all
from asd_daemon.tell.payloads import state_payload, time_text
from asd_daemon.watch.report import DeliveryReport, DeliveryReports, MachineReport, Reports

_LOG = logging.getLogger(__name__)
SCHEMA = 1
STALE_S = 60.0  # six windows without any progress
SLACK_S = 5.0  # a file that is written anew while it is read is from after the question
_WRITE_EVERY_S = 1.0
_NAME_CHARACTERS = 100  # of a file, so that every file system takes it
_SYSTEM_FOLDER = Path("/run/asd-daemon")
_GOOD = ("normal", "off", "starting", "learning")


class StatusFile:
    """Writes the file as windows go by, at most once a second unless a state has changed, and removes it at the end."""

    def __init__(
        self,
        file: Path,
        *,
        node: str,
        version: str,
        delivery_report: DeliveryReports = DeliveryReport,
        state_folder: Path = Path(),
        chosen: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._chosen = chosen
        self._state_folder = state_folder.absolute()
        self._file, self._node, self._version, self._delivery_report = file, node, version, delivery_report
        self._started_at = datetime.now(UTC)
        self._writer = secrets.token_hex(8)
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
        self._remove((self._file.parent, *spare_folders(self._file.parent)))

    def move(self, file: Path) -> None:
        """Write it elsewhere from now on."""
        if file != self._file:
            with self._lock:
                before, self._file = self._file, file
            self._write()
            with contextlib.suppress(OSError):
                before.unlink()

    def _remove(self, folders: Iterable[Path]) -> None:
        for folder in folders:
            with contextlib.suppress(OSError):
                (folder / self._file.name).unlink()

    def _states(self) -> list[tuple[str, object]]:
        """What is worth writing at once."""
        reports = self._reports() if self._reports else {}
        states: list[tuple[str, object]] = [
            (name, (r.state.condition, r.state.reason, r.state.event_id, r.state.troubles, r.above))
            for name, r in reports.items()
        ]
        delivery = self._delivery_report()
        broker_status, people = delivery.broker_status, delivery.notifications
        failing = tuple(recipient.trouble for recipient in people.recipients)
        return [
            *states,
            ("chosen", tuple(self._chosen())),
            ("", (broker_status.trouble, broker_status.troubles, failing)),
        ]

    def _write(self) -> None:
        if self._reports is None:
            return
        delivery = self._delivery_report()
        content = {
            "schema": SCHEMA,
            "node": self._node,
            "version": self._version,
            "pid": os.getpid(),
            "state_folder": str(self._state_folder),
            "started_at": time_text(self._started_at),
            "writer": self._writer,  # tells what one daemon left in two folders from what two of them wrote
            "updated_at": time_text(datetime.now(UTC)),
            "updated_monotonic_s": round(time.monotonic(), 3),  # which all processes share, and nobody can set
            "broker": asdict(delivery.broker_status),
            "kept": asdict(delivery.store_report),
            "chosen": list(self._chosen()),
            "notifications": asdict(delivery.notifications),
            "machines": {name: _machine(self._node, name, report) for name, report in self._reports().items()},
        }
        text = json.dumps(redact_all(content), ensure_ascii=False) + "\n"
        with self._lock:
            self._written_s, self._written_states = time.monotonic(), self._states()
            try:
                _replace(self._file, text)
            except OSError as e:
                spare = self._write_spare(text)
                if not self._failed:
                    where = f"it is {spare}" if spare else "`asd-daemon status` shows nothing"
                    _LOG.warning("%s: can't be written, %s: %s", self._file, where, e)
                self._failed = True
            else:
                if self._failed:
                    self._remove(spare_folders(self._file.parent))
                self._failed = False

    def _write_spare(self, text: str) -> Path | None:
        """Write it where there is still room; where that is."""
        with contextlib.suppress(OSError):
            self._file.unlink()  # it would only say how it was
        for folder in spare_folders(self._file.parent):
            try:
                if not _is_ours(folder.parent) or not _is_ours(folder):
                    continue
                _replace(folder / self._file.name, text)
            except OSError:
                continue
            return folder / self._file.name
        return None


def _replace(file: Path, text: str) -> None:
    """Replace a file as a whole, for its owner alone; in memory nothing need be synchronised."""
    make_private_folder(file.parent)
    fresh = file.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    make_private_file(fresh)
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)


def spare_folders(folder: Path, environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Where the files of a status folder lie when it takes nothing: in memory, under a name that no other status folder has."""
    mine = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:12]
    bases = [
        Path(environment[name].split(":")[0])
        for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR")
        if environment.get(name)
    ]
    bases += [Path("/dev/shm"), Path("/tmp")]  # noqa: S108  # in a folder that is checked to be ours
    return [base / f"asd-daemon-{os.geteuid()}" / mine for base in bases]


def _is_ours(folder: Path) -> bool:
    """Whether a folder is not there yet, or is one of this user's that nobody else may write: in /tmp anybody may have made it."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return True
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _machine(node: str, name: str, report: MachineReport) -> dict[str, Any]:
    state = {k: v for k, v in state_payload(node, name, report.state).items() if k not in ("schema", "node", "machine")}
    return {
        **state,
        "counts": asdict(report.counts),
        "source": asdict(report.source_health),
        "above": report.above and asdict(report.above),
    }


def status_folder(state_folder: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the file lies: as ASD_RUNTIME_DIR says, beside a state that was chosen, else in systemd's or the user's runtime folder."""
    if environment.get("ASD_RUNTIME_DIR"):
        return Path(environment["ASD_RUNTIME_DIR"])
    if environment.get("ASD_STATE_DIR"):
        return Path(environment["ASD_STATE_DIR"]) / "status"
    if environment.get("RUNTIME_DIRECTORY"):
        return Path(environment["RUNTIME_DIRECTORY"].split(":")[0])
    if environment.get("XDG_RUNTIME_DIR"):
        return Path(environment["XDG_RUNTIME_DIR"]) / "asd-daemon"
    return state_folder / "status"


def status_file(folder: Path, machines: Iterable[str]) -> Path:
    """A daemon's file: named after its machines, so that several daemons of one user have one each."""
    names = "+".join(machines)  # which no name holds
    if len(names) > _NAME_CHARACTERS:
        names = f"{names[:_NAME_CHARACTERS]}+{hashlib.sha256(names.encode()).hexdigest()[:8]}"
    return folder / f"status-{names}.json"


@dataclass(frozen=True)
class DaemonStatus:
    """What one daemon's file says, and whether it still holds."""

    file: Path
    content: Mapping[str, Any]
    trouble: str | None
    """Why the file can't be trusted: its daemon is gone, or has made no progress for a minute."""
    is_running: bool = True
    """Whether there is a process that may write it again."""

    @property
    def well(self) -> bool:
        """Whether the daemon lives, every machine is judged and normal, all can be kept, and broker and people are reached."""
        machines = self.content.get("machines", {}).values()
        are_well = all(machine.get("state") in _GOOD and not machine.get("troubles") for machine in machines)
        broker = self.content.get("broker", {})
        people = self.content.get("notifications", {}).get("recipients", ())
        are_told = not any(recipient.get("trouble") for recipient in people)
        return self.trouble is None and are_well and are_told and not (broker.get("trouble") or broker.get("troubles"))


def read_statuses(folder: Path, now_s: float, system: Path = _SYSTEM_FOLDER) -> list[DaemonStatus]:
    """The status of every daemon that is found: of this user's folder and of the system's services.

    Args:
        folder: this user's.
        now_s: time.monotonic().
        system: the services'.

    Raises:
        PermissionError: the system's folder is not ours to read.
    """
    spares = [spare for spare in spare_folders(folder) if _is_ours(spare.parent) and _is_ours(spare)]
    files = [f for each in (folder, *spares) for f in each.glob("status-*.json")]
    files += [*system.glob("status-*.json"), *system.glob("*/status-*.json")]
    if not files and system.is_dir():
        for below in system.iterdir():
            os.listdir(below)  # raises where it may not be read, which glob keeps silent about
    found = [_read(file, now_s) for file in sorted(set(files))]
    return [one for one in found if not any(_outdates(other, one) for other in found)]


def _outdates(other: DaemonStatus, one: DaemonStatus) -> bool:
    """Whether the same daemon has written another file later, in a folder that still takes one."""
    same = other.content.get("writer") == one.content.get("writer") is not None
    ages = [float(each.content.get("updated_monotonic_s", 0)) for each in (other, one)]
    return same and other.file != one.file and ages[0] > ages[1]


def _read(file: Path, now_s: float) -> DaemonStatus:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        age_s = now_s - float(content["updated_monotonic_s"])
        process_id = int(content["pid"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        return DaemonStatus(file, {}, f"can't be read: {e}", is_running=False)
    if not _is_running(process_id):
        gone = f"the daemon (process {process_id}) is gone; it did not stop in order"
        return DaemonStatus(file, content, gone, is_running=False)
    if age_s < -SLACK_S:
        earlier = "is of a daemon that ran before this box was started anew"
        return DaemonStatus(file, content, earlier, is_running=False)
    if age_s > STALE_S:
        return DaemonStatus(file, content, f"no progress for {age_s:.0f} s")
    return DaemonStatus(file, content, None)


def _is_running(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's, but there
        return True
    return True
