"""Alerts that opened, from the files in which the daemons keep them."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asd_daemon.web.places import ARCHIVE, CLIPS, HISTORY
from asd_daemon.web.score_tables import open_read_only

EVENT_ID = re.compile(r"[0-9a-zA-Z-]{1,64}")
_COLUMNS = "event_id, machine, opened_ms, closed_ms, told, clip_window_s, opened, latest"


@dataclass(frozen=True)
class AlertRecord:
    """One alert."""

    folder: Path
    """The state folder of its daemon."""
    event_id: str
    machine: str
    opened_ms: int
    closed_ms: int | None
    told: bool
    """False where the machine was muted."""
    clip_window_s: float | None
    """Seconds from the beginning of the clip to the end of the window that opened the alert."""
    opened: dict[str, Any]
    """As it was told when it opened (docs/mqtt.md)."""
    latest: dict[str, Any]

    @property
    def word(self) -> str | None:
        """What somebody has said of it: normal, fault, or nothing yet."""
        word = self._said().get("word")
        return word if word in ("normal", "fault") else None

    @property
    def name(self) -> str | None:
        """What the fault is called."""
        name = self._said().get("name")
        return name if isinstance(name, str) else None

    @property
    def note(self) -> str:
        """What somebody has written down about it."""
        note = self._said().get("note")
        return note if isinstance(note, str) else ""

    def _said(self) -> dict[str, Any]:
        """The daemon's own file of the alert, where one is kept."""
        try:
            said = json.loads((self.folder / ARCHIVE / self.machine / f"{self.event_id}.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}

    @property
    def outcome(self) -> str:
        """open, normal or unknown."""
        return str(self.latest.get("outcome") or "normal") if self.closed_ms is not None else "open"

    @property
    def words(self) -> str:
        """What has changed."""
        return str(self.latest.get("text") or self.opened.get("text") or "Sounds different")

    @property
    def kinds(self) -> list[str]:
        """Kinds of change, the most telling first."""
        return [str(change["kind"]) for change in self.latest.get("changes", ())]

    @property
    def ratio(self) -> float | None:
        """The highest score in thresholds."""
        peak, threshold = self.latest.get("peak_score"), self.latest.get("threshold")
        return peak / threshold if peak is not None and threshold else None

    @property
    def clip(self) -> Path | None:
        """The file of its sound, None where there is none (yet)."""
        named = self.opened.get("clip")
        if not isinstance(named, str):
            return None
        home = (self.folder / CLIPS).resolve()
        file = (self.folder / named).resolve()
        return file if file.is_relative_to(home) and file.suffix == ".flac" and file.is_file() else None


def read_alerts(
    folders: Sequence[Path], *, machine: str | None = None, since_ms: int = 0, most: int = 200
) -> list[AlertRecord]:
    """Alerts, the latest first."""
    where, values = "opened_ms >= ?", [since_ms]
    found: list[AlertRecord] = []
    for folder in folders:
        if machine is not None:
            found += _read(folder, f"{where} and machine = ?", [*values, machine], most)
        else:
            found += _read(folder, where, values, most)
    return sorted(found, key=lambda record: -record.opened_ms)[:most]


def read_alert(folders: Sequence[Path], event_id: str) -> AlertRecord | None:
    """One alert by its id."""
    if not EVENT_ID.fullmatch(event_id):
        return None
    return next((r for folder in folders for r in _read(folder, "event_id = ?", [event_id], 1)), None)


def _read(folder: Path, where: str, values: Sequence[Any], most: int) -> list[AlertRecord]:
    file = folder / HISTORY
    if not file.exists():
        return []
    query = f"select {_COLUMNS} from event where {where} order by opened_ms desc limit ?"  # noqa: S608  # our own words
    try:
        with closing(open_read_only(file)) as database:
            rows = database.execute(query, (*values, most)).fetchall()
    except sqlite3.Error:  # being made, or set aside as broken; the daemon tells
        return []
    return [_record(folder, *row) for row in rows]


def _record(
    folder: Path,
    event_id: str,
    machine: str,
    opened_ms: int,
    closed_ms: int | None,
    told: int,
    clip_window_s: float | None,
    opened: str,
    latest: str,
) -> AlertRecord:
    details = json.loads(opened), json.loads(latest)
    return AlertRecord(folder, event_id, machine, opened_ms, closed_ms, bool(told), clip_window_s, *details)


def alike(record: AlertRecord, others: Sequence[AlertRecord]) -> list[AlertRecord]:
    """Earlier alerts of the same machine that began with the same kind of change."""
    if not record.kinds:
        return []
    return [o for o in others if o.opened_ms < record.opened_ms and o.kinds[:1] == record.kinds[:1]]
