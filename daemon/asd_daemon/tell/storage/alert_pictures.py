"""Pictures of alerts until nobody needs them any more: a file each, the newest few of a machine.

Where nothing of the sound may be kept, a few are held in memory instead, and a restart costs them. A disk that does not take one costs
the picture, never the message.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from pathlib import Path

from asd_daemon.private_files import make_private_file, make_private_folder

_LOG = logging.getLogger(__name__)
_MOST_FILES, _MOST_IN_MEMORY = 30, 4
_EVENT_ID = re.compile(r"[0-9a-zA-Z-]{1,64}")


class AlertPictures:
    """The folder of pictures, one below it for each machine.

    Args:
        folder: where the machines' folders lie; None holds them in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._held: OrderedDict[str, bytes] = OrderedDict()

    def put(self, machine: str, event_id: str, png: bytes) -> None:
        """Keep the picture of an alert, in the place of an earlier one."""
        if not _EVENT_ID.fullmatch(event_id):
            return
        if self._folder is None:
            with self._lock:
                self._held[event_id] = png
                while len(self._held) > _MOST_IN_MEMORY:
                    self._held.popitem(last=False)
            return
        try:
            home = self._folder / machine
            make_private_folder(home)
            fresh = home / f".{event_id}.new"
            make_private_file(fresh)
            fresh.write_bytes(png)
            fresh.replace(home / f"{event_id}.png")
            kept = sorted(home.glob("*.png"), key=lambda file: file.stat().st_mtime)
            for old in kept[:-_MOST_FILES]:
                old.unlink(missing_ok=True)
        except OSError as e:
            _LOG.warning("%s: no picture of alert %s: %s", machine, event_id, e.strerror or e)

    def get(self, machine: str, event_id: str) -> bytes | None:
        """The picture of an alert; None where there is none."""
        if self._folder is None or not _EVENT_ID.fullmatch(event_id):
            with self._lock:
                return self._held.get(event_id)
        try:
            return (self._folder / machine / f"{event_id}.png").read_bytes()
        except OSError:
            return None
