"""Where the daemons of this box leave things: their state folders, their sockets and status files.

Folders are looked for anew each time they are asked for, since daemons come and go. A name from a browser never becomes part of a path.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asd_daemon.web.options import WebOptions

SCORES, HISTORY = "scores.sqlite", "history.sqlite"
ARCHIVE, CLIPS, ENROLLED, LOCKS = "alerts", "clips", "enrolled", "locks"
RECORD = "enrolled.json"
"""In the folder of a learned machine: what was learned, by which it is one."""


@dataclass(frozen=True)
class Places:
    """The folders by their patterns."""

    options: WebOptions

    def state_folders(self) -> list[Path]:
        """Those that a daemon has used."""
        return [folder for folder in _folders(self.options.state_folders) if (folder / LOCKS).is_dir()]

    def learned(self) -> set[str]:
        """Machines that were learned on this box or taken over from a backup, heard or not."""
        homes = (home for folder in self.state_folders() for home in (folder / ENROLLED).glob("*"))
        return {home.name for home in homes if (home / RECORD).is_file()}

    def sockets(self) -> list[Path]:
        """Where running daemons answer."""
        return [f for folder in _folders(self.options.status_folders) for f in sorted(folder.glob("live-*.sock"))]

    def statuses(self) -> Iterator[dict[str, Any]]:
        """What the status files say that can be read."""
        for folder in _folders(self.options.status_folders):
            for file in sorted(folder.glob("status-*.json")):
                try:
                    content = json.loads(file.read_text(encoding="utf-8"))
                except (OSError, ValueError):  # it is being replaced, or is no one's any more
                    continue
                if isinstance(content, dict):
                    yield content


def _folders(patterns: tuple[str, ...]) -> list[Path]:
    return [Path(found) for pattern in patterns for found in sorted(glob.glob(pattern)) if os.path.isdir(found)]
