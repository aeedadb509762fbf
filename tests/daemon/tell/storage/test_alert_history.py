"""What is kept of alerts for people who look back."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.tell.payloads import NO_DETAILS, AlertDetails
from asd_daemon.tell.storage.alert_history import AlertHistory
from asd_daemon.tell.storage.machine_traces import remove_traces, rename_traces, traced_machines

AT = datetime.now(UTC).replace(microsecond=0)
OPENED = AlertEvent(AlertKind.OPEN, "e-1", AT, AT, 2.0, 2.0, 1.0, 2, 2)
CLOSED = replace(OPENED, kind=AlertKind.CLOSE, at=AT + timedelta(minutes=5), score=0.5, peak_score=3.0)


def rows(file: Path) -> list[sqlite3.Row]:
    database = sqlite3.connect(file)
    database.row_factory = sqlite3.Row
    try:
        return database.execute("select * from event order by opened_ms").fetchall()
    finally:
        database.close()


def test_an_alert_is_one_row_that_knows_how_it_opened_and_how_it_ended(tmp_path: Path) -> None:
    history = AlertHistory(tmp_path / "history.sqlite", days=90)
    history.record("fan", OPENED, AlertDetails(clip="clips/fan/x.flac"), told=False, clip_window_s=30.0)
    history.record("fan", CLOSED, AlertDetails(clip="clips/fan/x.flac"), told=True, clip_window_s=0.0)
    (row,) = rows(tmp_path / "history.sqlite")
    opened, latest = json.loads(row["opened"]), json.loads(row["latest"])
    assert (row["event_id"], row["machine"], row["told"], row["clip_window_s"]) == ("e-1", "fan", 1, 30.0)
    assert row["closed_ms"] - row["opened_ms"] == 300_000
    assert (opened["kind"], opened["peak_score"], opened["clip"]) == ("open", 2.0, "clips/fan/x.flac")
    assert (latest["kind"], latest["peak_score"], latest["outcome"]) == ("close", 3.0, "normal")


def test_old_alerts_go_when_another_comes(tmp_path: Path) -> None:
    history = AlertHistory(tmp_path / "history.sqlite", days=2)
    before = AT - timedelta(days=3)
    history.record(
        "fan", replace(OPENED, event_id="e-0", started_at=before, at=before), NO_DETAILS, told=True, clip_window_s=None
    )
    history.record("fan", OPENED, NO_DETAILS, told=True, clip_window_s=None)
    assert [row["event_id"] for row in rows(tmp_path / "history.sqlite")] == ["e-1"]


def test_a_broken_file_is_set_aside_and_one_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    file = tmp_path / "history.sqlite"
    file.write_bytes(b"no database" * 100)
    history = AlertHistory(file, days=90)
    history.record("fan", OPENED, NO_DETAILS, told=True, clip_window_s=None)
    assert history.write_error is None
    assert len(rows(file)) == 1
    assert len(list(tmp_path.glob("history.sqlite.broken-*"))) == 1

    blocked = AlertHistory(tmp_path / "history.sqlite" / "below", days=90)  # a file where a folder should be
    blocked.record("fan", OPENED, NO_DETAILS, told=True, clip_window_s=None)
    assert "can't be written" in (blocked.write_error or "")


def test_alerts_go_with_their_machine(tmp_path: Path) -> None:
    history = AlertHistory(tmp_path / "history.sqlite", days=90)
    history.record("fan", OPENED, NO_DETAILS, told=True, clip_window_s=None)
    rename_traces(tmp_path, "fan", "pump")
    assert traced_machines(tmp_path) == {"pump"}
    remove_traces(tmp_path, "pump")
    assert rows(tmp_path / "history.sqlite") == []
