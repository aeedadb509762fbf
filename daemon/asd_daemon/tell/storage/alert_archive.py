"""Alerts of the past, one machine's: what each was, the vectors of its windows, and what people said of it.

    ROOT/<machine>/<event_id>.json   what it was, and the word
    ROOT/<machine>/<event_id>.npz    view → (K, D); no sound

Owns these files. Those of which nobody has said anything go, the oldest first, when there are too many; the others stay.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from asd_daemon.errors import UNREADABLE_ARRAY, UsageError
from asd_daemon.private_files import give_to_owner_of, make_private_folder, write_private

F32 = NDArray[np.float32]
Word = Literal["normal", "fault"]
MOST_ALERTS = 100
MOST_BYTES = 2**20
_EVENT_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9-]{0,99}$")


class ArchivedAlert(BaseModel):
    """One alert."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    event_id: str = Field(pattern=_EVENT_ID.pattern)
    started_at: datetime
    at: datetime
    """UTC time of the last window that was told."""
    closed_at: datetime | None = None
    peak_score: float
    threshold: float
    text: str | None = None
    """What had changed, in words."""
    clip: str | None = None
    """The file of its sound, below the state folder."""
    windows: int = 0
    """K."""
    probes: dict[str, Any] = Field(default_factory=dict)
    """How each view of its vectors was computed."""
    word: Word | None = None
    """What somebody said."""
    name: str | None = None
    """What the fault is called."""
    said_at: datetime | None = None
    note: str | None = None
    """What somebody has written down about it."""


class AlertArchive:
    """One machine's.

    Args:
        root: where the machines' folders lie.
        machine: whose.
    """

    def __init__(self, root: Path, machine: str) -> None:
        self._folder, self._machine = root / machine, machine

    def write(self, alert: ArchivedAlert, vectors: Mapping[str, F32] | None = None) -> None:
        """Keep an alert, whole or as it was before; and its vectors, where they are given.

        Raises:
            OSError: the disk refuses.
        """
        make_private_folder(self._folder)
        if vectors:
            file = self._vectors_file(alert.event_id)
            fresh = file.with_name(f".{file.name}.new")
            with fresh.open("wb") as f:
                np.savez(f, **vectors)  # type: ignore[arg-type]
            fresh.chmod(0o600)
            give_to_owner_of(self._folder, [fresh])
            fresh.replace(file)
        is_new = not self._file(alert.event_id).exists()
        write_private(self._file(alert.event_id), alert.model_dump_json(indent=1) + "\n")
        if is_new:
            self._make_room()

    def read(self, event_id: str) -> ArchivedAlert:
        """An alert by its name, or the beginning of it.

        Raises:
            UsageError: there is none, there are several, or it can't be read.
        """
        if not _EVENT_ID.match(event_id):
            raise UsageError(f"{event_id!r} is no alert's name")
        if self._file(event_id).exists():
            return self._read(self._file(event_id))
        found = sorted(self._folder.glob(f"{event_id}*.json"))
        if len(found) != 1:
            what = "there is no such alert" if not found else f"{len(found)} alerts begin so"
            raise UsageError(f"{self._machine}: {event_id}: {what}; `asd-daemon alerts list` has them")
        return self._read(found[0])

    def all(self) -> list[ArchivedAlert]:
        """Every alert that can be read, the oldest first."""
        alerts = []
        for file in self._folder.glob("*.json"):
            with contextlib.suppress(UsageError):
                alerts.append(self._read(file))
        return sorted(alerts, key=lambda alert: (alert.started_at, alert.event_id))

    def vectors(self, event_id: str) -> dict[str, F32]:
        """Vectors of its windows, view → (K, D); none where none were kept.

        Raises:
            UsageError: the file is damaged.
        """
        file = self._vectors_file(event_id)
        try:
            with file.open("rb") as content, np.load(content, allow_pickle=False) as saved:
                return {view: np.asarray(saved[view], np.float32) for view in saved.files}
        except FileNotFoundError:
            return {}
        except (*UNREADABLE_ARRAY, AttributeError) as e:
            raise UsageError(f"{file}: is damaged: {e}") from e

    def say(self, event_id: str, word: Word | None, at: datetime, name: str | None = None) -> ArchivedAlert:
        """Note what somebody says of an alert; None takes back what was said.

        Raises:
            UsageError: there is no such alert.
            OSError: the disk refuses.
        """
        alert = self.read(event_id)
        said = alert.model_copy(update={"word": word, "name": name, "said_at": at if word else None})
        self.write(said)
        return said

    def note(self, event_id: str, text: str | None) -> ArchivedAlert:
        """Keep what somebody writes down about an alert, in place of what was written before.

        Raises:
            UsageError: there is no such alert.
            OSError: the disk refuses.
        """
        noted = self.read(event_id).model_copy(update={"note": text or None})
        self.write(noted)
        return noted

    def _make_room(self) -> None:
        for alert in [alert for alert in self.all() if alert.word is None and alert.note is None][:-MOST_ALERTS]:
            self._vectors_file(alert.event_id).unlink(missing_ok=True)
            self._file(alert.event_id).unlink(missing_ok=True)

    def _read(self, file: Path) -> ArchivedAlert:
        try:
            with file.open("rb") as f:
                return ArchivedAlert.model_validate_json(f.read(MOST_BYTES))
        except OSError as e:
            raise UsageError(f"{file}: can't be read: {e.strerror}") from e
        except ValidationError as e:
            first = e.errors(include_url=False)[0]
            raise UsageError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from e

    def _file(self, event_id: str) -> Path:
        return self._folder / f"{event_id}.json"

    def _vectors_file(self, event_id: str) -> Path:
        return self._folder / f"{event_id}.npz"


def archived_machines(root: Path) -> list[str]:
    """Machines of which alerts are kept, sorted.

    Raises:
        UsageError: the folder can't be read.
    """
    try:
        return sorted(home.name for home in root.iterdir() if home.is_dir())
    except FileNotFoundError:
        return []
    except OSError as e:
        raise UsageError(f"{root}: can't be read: {e.strerror}") from e
