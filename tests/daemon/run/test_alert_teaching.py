"""What people say of alerts: what is kept of them, what is refused, what the judge makes of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.judge.scoring.verdict import Likeness
from asd_daemon.run.alert_teaching import MOST_WINDOWS, AlertTeaching
from asd_daemon.tell.commands import Command
from asd_daemon.tell.storage.alert_archive import AlertArchive

START = datetime(2026, 5, 3, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Described:
    score: float
    vectors: dict[str, NDArray[np.float32]]
    threshold: float = 1.5
    enrolled: None = None
    like: Likeness | None = None
    operating_state: None = None
    is_off: bool = False

    @property
    def anomalous(self) -> bool:
        return self.score > self.threshold


@dataclass
class Rig:
    """A machine that fails: windows are numbered, and so are their vectors."""

    root: Path
    heard: int = 0
    is_open: bool = False
    events: list[AlertEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.archive = AlertArchive(self.root, "fan")
        self.teaching = AlertTeaching("fan", self.archive)

    def hear(self, score: float) -> None:
        at = START + timedelta(seconds=10 * self.heard)
        vectors = {"moving-texture": np.full((1, 4), self.heard, np.float32)}
        self.teaching.hear(Described(score, vectors), at, alert_open=self.is_open)
        self.heard += 1

    def follow(self, kind: AlertKind, event_id: str = "event-1", since: int = 0) -> AlertEvent:
        started_at = START + timedelta(seconds=10 * since)
        event = AlertEvent(kind, event_id, started_at, START + timedelta(seconds=10 * self.heard), 2, 2, 1.5, 2, 2)
        self.is_open = kind is not AlertKind.CLOSE
        self.teaching.follow(event, "Hisses", "clips/x.flac")
        return event

    def say(self, word: str, open_event: str | None = None, **more: object) -> tuple[bool, str]:
        command = Command.model_validate({"command": word, "event_id": "event-1", **more})
        answer, _ = self.teaching.say(command, open_event, START)
        return answer.ok, answer.text

    def alert(self, windows: int = 3) -> None:
        self.hear(2)
        self.hear(2)
        self.follow(AlertKind.OPEN)
        for _ in range(windows - 2):
            self.hear(2)
        self.follow(AlertKind.CLOSE)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_the_abnormal_windows_of_an_alert_are_kept_and_no_others(rig: Rig) -> None:
    rig.hear(2)  # 0, long before
    for score in (1, 1, 2, 1, 2):  # the alert begins with window 3
        rig.hear(score)
    rig.follow(AlertKind.OPEN, since=3)
    for score in (1, 2):
        rig.hear(score)
    rig.follow(AlertKind.CLOSE, since=3)
    assert rig.archive.vectors("event-1")["moving-texture"][:, 0].tolist() == [3, 5, 7]
    (kept,) = rig.archive.all()
    assert (kept.windows, kept.text, kept.clip) == (3, "Hisses", "clips/x.flac")
    assert kept.closed_at == kept.at


def test_a_long_alert_keeps_its_first_windows_also_over_a_restart(rig: Rig) -> None:
    rig.hear(2)
    rig.hear(2)
    event = rig.follow(AlertKind.OPEN)
    for _ in range(6):
        rig.hear(2)
    rig.teaching = AlertTeaching("fan", rig.archive)  # killed: two windows of eight were not written
    rig.teaching.resume(replace(event, kind=AlertKind.UPDATE))
    for _ in range(3 * MOST_WINDOWS):
        rig.hear(2)
    rig.follow(AlertKind.CLOSE)
    kept = rig.archive.vectors("event-1")["moving-texture"][:, 0].tolist()
    assert len(kept) == MOST_WINDOWS
    assert kept[:9] == [0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_an_alert_called_normal_is_accepted_until_that_is_taken_back(rig: Rig) -> None:
    rig.alert()
    before = rig.teaching.version
    ok, text = rig.say("normal")
    assert ok
    assert "3 windows are taken for normal" in text
    assert [len(own["moving-texture"]) for own in rig.teaching.accepted()] == [3]
    assert rig.teaching.version > before
    assert AlertTeaching("fan", rig.archive).accepted(), "after a restart too"
    assert rig.say("normal", undo=True)[0]
    assert rig.teaching.accepted() == []


def test_a_named_fault_is_an_example_with_its_day(rig: Rig) -> None:
    rig.alert()
    assert rig.say("fault", name="bearing")[0]
    ((like, vectors),) = rig.teaching.examples()
    assert (like.name, like.on.isoformat(), len(vectors["moving-texture"])) == ("bearing", "2026-05-03", 3)
    assert rig.teaching.accepted() == []
    assert not rig.say("normal", undo=True)[0], "it was not called normal"
    assert rig.say("fault", undo=True)[0]
    assert rig.teaching.examples() == []


def test_an_alert_that_is_open_does_not_resemble_itself(rig: Rig) -> None:
    for _ in range(2):
        rig.hear(2)
    rig.follow(AlertKind.OPEN)
    assert rig.say("fault", name="bearing")[0]
    assert rig.teaching.examples() == []
    said = rig.teaching.version
    rig.follow(AlertKind.CLOSE)
    assert [like.name for like, _ in rig.teaching.examples()] == ["bearing"]
    assert rig.teaching.version > said, "whoever judges asks again"


def test_the_open_alert_is_meant_where_none_is_named_and_takes_part_with_all_it_has(rig: Rig) -> None:
    for _ in range(2):
        rig.hear(2)
    rig.follow(AlertKind.OPEN)
    rig.hear(2)
    command = Command.model_validate({"command": "normal"})
    answer, accepted = rig.teaching.say(command, "event-1", START)
    assert answer.ok
    assert accepted == "event-1"
    assert len(rig.teaching.accepted()[0]["moving-texture"]) == 3
    rig.follow(AlertKind.CLOSE)
    assert rig.archive.read("event-1").word == "normal"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"event_id": None}, "no alert is open"),
        ({"event_id": "other"}, "no such alert"),
        ({"event_id": "../../etc"}, "no alert's name"),
        ({"undo": True}, "was not called normal"),
    ],
)
def test_what_can_t_be_done_is_refused_in_words(rig: Rig, words: dict[str, object], why: str) -> None:
    rig.alert()
    ok, text = rig.say("normal", None, **words)
    assert not ok
    assert why in text
    assert rig.teaching.version == 0


def test_a_machine_without_views_and_an_alert_without_windows_are_refused(rig: Rig) -> None:
    rig.follow(AlertKind.OPEN)
    assert "windows were not kept" in rig.say("normal")[1]
    rig.teaching.can_be_taught = False
    assert "asd-daemon enroll" in rig.say("normal")[1]
    recordings = AlertTeaching("fan", None)
    assert "no alerts are kept" in recordings.say(Command.model_validate({"command": "normal"}), "e", START)[0].text


def test_vectors_that_another_version_computed_are_left_out(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.alert()
    rig.say("normal")
    kept = rig.archive.read("event-1")
    probes = {"moving-texture": {**kept.probes["moving-texture"], "size": 3}}
    rig.archive.write(kept.model_copy(update={"probes": probes}))
    assert rig.teaching.accepted() == []
    assert "computed otherwise" in caplog.text


def test_a_disk_that_refuses_is_told_and_costs_no_alert(rig: Rig) -> None:
    (rig.root / "fan").write_text("in the way")
    rig.alert()
    assert rig.teaching.write_error is not None
    assert "can't be kept" in rig.teaching.write_error
