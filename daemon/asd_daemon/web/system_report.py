"""How the box is: daemons, broker, disk, clock, bundle; and the same as a file for whoever helps, without secrets."""

from __future__ import annotations

import io
import json
import os
import platform
import time
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from asd_daemon.redaction import redact, redact_all
from asd_daemon.web.options import WebOptions
from asd_daemon.web.places import Places

_PACKAGES = (
    "asd-edge",
    "numpy",
    "onnxruntime",
    "paho-mqtt",
    "soundfile",
    "sounddevice",
    "starlette",
    "uvicorn",
    "apprise",
)
_SYNCHRONIZED = Path("/run/systemd/timesync/synchronized")
_MOST_CONFIGURATION_BYTES = 1_000_000


@dataclass(frozen=True)
class Disk:
    """Where a state folder lies."""

    folder: Path
    free_bytes: int
    total_bytes: int
    used: dict[str, int]
    """Bytes of scores, alerts, clips and what was learned."""


class SystemReport:
    """Reads all of it."""

    def __init__(self, places: Places, options: WebOptions) -> None:
        self._places, self._options = places, options

    def read(self) -> dict[str, Any]:
        """What the page shows."""
        return {
            "statuses": redact_all(list(self._places.statuses())),
            "disks": [_disk(folder) for folder in self._places.state_folders()],
            "now_ms": round(time.time() * 1000),
            "is_synchronized": _SYNCHRONIZED.exists() if _SYNCHRONIZED.parent.exists() else None,
            "up_s": time.clock_gettime(time.CLOCK_BOOTTIME),
            "load": os.getloadavg()[0],
            "cores": os.cpu_count() or 1,
            "versions": {name: _version(name) for name in _PACKAGES},
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        }

    def support_file(self, hub_machines: dict[str, Any]) -> bytes:
        """A zip with what is asked for when something is wrong; no sound, no password, no broker's credentials."""
        report = self.read()
        report["disks"] = [
            {"free_bytes": disk.free_bytes, "total_bytes": disk.total_bytes, "used": disk.used}
            for disk in report["disks"]
        ]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("system.json", json.dumps(redact_all(report), indent=2, default=str))
            archive.writestr("machines.json", json.dumps(redact_all(hub_machines), indent=2))
            if self._options.configuration is not None:
                archive.writestr("asd-daemon.yaml", _configuration(Path(self._options.configuration)))
        return packed.getvalue()


def _configuration(file: Path) -> str:
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            return "".join(f"{redact(line.rstrip())}\n" for line in opened.read(_MOST_CONFIGURATION_BYTES).splitlines())
    except OSError as e:
        return f"can't be read: {e.strerror}\n"


def _disk(folder: Path) -> Disk:
    disk = os.statvfs(folder)
    used = {
        "scores": _size(folder, "scores.sqlite*"),
        "alerts": _size(folder, "alerts.sqlite*") + _size(folder, "history.sqlite*") + _size(folder, "pictures/*/*"),
        "clips": _size(folder, "clips/*/*"),
        "learned machines": _size(folder, "enrolled/**/*"),
    }
    return Disk(folder, disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize, used)


def _size(folder: Path, pattern: str) -> int:
    total = 0
    for file in folder.glob(pattern):
        try:
            total += file.stat().st_size
        except OSError:  # gone meanwhile
            continue
    return total


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
