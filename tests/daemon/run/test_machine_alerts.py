"""What people want of an alarm: silence when they ask for it, the same alert after a restart, a word about drift, an explanation."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asd_daemon.hear.windows.window import Window
from asd_daemon.judge.alarm.alarm import Alarm, AlertEvent, AlertKind
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.judge.alarm.score_drift import ScoreDriftRule
from asd_daemon.run.machine_alerts import AlertRules, MachineAlerts
from asd_daemon.run.stores import Stores
from asd_daemon.settings.keep import KeepSettings
from asd_daemon.tell.change_words import change_text
from asd_daemon.tell.commands import Command, CommandKind
from asd_daemon.tell.payloads import NO_DETAILS, AlertDetails, Condition, MachineState, PublishedScore
from asd_daemon.tell.storage.machine_memory import MachineMemory, parse_memory
from asd_daemon.tell.storage.machine_records import MachineRecords
from asd_daemon.tell.storage.score_log import read_scores
from asd_daemon.web.alert_records import read_alerts
from rig.scripted_sound import Loudness
from rig.waiting import PATIENT_S

START = datetime(2026, 1, 31, tzinfo=UTC)
RULE = AlarmRule(open_after=2, of=3, close_after=2, update_every_s=0)
LEVEL = ScoreDriftRule(reference_windows=4, mean_windows=2)
SOUND = np.random.default_rng(0).normal(0, 0.05, 160_000).astype(np.float32)


class Publisher:
    """Keeps what it is told; like the real ones it stores memory with an alert."""

    def __init__(self, records: MachineRecords) -> None:
        self._records = records
        self.on_command: Callable[[str, Command], None] = lambda *_: None
        self.told: list[tuple[str, str]] = []
        self.details: list[AlertDetails] = []
        self.resumed: list[str] = []

    def start(self, failed: Callable[[Exception], None]) -> None: ...

    def publish_state(self, machine: str, state: MachineState) -> None: ...

    def publish_score(self, machine: str, score: PublishedScore) -> None: ...

    def close(self, timeout_s: float) -> None: ...

    def publish_alert(
        self, machine: str, event: AlertEvent, details: AlertDetails = NO_DETAILS, memory: bytes | None = None
    ) -> None:
        self.told.append((event.kind.value, event.event_id))
        self.details.append(details)
        if self._records.outbox is not None and memory is not None:
            self._records.outbox.remember(machine, memory)

    def republish_alert(self, machine: str, event: AlertEvent) -> None:
        self.resumed.append(event.event_id)


class Desk:
    """The alerts of a machine on a state folder, and a clock that goes 10 s a window."""

    def __init__(
        self, folder: Path, at: datetime = START, keep: KeepSettings | None = None, resumes: bool = True
    ) -> None:
        self.stores = Stores(folder, keep or KeepSettings(clips="none"), ["fan"])
        records = self.stores.records("fan")
        self.publisher = Publisher(records)
        self.alerts = MachineAlerts("fan", AlertRules(RULE, LEVEL), self.publisher, records, resumes=resumes)
        self.at = at
        self.alerts.resume()

    def hear(self, *scores: float | None, sound: np.ndarray[tuple[int], np.dtype[np.float32]] = SOUND) -> None:
        for score in scores:
            window = Window(sound, self.at)
            self.at += timedelta(seconds=10)
            self.alerts.record_sound(window)
            if score is None:
                self.alerts.handle_unusable_window(window.ended_at, "silence")
            else:
                self.alerts.handle_verdict(window, Loudness(score))

    def ask(self, kind: CommandKind, **more: Any) -> None:
        self.alerts.handle_command(Command(command=kind, **more), self.at)

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.publisher.told]

    @property
    def state(self) -> MachineState:
        return self.alerts.describe(MachineState(Condition.NORMAL, START), self.at)


def test_open_alert_after_a_kill_goes_on_under_its_name_and_closes(tmp_path: Path) -> None:
    before = Desk(tmp_path)
    before.hear(0.1, 0.9, 0.9)  # and then it is killed: nothing is closed, nothing said
    after = Desk(tmp_path, before.at)
    (opened,) = before.publisher.told
    assert after.publisher.resumed == [opened[1]]
    assert after.state.event_id == opened[1]
    after.hear(0.1, 0.1)
    assert after.publisher.told == [("close", opened[1])]
    assert Desk(tmp_path, after.at).publisher.resumed == []


def test_windows_before_an_orderly_stop_count_after_it(tmp_path: Path) -> None:
    before = Desk(tmp_path)
    before.hear(0.1, 0.9)
    before.alerts.close()
    after = Desk(tmp_path, before.at)
    after.hear(0.9)
    assert after.kinds == ["open"]


def test_recordings_do_not_go_on_with_the_alert_of_another_run(tmp_path: Path) -> None:
    before = Desk(tmp_path)
    before.hear(0.9, 0.9)
    recording = Desk(tmp_path, resumes=False)
    assert recording.state.event_id is None
    recording.hear(0.1, 0.1)
    recording.alerts.close()
    assert Desk(tmp_path).state.event_id == before.state.event_id, "nor do they change what is known of the machine"


def test_memory_that_cannot_be_understood_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stores = Stores(tmp_path, KeepSettings(), ["fan"])
    stores.outbox.remember("fan", b'{"alarm": 7}')
    assert Desk(tmp_path).state.event_id is None
    assert "can't be understood" in caplog.text


def test_memory_as_bytes_and_back_is_the_same() -> None:
    alarm = Alarm(RULE)
    for number in range(3):
        alarm.update(0.9, 0.5, START + timedelta(seconds=number))
    memory = MachineMemory(alarm.memory)
    assert parse_memory(memory.to_bytes(), "fan") == memory


def test_alert_that_opens_while_muted_is_told_when_the_time_is_over(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hear(0.1)
    desk.ask(CommandKind.MUTE, minutes=1)
    assert desk.state.muted_until == desk.at + timedelta(minutes=1)
    desk.hear(0.9, 0.9, 0.95)
    assert desk.kinds == []
    assert desk.state.event_id is not None
    desk.hear(0.9, 0.9, 0.9, 0.9)
    assert desk.kinds == ["open"]
    assert desk.state.muted_until is None


def test_alert_that_opens_and_closes_while_muted_is_never_told(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.ask(CommandKind.MUTE, minutes=60)
    desk.hear(0.9, 0.9, 0.1, 0.1)
    desk.ask(CommandKind.UNMUTE)
    assert desk.kinds == []
    desk.hear(0.9, 0.9)
    assert desk.kinds == ["open"]


def test_alert_that_was_told_before_muting_is_closed_all_the_same(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hear(0.9, 0.9)
    desk.ask(CommandKind.MUTE)
    desk.hear(0.95, 0.1, 0.1)
    assert desk.kinds == ["open", "close"]


def test_muting_and_what_was_held_back_survive_a_restart(tmp_path: Path) -> None:
    before = Desk(tmp_path)
    before.ask(CommandKind.MUTE, minutes=5)
    before.hear(0.9, 0.9)
    after = Desk(tmp_path, before.at)
    assert after.publisher.resumed == []
    assert after.state.muted_until is not None
    after.ask(CommandKind.UNMUTE)
    assert after.kinds == ["open"]


def test_clock_that_is_set_back_far_ends_the_silence(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.ask(CommandKind.MUTE, minutes=60)
    desk.at -= timedelta(days=365)
    desk.hear(0.9, 0.9)
    assert desk.kinds == ["open"]


def test_acknowledged_alert_tells_its_close_only(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hear(0.9, 0.9, 0.95)
    assert desk.kinds == ["open", "update"]
    desk.ask(CommandKind.ACKNOWLEDGE, event_id="another")
    assert not desk.state.acknowledged
    desk.ask(CommandKind.ACKNOWLEDGE)
    assert desk.state.acknowledged
    desk.hear(0.97, 0.98, 0.1, 0.1)
    assert desk.kinds == ["open", "update", "close"]
    desk.hear(0.9, 0.9)
    assert desk.kinds[-1] == "open"
    assert not desk.state.acknowledged


def test_slow_drift_is_a_state_and_no_alert(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(tmp_path)
    desk.hear(0.1, 0.1, 0.1, 0.1)
    assert desk.state.drift is None
    desk.hear(*[0.4] * 6)
    assert desk.kinds == []
    drift = desk.state.drift
    assert drift is not None
    assert drift.fraction == pytest.approx(0.7)
    assert caplog.text.count("have drifted") == 1
    again = Desk(tmp_path, desk.at)
    assert again.state.drift is not None, "known after a restart"
    again.hear(*[0.1] * 6)
    assert again.state.drift is None


def test_alert_tells_the_bands_and_seconds_in_which_the_worst_window_differs(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    noise = np.random.default_rng(1)
    for _ in range(5):
        desk.hear(0.1, sound=noise.normal(0, 0.05, 160_000).astype(np.float32))
    whistling = noise.normal(0, 0.05, 160_000).astype(np.float32)
    whistling[48_000:64_000] += 0.3 * np.sin(2 * np.pi * 3000 * np.arange(16_000) / 16_000).astype(np.float32)
    desk.hear(0.9, 0.95, sound=whistling)
    (details,) = desk.publisher.details
    assert details.difference is not None
    worst = details.difference.bands[0]
    assert worst.low_hz <= 3000 <= worst.high_hz
    assert worst.difference_db > 10
    assert details.difference.seconds[0] == 3
    desk.hear(0.6, 0.1, 0.1)
    assert desk.publisher.details[-1].difference == details.difference, "the worst window's, to the end"


def test_alert_says_in_words_what_has_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    desk = Desk(tmp_path)
    noise = np.random.default_rng(1)
    for _ in range(8):
        desk.hear(0.1, sound=noise.normal(0, 0.02, 160_000).astype(np.float32))
    assert desk.state.changes is None
    whistling = noise.normal(0, 0.02, 160_000).astype(np.float32)
    whistling += 0.05 * np.sin(2 * np.pi * 3000 * np.arange(160_000) / 16_000).astype(np.float32)
    desk.hear(0.9, 0.95, sound=whistling)
    changes = desk.publisher.details[-1].changes
    assert changes is not None
    assert change_text(changes) == "A new tone at 3000 Hz"
    assert desk.state.changes == changes, "as long as it is open"
    assert "alert opens, score 0.95 of 0.5: A new tone at 3000 Hz" in caplog.text
    desk.hear(0.6, 0.1, 0.1)
    assert desk.kinds[-1] == "close"
    assert desk.publisher.details[-1].changes == changes, "the worst window's, to the end"
    assert desk.state.changes is None


def test_alert_before_enough_normal_windows_are_known_has_no_words(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hear(0.1, 0.9, 0.95)
    assert desk.publisher.details[-1].changes is None


def test_clip_and_scores_are_kept_and_the_clip_is_named(tmp_path: Path) -> None:
    desk = Desk(tmp_path, keep=KeepSettings(clip_before_s=20, clip_after_s=10, normal_clips=0, scores_days=36_500))
    desk.stores.start()
    desk.hear(0.1, 0.9, 0.9, 0.9)
    desk.alerts.close()
    desk.stores.close(PATIENT_S)
    (clip,) = (tmp_path / "clips" / "fan").iterdir()
    assert desk.publisher.details[0].clip == f"clips/fan/{clip.name}"
    assert [k.score for k in read_scores(tmp_path / "scores.sqlite", "fan")] == [0.1, 0.9, 0.9, 0.9]


def test_a_normal_window_is_kept_to_compare_alerts_with_and_the_alert_is_in_the_history(tmp_path: Path) -> None:
    desk = Desk(tmp_path, keep=KeepSettings(clip_before_s=20, clip_after_s=10, scores_days=36_500))
    desk.stores.start()
    desk.hear(0.1, 0.1, 0.9, 0.9)
    desk.alerts.close()
    desk.stores.close(PATIENT_S)
    assert len(list((tmp_path / "clips" / "fan").glob("*-normal.flac"))) == 1
    (record,) = read_alerts([tmp_path])
    assert (record.machine, record.outcome, record.told, record.clip_window_s) == ("fan", "open", True, 20.0)
    assert record.clip is not None


@pytest.mark.parametrize("keep", [KeepSettings(clips="none"), KeepSettings(store_sound=False)])
def test_no_sound_is_written_where_it_is_not_wanted(tmp_path: Path, keep: KeepSettings) -> None:
    desk = Desk(tmp_path, keep=keep)
    desk.stores.start()
    desk.hear(0.1, 0.9, 0.9, None, 0.1, 0.1)
    desk.alerts.close()
    desk.stores.close(PATIENT_S)
    assert desk.publisher.details[0].clip is None
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["alerts.sqlite", "history.sqlite", "scores.sqlite"]


def test_store_that_cannot_be_written_is_a_trouble_in_the_state_and_alerts_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.write_text("in the way")
    desk = Desk(folder)
    desk.hear(0.1, 0.9, 0.9)
    assert desk.kinds == ["open"]
    assert any("alerts.sqlite can't be written" in trouble for trouble in desk.state.troubles)


def test_alerts_that_had_to_be_given_up_are_counted_in_the_state(tmp_path: Path) -> None:
    desk = Desk(tmp_path, keep=KeepSettings(clips="none", alerts_waiting=10))
    for number in range(12):
        desk.stores.outbox.put("fan", "t", b"", kind=AlertKind.OPEN, event_id=str(number))
    assert desk.state.troubles == ("2 messages given up: too many waited for the broker",)


def test_lasting_steady_change_is_told_once_as_an_unknown_state_and_not_again_after_a_restart(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hear(0.1, *(0.8,) * 40)
    assert desk.kinds == ["open", "update"], "an alert first, and then what it may be"
    assert [details.unknown_state for details in desk.publisher.details] == [False, True]
    assert desk.alerts.is_unknown_state
    desk.alerts.close()
    after = Desk(tmp_path, desk.at)
    after.hear(*(0.8,) * 40)
    assert after.kinds == []
    assert after.alerts.is_unknown_state
    after.hear(1.6)
    assert after.kinds == ["update"], "it has become worse"
    after.hear(*(0.1,) * RULE.close_after)
    assert after.kinds == ["update", "close"]
    assert not after.alerts.is_unknown_state


def test_alert_that_an_older_version_left_open_is_kept_at_once_with_its_sound_and_a_kept_one_stays(
    tmp_path: Path,
) -> None:
    keep = KeepSettings(clip_after_s=0, scores_days=36_500)
    before = Desk(tmp_path, keep=keep)
    before.stores.start()
    before.hear(0.9, 0.9)
    before.stores.close(10)
    (clip,) = (tmp_path / "clips" / "fan").glob("*.flac")
    as_opened = history(tmp_path)
    Desk(tmp_path, before.at, keep)
    assert history(tmp_path) == as_opened, "what is known stays as it is"
    (tmp_path / "history.sqlite").unlink()
    after = Desk(tmp_path, before.at, keep)
    ((opened, latest),) = history(tmp_path)
    assert opened == latest
    assert json.loads(opened)["clip"] == f"clips/fan/{clip.name}"
    after.hear(0.1, 0.1)
    assert after.publisher.details[-1].clip == f"clips/fan/{clip.name}"


def history(folder: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(folder / "history.sqlite")) as database:
        return database.execute("select opened, latest from event").fetchall()
