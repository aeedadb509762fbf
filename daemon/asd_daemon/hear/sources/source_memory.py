"""What is remembered of a machine's source from run to run: which device it is, and how loud the machine usually is.

One small JSON file a machine. A file that can't be read or written costs the memory, never the listening.
"""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path

from asd_daemon.private_files import make_private_file, make_private_folder

_LOG = logging.getLogger(__name__)


class SourceMemory:
    """Remembers in a file, or for this run only where there is none."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.identity: str | None = None
        """The device that is meant, as `Device.identity` and `PulseRoute` say it."""
        self.level_dbfs: float | None = None
        """The usual level of a window."""
        if file is not None:
            self._read(file)

    def keep_identity(self, identity: str) -> None:
        """Remember which device is meant."""
        self.identity = identity
        self._write()

    def keep_level(self, level_dbfs: float) -> None:
        """Remember the usual level."""
        self.level_dbfs = level_dbfs
        self._write()

    def check_device(self, identity: str) -> str | None:
        """Why this device must not be heard in the place of the one that is remembered; the first one ever is remembered."""
        if self.identity is None:
            self.keep_identity(identity)
        if identity == self.identity:
            return None
        how = f"delete {self.file}" if self.file else "start anew"
        return f"this is {identity}, not {self.identity} as before; if the new one is meant, {how}"

    def _read(self, file: Path) -> None:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            identity, level = content.get("identity"), content.get("level_dbfs")
        except FileNotFoundError:
            return
        except (OSError, ValueError, AttributeError) as e:
            _LOG.warning("%s: can't be read, device and usual level are learned anew: %s", file, e)
            return
        self.identity = identity if isinstance(identity, str) else None
        self.level_dbfs = float(level) if isinstance(level, int | float) and math.isfinite(level) else None

    def _write(self) -> None:
        if self.file is None:
            return
        fresh = self.file.with_suffix(f".{os.getpid()}.new")
        try:
            make_private_folder(self.file.parent)
            make_private_file(fresh)
            fresh.write_text(
                json.dumps({"identity": self.identity, "level_dbfs": self.level_dbfs}) + "\n", encoding="utf-8"
            )
            fresh.replace(self.file)
        except OSError as e:
            _LOG.warning("%s: can't be written, device and usual level are forgotten with this run: %s", self.file, e)
