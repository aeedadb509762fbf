"""Sound around alerts: what is in a clip, the budget, and disks that do not take one."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asd_daemon.tell.storage.clip_recorder import ClipRecorder, ClipSpan
from asd_daemon.tell.storage.clips import ClipBudget, ClipStore
from asd_daemon.tell.storage.plausible_clock import PlausibleClock
from rig.disk import fill, small_disk
from rig.waiting import PATIENT_S, wait_until

AT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
RATE = 16_000
NOW_S = 2e9
PLENTY = ClipBudget(most_bytes=1e9, most_days=30)
AGELESS = ClipBudget(
    most_bytes=1e9, most_days=1e6
)  # what a test writes while the store runs is no older than its clock for it


def second(number: int) -> NDArray[np.float32]:
    """A second of sound that says which one it is."""
    return np.full(RATE, number / 100, np.float32)


def noise(seconds: float) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(-0.5, 0.5, int(seconds * RATE)).astype(np.float32)


def seconds_in(file: Path) -> list[int]:
    samples, rate = soundfile.read(file, dtype="float32")
    assert rate == RATE
    return [round(float(v) * 100) for v in samples[RATE // 2 :: RATE]]


class Shelf:
    """`with Shelf(folder) as shelf`: ended in order."""

    def __init__(self, folder: Path, budget: ClipBudget = PLENTY) -> None:
        self.shelf = ClipStore(folder, budget, now_s=lambda: NOW_S)

    def __enter__(self) -> ClipStore:
        self.shelf.start()
        return self.shelf

    def __exit__(self, *exc: object) -> None:
        self.shelf.close(PATIENT_S)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "clips"


def test_clip_holds_the_seconds_before_and_after_and_nothing_else(folder: Path) -> None:
    with Shelf(folder) as shelf:
        recorder = ClipRecorder(shelf, "fan", ClipSpan(before_s=3, after_s=2))
        for number in range(1, 11):
            recorder.feed(second(number))
        path = recorder.begin("event-1", AT)
        assert not path.exists()
        for number in range(11, 16):
            recorder.feed(second(number))
    assert path == folder / "fan" / "20260131T120000Z-event-1.flac"
    assert seconds_in(path) == [8, 9, 10, 11, 12]
    assert soundfile.info(path).subtype == "PCM_16"
    assert [f for f in folder.rglob("*") if f.is_file()] == [path]


@pytest.mark.parametrize("block_s", [0.1, 0.7, 2.9, 3.0, 7.0])
@pytest.mark.parametrize("before_s", [0.0, 3.0])
def test_clip_is_cut_from_blocks_of_any_length(folder: Path, block_s: float, before_s: float) -> None:
    sound = noise(14)
    with Shelf(folder) as shelf:
        recorder = ClipRecorder(shelf, "fan", ClipSpan(before_s=before_s, after_s=1))
        blocks = [sound[at : at + round(block_s * RATE)] for at in range(0, len(sound), round(block_s * RATE))]
        heard = 0
        for block in blocks:
            if heard >= 7 * RATE:
                break
            recorder.feed(block)
            heard += len(block)
            assert recorder.held_s == min(before_s, heard / RATE)
        path = recorder.begin("event-1", AT)
        recorder.feed(sound[heard:])
    samples, _ = soundfile.read(path, dtype="float32")
    expected = sound[max(0, heard - round(before_s * RATE)) : heard + RATE]
    np.testing.assert_allclose(samples, expected, atol=1 / 16384)


def test_clip_when_the_daemon_stops_holds_what_there_was(folder: Path) -> None:
    with Shelf(folder) as shelf:
        recorder = ClipRecorder(shelf, "fan", ClipSpan(before_s=3, after_s=60))
        recorder.feed(second(1))
        path = recorder.begin("e", AT)
        recorder.feed(second(2))
        recorder.finish()
    assert seconds_in(path) == [1, 2]


def test_sound_that_is_no_number_or_too_loud_makes_a_clip_all_the_same(folder: Path) -> None:
    with Shelf(folder) as shelf:
        recorder = ClipRecorder(shelf, "fan", ClipSpan(1, 0))
        recorder.feed(np.array([np.nan, np.inf, -9.0, 0.5] * 4000, np.float32))
        path = recorder.begin("e", AT)
    samples, _ = soundfile.read(path)
    assert np.isfinite(samples).all()
    assert np.abs(samples).max() <= 1


def clip_of(shelf: ClipStore, name: str, made_s: float, folder: Path, seconds: float = 2) -> Path:
    """A clip that was written earlier."""
    path = folder / "fan" / f"{name}.flac"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(seconds), RATE, format="FLAC", subtype="PCM_16")
    os.utime(path, (made_s, made_s))
    return path


def test_clips_over_the_budget_go_oldest_first(folder: Path) -> None:
    with Shelf(folder, ClipBudget(most_bytes=150_000, most_days=1e6)) as shelf:
        old, newer = (clip_of(shelf, name, made_s, folder) for name, made_s in (("a", 1.0), ("b", 2.0)))
        recorder = ClipRecorder(shelf, "fan", ClipSpan(2, 0))
        recorder.feed(noise(2))
        path = recorder.begin("e", AT)
    assert (old.exists(), newer.exists(), path.exists()) == (False, True, True)


def test_clips_older_than_the_budget_go_at_the_start(folder: Path) -> None:
    day_s = 86_400
    old = clip_of(ClipStore(folder, PLENTY), "a", NOW_S - 31 * day_s, folder)
    young = clip_of(ClipStore(folder, PLENTY), "b", NOW_S - 29 * day_s, folder)
    with Shelf(folder):
        pass
    assert (old.exists(), young.exists()) == (False, True)


DAY_S = 86_400.0


class Clocks:
    """A wall clock and a steady one, both set by hand."""

    def __init__(self, alive_until_s: float | None = None, now_s: float = NOW_S) -> None:
        self.now_s, self.steady_s = now_s, 5.0
        self.clock = PlausibleClock(lambda: self.now_s, lambda: self.steady_s, alive_until_s)

    def run(self, days: float) -> None:
        self.now_s += days * DAY_S
        self.steady_s += days * DAY_S

    def kept(self, folder: Path) -> list[str]:
        """What is left after a look at the ages."""
        store = ClipStore(folder, PLENTY, clock=self.clock)
        store.start()
        store.close(PATIENT_S)
        return sorted(f.stem for f in folder.glob("*/*.flac"))


def aged(folder: Path) -> None:
    """Clips of 40, 29 and 0 days ago."""
    for days in (40, 29, 0):
        clip_of(ClipStore(folder, PLENTY), f"{days:02d}", NOW_S - days * DAY_S, folder)


def test_clips_stay_when_the_clock_jumps_until_it_has_run_steadily_for_a_week(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    aged(folder)
    clocks = Clocks()
    clocks.now_s += 60 * DAY_S
    assert clocks.kept(folder) == ["00", "29", "40"]
    assert "no clip is deleted for its age: the clock was set by +60.0 days" in caplog.text
    clocks.run(6.9)
    assert clocks.kept(folder) == ["00", "29", "40"]
    clocks.now_s -= 60 * DAY_S
    assert clocks.kept(folder) == ["00", "29", "40"]
    clocks.run(7.1)
    assert clocks.kept(folder) == ["00"]


def test_clips_stay_on_a_box_that_was_off_for_two_months(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    aged(folder)
    clocks = Clocks(alive_until_s=NOW_S, now_s=NOW_S + 60 * DAY_S)
    assert clocks.kept(folder) == ["00", "29", "40"]
    assert "this box was off for 60.0 days" in caplog.text
    assert Clocks(alive_until_s=NOW_S - 2 * DAY_S).kept(folder) == ["00", "29"], "a weekend is no reason to doubt"


@pytest.mark.parametrize("now_s", [0.0, 1e9])
def test_clips_stay_while_the_clock_is_earlier_than_this_program(folder: Path, now_s: float) -> None:
    clip_of(ClipStore(folder, PLENTY), "a", now_s - 40 * DAY_S, folder)
    assert Clocks(now_s=now_s).kept(folder) == ["a"]


def test_clip_stamped_1970_is_as_old_as_the_day_on_which_that_is_seen(folder: Path) -> None:
    path = clip_of(ClipStore(folder, PLENTY), "a", 1000.0, folder)
    clocks = Clocks()
    assert clocks.kept(folder) == ["a"]
    assert path.stat().st_mtime == pytest.approx(NOW_S, abs=1)
    clocks.run(29)
    assert clocks.kept(folder) == ["a"]
    clocks.run(2)
    assert clocks.kept(folder) == []


def test_clips_of_this_run_are_the_last_to_go_whatever_their_stamp(folder: Path) -> None:
    clocks = Clocks()
    store = ClipStore(folder, ClipBudget(most_bytes=150_000, most_days=30), clock=clocks.clock)
    old = clip_of(store, "old", NOW_S - DAY_S, folder)
    store.start()
    recorder = ClipRecorder(store, "fan", ClipSpan(2, 0))
    paths = []
    for name in ("e1", "e2"):
        recorder.feed(noise(2))
        paths.append(recorder.begin(name, AT))
        if name == "e1":
            wait_until(lambda: store.written == 1, "the first clip is written")
            os.utime(paths[0], (1000.0, 1000.0))
    store.close(PATIENT_S)
    assert not old.exists()
    assert paths[1].exists()


def test_what_is_deleted_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    aged(folder)
    assert Clocks().kept(folder) == ["00", "29"]
    assert "deleted, older than 30 days: 1 clip, fan/40.flac" in caplog.text


def test_clips_can_be_read_by_their_owner_alone(folder: Path) -> None:
    with Shelf(folder) as shelf:
        recorder = ClipRecorder(shelf, "fan", ClipSpan(2, 0))
        recorder.feed(noise(2))
        path = recorder.begin("e", AT)
    assert [p.stat().st_mode & 0o777 for p in (folder, folder / "fan", path)] == [0o700, 0o700, 0o600]


def test_budget_smaller_than_a_clip_is_a_trouble_and_no_clip(folder: Path) -> None:
    with Shelf(folder, ClipBudget(most_bytes=1000, most_days=1)) as shelf:
        recorder = ClipRecorder(shelf, "fan", ClipSpan(2, 0))
        recorder.feed(noise(2))
        path = recorder.begin("e", AT)
    assert not path.exists()
    assert shelf.write_error is not None
    assert "budget" in shelf.write_error


def test_last_free_part_of_the_disk_is_never_taken(tmp_path: Path) -> None:
    # sizes far above what the kernel counts late on several processors (some 100 kB of a tmpfs)
    with small_disk(tmp_path / "small", 20_000) as disk, Shelf(disk / "clips", AGELESS) as shelf:
        old = clip_of(shelf, "a", 1.0, disk / "clips", seconds=40)
        fill(disk / "filler", leave_kilobytes=1_100)
        recorder = ClipRecorder(shelf, "fan", ClipSpan(20, 0))
        recorder.feed(noise(20))
        first = recorder.begin("e", AT)
        shelf.close(PATIENT_S)
        assert not old.exists(), "room is made from the oldest clips"
        assert first.exists()
        free = os.statvfs(disk).f_bavail / os.statvfs(disk).f_blocks
        assert free >= 0.05


def test_full_disk_is_a_trouble_and_leaves_no_half_clip(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 500) as disk, Shelf(disk / "clips") as shelf:
        (disk / "clips").mkdir()
        fill(disk / "filler")
        recorder = ClipRecorder(shelf, "fan", ClipSpan(2, 0))
        recorder.feed(noise(2))
        recorder.begin("e", AT)
        shelf.close(PATIENT_S)
        assert shelf.write_error is not None
        assert list((disk / "clips").rglob("*.flac*")) == []


def test_folder_that_cannot_be_made_is_a_trouble(tmp_path: Path) -> None:
    (tmp_path / "clips").write_text("in the way")
    with Shelf(tmp_path / "clips") as shelf:
        recorder = ClipRecorder(shelf, "fan", ClipSpan(1, 0))
        recorder.feed(noise(1))
        recorder.begin("e", AT)
    assert shelf.write_error is not None
    assert shelf.failed == 1


def test_normal_windows_are_kept_one_an_hour_and_renewed_four_a_day(folder: Path) -> None:
    clock_s = [0.0]
    with Shelf(folder) as shelf:
        recorder = ClipRecorder(shelf, "fan", ClipSpan(30, 10), most_normal=2, clock_s=lambda: clock_s[0])
        for hour in range(14):
            clock_s[0] = hour * 3600.0
            recorder.keep_normal(noise(10), AT + timedelta(hours=hour))
            due = 1 + sum(hour >= renewed for renewed in (1, 7, 13))
            wait_until(lambda due=due: shelf.written == due, "the clip is written")  # type: ignore[misc]
            clock_s[0] += 3000.0
            recorder.keep_normal(noise(10), AT + timedelta(hours=hour, minutes=50))
    assert sorted(f.name for f in (folder / "fan").glob("*")) == [
        "20260131T190000Z-normal.flac",
        "20260201T010000Z-normal.flac",
    ]
    assert shelf.written == 4
    assert soundfile.info(folder / "fan" / "20260201T010000Z-normal.flac").frames == 10 * RATE


def test_folder_is_listed_only_where_something_in_it_has_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[Path] = []
    real = Path.glob

    def glob(path: Path, *more: Any, **others: Any) -> Any:
        if path == folder / "fan":
            listed.append(path)
        return real(path, *more, **others)

    clock_s = [0.0]
    with Shelf(folder) as shelf:
        recorder = ClipRecorder(shelf, "fan", ClipSpan(30, 10), most_normal=2, clock_s=lambda: clock_s[0])
        for hour in (0.0, 1.0):
            clock_s[0] = hour * 3600
            recorder.keep_normal(noise(10), AT + timedelta(hours=hour))
            wait_until(lambda due=hour + 1: shelf.written == due, "the clip is written")  # type: ignore[misc]
        monkeypatch.setattr(Path, "glob", glob)
        for window in range(100):
            clock_s[0] = 2.5 * 3600 + 10 * window
            recorder.keep_normal(noise(10), AT + timedelta(hours=2.5, seconds=10 * window))
        assert len(listed) == 1
        (folder / "fan" / f"{AT:%Y%m%dT%H%M%SZ}-normal.flac").unlink()  # by whoever else deletes
        recorder.keep_normal(noise(10), AT + timedelta(hours=4))
        wait_until(lambda: shelf.written == 3, "another takes its place")


def test_no_normal_window_is_kept_where_none_is_wanted(folder: Path) -> None:
    with Shelf(folder) as shelf:
        ClipRecorder(shelf, "fan", ClipSpan(30, 10)).keep_normal(noise(10), AT)
    assert not list(folder.glob("*/*"))
