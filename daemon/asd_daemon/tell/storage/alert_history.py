"""Every alert that opened, how it went and how it ended: what people look back at, long after the broker has confirmed it.

One SQLite file for all machines, one row an alert. A disk that does not take it costs the row and is told as `write_error`; no alert
waits for it.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.tell.payloads import AlertDetails, alert_payload
from asd_daemon.tell.storage.database import is_broken, open_database, set_aside
from asd_daemon.tell.storage.plausible_clock import PlausibleClock

_LOG = logging.getLogger(__name__)
_VERSION = 1
_TABLES = """
create table if not exists event (
    event_id text primary key, machine text not null, opened_ms integer not null, closed_ms integer,
    told integer not null, clip_window_s real, opened text not null, latest text not null
);
create index if not exists event_opened on event (opened_ms);
"""
_INSERT = """
insert into event (event_id, machine, opened_ms, closed_ms, told, clip_window_s, opened, latest)
values (:event_id, :machine, :opened_ms, :closed_ms, :told, :clip_window_s, :payload, :payload)
on conflict (event_id) do """
_CHANGE = "update set closed_ms = excluded.closed_ms, told = max(told, excluded.told), latest = excluded.latest"
_DAY_S = 86_400.0


class AlertHistory:
    """The file while the daemon runs; safe from several threads and processes.

    Args:
        file: the database.
        days: alerts that opened earlier are deleted, by a clock that can be trusted.
        now_s: Unix time.
        clock: whether ages hold.
    """

    def __init__(
        self, file: Path, *, days: float, now_s: Callable[[], float] = time.time, clock: PlausibleClock | None = None
    ) -> None:
        self._file, self._days, self._now_s = file, days, now_s
        self._clock = clock or PlausibleClock(now_s)
        self._lock = threading.Lock()
        self._write_error: str | None = None

    @property
    def write_error(self) -> str | None:
        """Why the last alert could not be kept, in words; None where it could."""
        return self._write_error

    def record(
        self,
        machine: str,
        event: AlertEvent,
        details: AlertDetails,
        *,
        told: bool,
        clip_window_s: float | None,
        only_new: bool = False,
    ) -> None:
        """Keep how an alert stands.

        Args:
            machine: whose.
            event: what happened.
            details: what is known of it.
            told: whether people were told, or the machine was muted.
            clip_window_s: seconds from the beginning of the clip to the end of the window that opened the alert.
            only_new: whether what is kept of it already stays as it is.
        """
        payload = alert_payload("", machine, event, details)
        row = {
            "event_id": event.event_id,
            "machine": machine,
            "opened_ms": round(event.started_at.timestamp() * 1000),
            "closed_ms": round(event.at.timestamp() * 1000) if event.kind is AlertKind.CLOSE else None,
            "told": int(told),
            "clip_window_s": clip_window_s,
            "payload": json.dumps({k: v for k, v in payload.items() if k not in ("node", "repeated")}),
        }
        with self._lock:
            try:
                try:
                    self._write(row, only_new=only_new)
                except sqlite3.DatabaseError as e:
                    if not is_broken(e):
                        raise
                    set_aside(self._file, e, self._now_s())
                    self._write(row, only_new=only_new)
            except (sqlite3.Error, OSError) as e:
                if self._write_error is None:
                    _LOG.error("%s can't be written: %s; the alert is told all the same", self._file, e)
                self._write_error = f"{self._file} can't be written: {e}"
            else:
                self._write_error = None

    def _write(self, row: dict[str, Any], *, only_new: bool) -> None:
        # Opened for each alert: they are rare, and an open file would be one more to keep for months
        database = open_database(self._file, _TABLES, version=_VERSION, synchronous="normal")
        try:
            database.execute(_INSERT + ("nothing" if only_new else _CHANGE), row)
            age_s = self._days * _DAY_S
            if self._clock.objection(age_s) is None:
                database.execute("delete from event where opened_ms < ?", ((self._now_s() - age_s) * 1000,))
        finally:
            database.close()
