"""Which threshold a machine is judged by: of the settings, learned, or of enrolment; what is told of it, and what a restart keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.hear.source import Block, ScriptedSource
from asd_daemon.judge.alarm.alarm import AlertEvent
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.judge.thresholds.tail_memory import TailMemory
from asd_daemon.judge.thresholds.threshold import EnrolledThreshold, LearningRule
from asd_daemon.run.machine_monitor import MachineMonitor, MonitorCallbacks
from asd_daemon.run.machine_threshold import MachineThreshold, ThresholdRule
from asd_daemon.run.service import Service
from asd_daemon.run.stores import Stores, outbox_file, scores_file
from asd_daemon.settings.keep import KeepSettings
from asd_daemon.tell.commands import Command
from asd_daemon.tell.payloads import NO_DETAILS, AlertDetails, MachineState, PublishedScore
from asd_daemon.tell.storage.alert_rows import read_kept_memory
from asd_daemon.tell.storage.machine_memory import MachineMemory, parse_memory
from asd_daemon.tell.storage.score_log import read_scores
from asd_daemon.watch.systemd import SystemdNotifier
from rig.waiting import PATIENT_S

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
HOP_S = 2400
"""The scripted machine is heard for ten seconds every forty minutes: a week has 252 windows."""
DAY = 86_400 // HOP_S
LATER = MONDAY + timedelta(days=8.9)
"""So long the first run lasts; some windows are left of that day."""
ENROLLED = EnrolledThreshold("first", centre=1.0, threshold=1.5)
ALARM = AlarmRule(open_after=2, of=3, close_after=2)
LEARNING = ThresholdRule(learning=LearningRule(hop_s=HOP_S, stretch_s=7200, least_windows=150))
SOUND = np.random.default_rng(0).uniform(-0.1, 0.1, 160_000).astype(np.float32)


@dataclass(frozen=True)
class Scored:
    """What the judge says, by the threshold of enrolment."""

    score: float
    threshold: float = ENROLLED.threshold
    enrolled: EnrolledThreshold | None = ENROLLED
    operating_state: None = None
    is_off: bool = False

    @property
    def anomalous(self) -> bool:
        return self.score > self.threshold


class ScriptedJudge:
    """Has a score for each window."""

    def __init__(self, scores: Sequence[float]) -> None:
        self._scores = iter(scores)

    def score(self, waveform: NDArray[np.float32]) -> Scored:
        return Scored(next(self._scores))


class Told:
    """Keeps what it is told, and memory with alerts, as the real ones do."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self.on_command: Callable[[str, Command], None] = lambda *_: None
        self.states: list[MachineState] = []
        self.scores: list[PublishedScore] = []
        self.alerts: list[AlertEvent] = []

    def start(self, failed: Callable[[Exception], None]) -> None: ...

    def publish_state(self, machine: str, state: MachineState) -> None:
        self.states.append(state)

    def publish_score(self, machine: str, score: PublishedScore) -> None:
        self.scores.append(score)

    def publish_alert(
        self, machine: str, event: AlertEvent, details: AlertDetails = NO_DETAILS, memory: bytes | None = None
    ) -> None:
        self.alerts.append(event)
        if memory is not None:
            self._stores.outbox.remember(machine, memory)

    def republish_alert(self, machine: str, event: AlertEvent) -> None: ...

    def close(self, timeout_s: float) -> None: ...

    @property
    def calibrations(self) -> list[tuple[str, int]]:
        """State and days of each threshold that was told, in order."""
        told = [(s.calibration.state, s.calibration.days) for s in self.states if s.calibration is not None]
        return list(dict.fromkeys(told))


def listen(
    folder: Path,
    scores: Sequence[float] | NDArray[np.float64],
    begin: datetime = MONDAY,
    rule: ThresholdRule = LEARNING,
    *,
    resumes: bool = True,
) -> Told:
    """A whole run of the daemon's service on a state folder; what it told."""
    stores = Stores(folder, KeepSettings(clips="none", scores_days=36_500), ["fan"])
    told, judge = Told(stores), ScriptedJudge(list(map(float, scores)))
    source = ScriptedSource([Block(SOUND, gap_samples=(HOP_S - 10) * 16_000) for _ in scores])

    def monitors(callbacks: MonitorCallbacks) -> Sequence[MachineMonitor]:
        monitor = MachineMonitor(
            "fan",
            source,
            lambda: judge,
            told,
            callbacks,
            rule=ALARM,
            threshold=rule,
            records=stores.records("fan"),
            resumes=resumes,
            now=lambda: begin,
        )
        return [monitor]

    Service(told, SystemdNotifier({}), monitors, stores=stores).run()
    assert len(told.scores) == len(scores)
    return told


def kept(folder: Path) -> MachineMemory:
    """What lies on the disk after a run."""
    return parse_memory(read_kept_memory(outbox_file(folder), "fan"), "fan")


def healthy(days: float, seed: int = 0) -> NDArray[np.float64]:
    return 1 + 0.1 * np.random.default_rng(seed).normal(size=round(days * DAY))


@pytest.fixture(scope="module")
def after_nine_days(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Told]:
    folder = tmp_path_factory.mktemp("state")
    return folder, listen(folder, healthy(8.9))


def copy_of(folder: Path, to: Path) -> Path:
    """A state folder with the memory of another one."""
    stores = Stores(to, KeepSettings(clips="none"), ["fan"])
    stores.outbox.remember("fan", read_kept_memory(outbox_file(folder), "fan") or b"")
    stores.close(PATIENT_S)
    return to


def test_threshold_is_provisional_at_first_and_calibrated_after_a_week_and_both_are_told(
    after_nine_days: tuple[Path, Told],
) -> None:
    _, told = after_nine_days
    assert told.calibrations[0] == ("provisional", 0)
    assert [state for state, days in told.calibrations if days < 7] == ["provisional"] * 7
    assert told.calibrations[-1] == ("calibrated", 8)
    assert told.scores[0].threshold == 1.5
    assert told.scores[-1].threshold < 1.4
    assert told.states[-1].calibration is not None
    assert told.states[-1].calibration.value == told.scores[-1].threshold
    assert told.states[-1].calibration.windows > 250


def test_learned_threshold_is_the_one_that_is_told_logged_and_alarmed_by(
    after_nine_days: tuple[Path, Told], tmp_path: Path
) -> None:
    folder, before = after_nine_days
    learned = before.scores[-1].threshold
    between = (learned + 1.5) / 2
    told = listen(copy_of(folder, tmp_path), [between, between, 1.0], LATER)
    assert [s.threshold for s in told.scores] == [learned] * 3
    assert [s.anomalous for s in told.scores] == [True, True, False]
    (opened,) = told.alerts
    assert (opened.threshold, opened.score) == (learned, between)
    assert [k.threshold for k in read_scores(scores_file(tmp_path), "fan")] == [learned] * 3


def test_restart_goes_on_with_what_was_learned(after_nine_days: tuple[Path, Told], tmp_path: Path) -> None:
    folder, before = after_nine_days
    told = listen(copy_of(folder, tmp_path), healthy(0.08), LATER)
    assert [state for state, _ in told.calibrations] == ["calibrated"]
    assert told.scores[0].threshold == before.scores[-1].threshold


def test_fixed_threshold_wins_and_what_was_learned_is_kept(after_nine_days: tuple[Path, Told], tmp_path: Path) -> None:
    folder, _ = after_nine_days
    rule = ThresholdRule(fixed=1.8, learning=LEARNING.learning)
    told = listen(copy_of(folder, tmp_path), [1.0, 1.7, 1.7, 1.9, 1.9], LATER, rule)
    assert {s.threshold for s in told.scores} == {1.8}
    assert [s.anomalous for s in told.scores] == [False, False, False, True, True]
    assert [a.threshold for a in told.alerts] == [1.8]
    assert told.calibrations == [("fixed", 0)]
    assert kept(tmp_path).tail == kept(folder).tail


def test_learning_that_is_switched_off_leaves_the_threshold_of_enrolment_and_what_was_learned(
    after_nine_days: tuple[Path, Told], tmp_path: Path
) -> None:
    folder, _ = after_nine_days
    told = listen(copy_of(folder, tmp_path), healthy(0.2), LATER, ThresholdRule())
    assert {s.threshold for s in told.scores} == {1.5}
    assert told.calibrations == [("provisional", 0)]
    assert kept(tmp_path).tail == kept(folder).tail


def test_recordings_teach_nothing_and_are_judged_by_the_threshold_of_enrolment(
    after_nine_days: tuple[Path, Told], tmp_path: Path
) -> None:
    folder, _ = after_nine_days
    told = listen(copy_of(folder, tmp_path), healthy(1), LATER, resumes=False)
    assert {s.threshold for s in told.scores} == {1.5}
    assert kept(tmp_path) == kept(folder)


def test_open_alert_teaches_nothing(after_nine_days: tuple[Path, Told], tmp_path: Path) -> None:
    folder, before = after_nine_days
    begin = LATER
    told = listen(copy_of(folder, tmp_path), np.concatenate([healthy(0.5, 1), np.full(DAY, 3.0)]), begin)
    assert [a.kind.value for a in told.alerts if a.kind.value != "update"] == ["open"]
    tail = kept(tmp_path).tail
    assert max(tail.peaks) < 1.5
    assert tail.alarms == []
    assert told.scores[-1].threshold <= before.scores[-1].threshold + 0.05


def test_drift_is_measured_by_a_threshold_that_stays(after_nine_days: tuple[Path, Told]) -> None:
    """Its reference is made anew with another threshold: a learned one would make it so every day."""
    folder, _ = after_nine_days
    level = kept(folder).level
    assert level.threshold == 1.5
    assert level.windows > 300


def test_memory_of_an_earlier_version_is_taken_up() -> None:
    memory = parse_memory(b'{"alarm": {"relapses": 2}, "silence": {}, "level": {}}', "fan")
    assert memory.alarm.relapses == 2
    assert memory.tail == TailMemory()


def test_memory_is_worth_keeping_once_an_hour_not_with_every_window() -> None:
    threshold = MachineThreshold("fan", ThresholdRule(learning=LearningRule()), TailMemory())
    worth = []
    for second in range(0, 4 * 3600, 10):
        threshold.apply(Scored(1.0))
        worth.append(threshold.hear(1.0, MONDAY + timedelta(seconds=second), alert_open=False))
    assert sum(worth) == 3


def test_machine_that_is_enrolled_anew_is_provisional_again() -> None:
    threshold = MachineThreshold("fan", LEARNING, TailMemory())
    for number, score in enumerate(healthy(9)):
        threshold.apply(Scored(score))
        threshold.hear(score, MONDAY + timedelta(seconds=HOP_S * number), alert_open=False)
    assert threshold.state is not None
    assert threshold.state.state == "calibrated"
    anew = EnrolledThreshold("second", 1.0, 1.7)
    judged = threshold.apply(Scored(1.65, 1.7, anew))
    assert (judged.threshold, judged.anomalous) == (1.7, False)
    assert (threshold.state.state, threshold.state.windows) == ("provisional", 0)


def test_threshold_that_half_of_the_windows_exceed_is_not_learned_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    threshold = MachineThreshold("fan", LEARNING, TailMemory())
    judged = threshold.apply(Scored(1.0, 0.9, EnrolledThreshold("first", 1.0, 0.9)))
    assert judged.threshold == 0.9
    assert not threshold.hear(1.0, MONDAY, alert_open=True)
    assert caplog.text.count("can't be learned; lower alarm.open_after") == 1


def test_another_scoring_and_back_loses_nothing_that_was_learned() -> None:
    by_views, by_paper = EnrolledThreshold("views", 1.0, 1.7), EnrolledThreshold("paper", 0.05, 0.12)
    threshold = MachineThreshold("fan", LEARNING, TailMemory())
    for number, score in enumerate(healthy(9)):
        threshold.apply(Scored(score, 1.7, by_views))
        threshold.hear(score, MONDAY + timedelta(seconds=HOP_S * number), alert_open=False)
    learned, state = threshold.memory, threshold.state
    threshold = MachineThreshold("fan", LEARNING, *threshold.memories)  # as after a restart, or a reload
    assert threshold.apply(Scored(0.06, 0.12, by_paper)).threshold == 0.12
    threshold.hear(0.06, MONDAY + timedelta(days=10), alert_open=False)
    threshold = MachineThreshold("fan", LEARNING, *threshold.memories)
    threshold.apply(Scored(1.0, 1.7, by_views))
    assert (threshold.memory.numbers, threshold.memory.peaks) == (learned.numbers, learned.peaks)
    assert threshold.state is not None
    assert state is not None
    assert (threshold.state.value, threshold.state.state) == (state.value, state.state)
    assert threshold.memories[1].subject.startswith("paper")
