"""Windows that are being collected: what is gone on with, and what never becomes part of what is learned."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asd_daemon.errors import DataSetError, UsageError
from asd_daemon.hear.source import Block, ScriptedSource, SourceEvent, SourceHealth
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.scoring.scorer import Scorer
from asd_daemon.learn import enrolment
from asd_daemon.learn.collected_windows import CollectedWindows, CollectionKey
from asd_daemon.learn.collecting import EnrolmentProgress
from asd_daemon.learn.enrolled_machines import with_enrolled_machine
from asd_daemon.learn.enrolment import EnrolmentRequest, EnrolmentResult, enrol
from rig.bundles import failing_noise, healthy_noise, write_tiny_bundle

TILT = 2.0
KEY = CollectionKey(source="device:default", mode="new", views={"steady-mean": 256}, program="1")
NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("collection") / "tiny")


@pytest.fixture(autouse=True)
def one_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "VIEW_NAMES", ("steady-mean",))


def healthy(count: int, seed: int) -> list[SourceEvent]:
    rng = np.random.default_rng(seed)
    return [Block(healthy_noise(rng, TILT)) for _ in range(count)]


def failing(count: int) -> list[SourceEvent]:
    rng = np.random.default_rng(99)
    return [Block(failing_noise(rng, TILT)) for _ in range(count)]


def learn(bundle: Bundle, root: Path, script: list[SourceEvent], microphone: str | None = None, **options: Any) -> Any:
    """Enrol; what was learned, and the messages."""
    told: list[EnrolmentProgress] = []
    source = ScriptedSource(script)
    source.source_health = SourceHealth(identity=microphone)
    request = EnrolmentRequest("pump", options.pop("source", "script"), options.pop("windows", None), **options)
    done: EnrolmentResult = enrol(bundle, root, request, source, told.append)
    return done, [progress.message for progress in told if progress.message]


def begun(folder: Path, key: CollectionKey = KEY, at: datetime = NOW) -> None:
    """A collection of one window."""
    CollectedWindows(folder, key, now=at, earlier="forget")
    (folder / "window-000000.npz").touch()
    os.utime(folder / "window-000000.npz", (at.timestamp(), at.timestamp()))


def test_collection_for_the_same_goes_on(tmp_path: Path) -> None:
    begun(tmp_path / "c")
    assert len(CollectedWindows(tmp_path / "c", KEY, now=NOW + timedelta(hours=23))) == 1


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"source": "folder:elsewhere"}, "heard from device:default, now folder:elsewhere"),
        ({"mode": "add"}, "collected for `enroll`, not `enroll --add`"),
        ({"views": {"steady-mean": 256, "moving-rhythm": 272}}, "described by another version"),
        ({"program": "2"}, "described by another version"),
    ],
)
def test_collection_for_something_else_is_refused_with_words_or_forgotten_as_told(
    tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    begun(tmp_path / "c")
    changed = KEY.model_copy(update=other)
    with pytest.raises(UsageError, match=f"1 windows of an earlier call are there, .*{said}.*; --anew"):
        CollectedWindows(tmp_path / "c", changed, now=NOW)
    assert len(CollectedWindows(tmp_path / "c", KEY, now=NOW)) == 1, "a refusal deletes nothing"
    assert CollectedWindows(tmp_path / "c", changed, now=NOW, earlier="forget other").forgotten == 1
    assert len(CollectedWindows(tmp_path / "c", changed, now=NOW)) == 0


@pytest.mark.parametrize("later", [timedelta(days=2), timedelta(days=-2)])
def test_collection_of_another_day_is_refused(tmp_path: Path, later: timedelta) -> None:
    begun(tmp_path / "c")
    with pytest.raises(UsageError, match="the last of them of 2026-05-01 12:00 UTC, more than a day ago"):
        CollectedWindows(tmp_path / "c", KEY, now=NOW + later)


def test_collection_with_a_damaged_note_is_refused_and_one_without_windows_begun_anew(tmp_path: Path) -> None:
    CollectedWindows(tmp_path / "empty", KEY, now=NOW)
    (tmp_path / "empty" / "note.json").write_bytes(b"{\xff")
    assert len(CollectedWindows(tmp_path / "empty", KEY, now=NOW)) == 0
    begun(tmp_path / "c")
    (tmp_path / "c" / "note.json").write_bytes(b"{\xff")
    with pytest.raises(UsageError, match="nobody knows of what"):
        CollectedWindows(tmp_path / "c", KEY, now=NOW)
    assert len(CollectedWindows(tmp_path / "c", KEY, now=NOW, earlier="forget")) == 0


def test_failing_sound_of_a_refused_add_is_not_in_the_next_relearning(bundle: Bundle, tmp_path: Path) -> None:
    clean, _ = learn(bundle, tmp_path / "clean", healthy(16, seed=5), relearn=True)
    root = tmp_path / "enrolled"
    learn(bundle, root, healthy(16, seed=5))
    script = [*failing(4), DataSetError("the cable was pulled")]
    with pytest.raises(DataSetError, match="cable"):
        learn(bundle, root, script, add=True)  # type: ignore[arg-type]
    assert (root / "pump" / "collecting" / "window-000003.npz").exists()
    anew, messages = learn(bundle, root, healthy(16, seed=5), relearn=True)
    assert "4 windows that an earlier call collected are forgotten" in messages
    assert anew.record.windows == 16
    assert anew.threshold == pytest.approx(clean.threshold)
    scorer = Scorer(with_enrolled_machine(bundle, root, "pump"), "pump")
    assert all(scorer.score(block.samples).anomalous for block in failing(4) if isinstance(block, Block))


def test_add_that_is_too_changeable_leaves_nothing_behind(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(bundle, tmp_path, healthy(16, seed=5))
    with monkeypatch.context() as patch:
        patch.setattr(enrolment, "DRIFT_LIMIT", 0.1)
        with pytest.raises(DataSetError, match="what was added is forgotten, and what was known before stays"):
            learn(bundle, tmp_path, failing(3), add=True)
    assert not (tmp_path / "pump" / "collecting").exists()
    done, _ = learn(bundle, tmp_path, healthy(2, seed=6), add=True)
    assert done.record.windows == 18


def test_add_takes_any_number_of_windows_where_something_was_learned_before(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="1 usable windows of 10 s were heard, at least 16 are needed"):
        learn(bundle, tmp_path, healthy(1, seed=4), add=True)
    learn(bundle, tmp_path, healthy(16, seed=5), earlier="forget")
    done, _ = learn(bundle, tmp_path, healthy(1, seed=6), add=True)
    assert done.record.windows == 17
    with pytest.raises(DataSetError, match="0 usable windows of 10 s were heard, at least 1 are needed"):
        learn(bundle, tmp_path, [], add=True)


def test_relearning_begins_empty_unless_it_is_resumed(bundle: Bundle, tmp_path: Path) -> None:
    learn(bundle, tmp_path, healthy(16, seed=5))
    for heard in (10, 9):
        with pytest.raises(DataSetError, match=f"{heard} usable windows .*enroll --relearn --resume goes on with it"):
            learn(bundle, tmp_path, healthy(heard, seed=heard), relearn=True)
    done, messages = learn(bundle, tmp_path, healthy(8, seed=7), relearn=True, earlier="resume")
    assert "going on with 9 windows collected before" in messages
    assert done.record.windows == 17


def test_another_microphone_is_refused_before_its_first_window_counts(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="3 usable windows"):
        learn(bundle, tmp_path, healthy(3, seed=1), microphone="usb-id:1111:1111")
    with pytest.raises(UsageError, match="heard by usb-id:1111:1111, now usb-id:2222:2222; --anew"):
        learn(bundle, tmp_path, healthy(16, seed=2), microphone="usb-id:2222:2222")
    done, _ = learn(bundle, tmp_path, healthy(16, seed=2), microphone="usb-id:2222:2222", earlier="forget other")
    assert (done.record.windows, done.record.microphone) == (16, "usb-id:2222:2222")


def test_sound_is_kept_only_where_it_may_be(bundle: Bundle, tmp_path: Path) -> None:
    learn(bundle, tmp_path / "no", healthy(16, seed=5))
    assert not list((tmp_path / "no").rglob("*.flac"))
    done, _ = learn(bundle, tmp_path / "yes", healthy(16, seed=5), keeps_sound=True)
    assert done.record.sounds == len(list((tmp_path / "yes").rglob("*.flac"))) == 16
    more, _ = learn(bundle, tmp_path / "yes", healthy(3, seed=6), keeps_sound=True, add=True)
    assert more.record.sounds == 19
    fewer, _ = learn(bundle, tmp_path / "yes", healthy(3, seed=7), add=True)
    assert (fewer.record.sounds, list((tmp_path / "yes").rglob("*.flac"))) == (0, [])


def test_request_says_its_mode() -> None:
    request = EnrolmentRequest("pump", "s", None)
    assert [request.mode, replace(request, add=True).mode, replace(request, relearn=True).mode] == [
        "new",
        "add",
        "relearn",
    ]
