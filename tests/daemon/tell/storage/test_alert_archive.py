"""Alerts of the past on the disk: what is kept, what goes, what people said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from asd_daemon.errors import UsageError
from asd_daemon.tell.storage.alert_archive import MOST_ALERTS, AlertArchive, ArchivedAlert, archived_machines

START = datetime(2026, 5, 3, 12, tzinfo=UTC)
VECTORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}


def alert(event_id: str = "aaaa-1", hours: float = 0) -> ArchivedAlert:
    at = START + timedelta(hours=hours)
    return ArchivedAlert(event_id=event_id, started_at=at, at=at, peak_score=2, threshold=1.5, windows=2)


@pytest.fixture
def archive(tmp_path: Path) -> AlertArchive:
    return AlertArchive(tmp_path, "fan")


def test_an_alert_and_its_windows_are_what_was_written(archive: AlertArchive, tmp_path: Path) -> None:
    archive.write(alert(), VECTORS)
    assert archive.read("aaaa-1") == archive.read("aaaa") == alert()
    np.testing.assert_array_equal(archive.vectors("aaaa-1")["a"], VECTORS["a"])
    assert archived_machines(tmp_path) == ["fan"]
    assert {oct(file.stat().st_mode & 0o777) for file in (tmp_path / "fan").iterdir()} == {"0o600"}


def test_a_word_is_kept_and_taken_back_and_the_windows_stay(archive: AlertArchive) -> None:
    archive.write(alert(), VECTORS)
    said = archive.say("aaaa-1", "fault", START, "bearing")
    assert (said.word, said.name, said.said_at) == ("fault", "bearing", START)
    assert archive.read("aaaa-1") == said
    assert archive.say("aaaa-1", None, START) == alert()
    assert archive.vectors("aaaa-1")


def test_alerts_of_which_nothing_was_said_go_when_there_are_too_many_the_oldest_first(archive: AlertArchive) -> None:
    for number in range(MOST_ALERTS + 2):
        archive.write(alert(f"event-{number:03d}", number), VECTORS)
        if number == 0:
            archive.say("event-000", "normal", START)
    left = [kept.event_id for kept in archive.all()]
    assert left[0] == "event-000"
    assert left[1:] == [f"event-{number:03d}" for number in range(2, MOST_ALERTS + 2)]
    assert not archive.vectors("event-001")


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden", "x" * 101])
def test_what_is_no_name_of_an_alert_is_refused(archive: AlertArchive, name: str) -> None:
    with pytest.raises(UsageError, match="no alert's name"):
        archive.read(name)


def test_beginnings_of_several_names_and_of_none_are_refused_in_words(archive: AlertArchive) -> None:
    archive.write(alert("aaaa-1"))
    archive.write(alert("aaaa-2"))
    with pytest.raises(UsageError, match="2 alerts begin so"):
        archive.read("aaaa")
    with pytest.raises(UsageError, match="no such alert"):
        archive.read("b")


def test_damaged_files_are_named_and_others_are_still_read(archive: AlertArchive, tmp_path: Path) -> None:
    archive.write(alert("aaaa-1"), VECTORS)
    archive.write(alert("bbbb-1"), VECTORS)
    (tmp_path / "fan" / "aaaa-1.json").write_text("{}")
    (tmp_path / "fan" / "bbbb-1.npz").write_bytes(b"PK no")
    with pytest.raises(UsageError, match=r"aaaa-1\.json: event_id"):
        archive.read("aaaa-1")
    with pytest.raises(UsageError, match=r"bbbb-1\.npz: is damaged"):
        archive.vectors("bbbb-1")
    assert [kept.event_id for kept in archive.all()] == ["bbbb-1"]
