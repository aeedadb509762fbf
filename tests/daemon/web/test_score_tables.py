"""Scores as a browser unpacks them."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from asd_daemon.tell.storage.score_log import LoggedScore, ScoreLog
from asd_daemon.web.score_tables import Row, packed, read_rows, stored_machines, with_recent

AT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
AT_MS = round(AT.timestamp() * 1000)


def unpacked(content: bytes) -> dict[str, Any]:
    length = struct.unpack("<I", content[:4])[0]
    head = json.loads(content[4 : 4 + length])
    n, at = head["windows"], 4 + length
    assert at % 8 == 0
    return {
        **head,
        "time": np.frombuffer(content, "<f8", n, at),
        "score": np.frombuffer(content, "<f4", n, at + 8 * n),
        "threshold": np.frombuffer(content, "<f4", n, at + 12 * n),
        "reason": np.frombuffer(content, "u1", n, at + 16 * n),
        "rest": content[at + 17 * n :],
    }


def test_rows_are_unpacked_as_they_were_kept(tmp_path: Path) -> None:
    log = ScoreLog(tmp_path / "scores.sqlite", every_s=3600, days=90)
    log.add(LoggedScore("pump", AT, 9.0, 9.0))
    log.add(LoggedScore("fan", AT, 0.5, 1.0))
    log.add(LoggedScore("fan", AT + timedelta(seconds=10), None, None, "clipping"))
    log.add(LoggedScore("fan", AT + timedelta(seconds=20), -2.25, 1.5))
    log.add(LoggedScore("fan", AT + timedelta(days=2), 7.0, 1.0))
    log.flush()
    span = (AT_MS, AT_MS + 60_000)
    table = unpacked(packed(read_rows(tmp_path / "scores.sqlite", "fan", *span), begin_ms=span[0], end_ms=span[1]))
    np.testing.assert_array_equal(table["time"], AT.timestamp() + np.array([0, 10, 20]))
    np.testing.assert_array_equal(table["score"], np.array([0.5, np.nan, -2.25], np.float32))
    np.testing.assert_array_equal(table["threshold"], np.array([1.0, np.nan, 1.5], np.float32))
    assert (table["reason"].tolist(), table["reasons"], table["rest"]) == ([0, 1, 0], ["clipping"], b"")
    assert stored_machines([tmp_path / "scores.sqlite", tmp_path / "none.sqlite"]) == {"fan", "pump"}
    log.close()
    assert list(read_rows(tmp_path / "scores.sqlite", "nobody", *span)) == []
    assert list(read_rows(tmp_path / "none.sqlite", "fan", *span)) == []


def test_a_folder_that_is_not_ours_to_write_is_read_when_nobody_has_it_open(tmp_path: Path) -> None:
    log = ScoreLog(tmp_path / "scores.sqlite", every_s=3600, days=90)
    log.add(LoggedScore("fan", AT, 0.5, 1.0))
    log.close()
    tmp_path.chmod(0o500)
    try:
        assert len(list(read_rows(tmp_path / "scores.sqlite", "fan", AT_MS, AT_MS + 1))) == 1
    finally:
        tmp_path.chmod(0o700)


def test_a_long_span_comes_in_buckets_that_keep_the_highest_score_and_the_number_of_rows_small() -> None:
    draw = np.random.default_rng(0)
    scores = draw.normal(1, 0.1, 20_000)
    scores[12_345] = 9.0
    rows: list[Row] = [(AT_MS + 10_000 * i, float(score), 2.0, None) for i, score in enumerate(scores)]
    rows[100:400] = [(at, None, None, "silence") for at, *_ in rows[100:400]]
    table = unpacked(packed(rows, begin_ms=AT_MS, end_ms=AT_MS + 200_000_000, most=5_000))
    assert 250 < table["windows"] < 330
    assert table["bucket_s"] > 600
    assert np.nanmax(table["score"]) == np.float32(9.0)
    assert table["reasons"] == ["silence"]
    assert 1 <= np.count_nonzero(table["reason"]) <= 6
    assert np.all(np.diff(table["time"]) > 0)
    peak = int(np.nanargmax(table["score"]))
    assert abs(table["time"][peak] - (AT_MS / 1000 + 123_450)) <= table["bucket_s"]


def test_what_a_daemon_has_not_written_yet_follows_what_it_has() -> None:
    kept: list[Row] = [(10, 1.0, 2.0, None), (20, 1.0, 2.0, None)]
    recent: list[Row] = [(20, 1.0, 2.0, None), (30, 3.0, 2.0, None)]
    assert list(with_recent(kept, recent)) == [*kept, recent[1]]
    assert list(with_recent([], recent)) == recent
