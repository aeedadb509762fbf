"""Stations and the service with scripted sound and a judge that hears loudness: what is told, counted and survived."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.errors import BrokerError, BundleError, CannotStartError, SourceError
from asd_daemon.hear.source import Block, ScriptedSource, SourceEvent, SourceLost, UnreadableRecording
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.judge.scoring.verdict import Judge
from asd_daemon.run.judging_queue import JudgingQueue
from asd_daemon.run.judging_turns import JudgingTurns
from asd_daemon.run.machine_monitor import MachineMonitor, MonitorCallbacks
from asd_daemon.run.service import Service
from asd_daemon.tell.commands import AskedCommand, Command
from asd_daemon.watch.report import Reports
from asd_daemon.watch.systemd import SystemdNotifier
from rig.scripted_sound import EndlessSource, Loudness, LoudnessJudge, RememberingTeller, window
from rig.waiting import PATIENT_S, wait_until

N = 160_000
RULE = AlarmRule(open_after=2, of=3, close_after=2, update_every_s=0)


class Rig:
    """A service of one machine, with everything around it in memory."""

    def __init__(
        self,
        source: ScriptedSource | EndlessSource,
        open_judge: Callable[[], Judge] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.judge, self.publisher = LoudnessJudge(), RememberingTeller()
        self.open_judge = open_judge or (lambda: self.judge)

        def monitors(callbacks: MonitorCallbacks) -> Sequence[MachineMonitor]:
            return [MachineMonitor("fan", source, self.open_judge, self.publisher, callbacks, rule=RULE, now=now)]

        self.service = Service(self.publisher, SystemdNotifier({}), monitors)


def play(script: Iterable[SourceEvent]) -> Rig:
    rig = Rig(ScriptedSource(script))
    rig.service.run()
    return rig


def test_run_from_normal_to_failing_to_repaired_tells_all_of_it() -> None:
    rig = play([window(level) for level in (0.1, 0.2, 0.8, 0.9, 0.1, 0.1)])
    assert rig.publisher.scores == [0.1, 0.2, 0.8, 0.9, 0.1, 0.1]
    assert [(m, e.kind.value, e.peak_score) for m, e in rig.publisher.alerts] == [
        ("fan", "open", 0.9),
        ("fan", "close", 0.9),
    ]
    assert [state for _, state, _ in rig.publisher.states] == ["starting", "normal", "alert", "normal", "stopped"]
    assert rig.publisher.closed
    counts = rig.service.counts
    assert (counts.heard, counts.scored, counts.unusable, counts.dropped, counts.opened) == (6, 6, 0, 0, 1)


def test_clock_that_is_set_back_and_forth_costs_no_window_and_no_alert() -> None:
    """A box without a clock of its own begins in 1970 and is set right, or wrong, at any moment."""
    jumps = iter([0, 10, 365 * 86_400, -365 * 86_400, 20, -3600, 7200] * 50)
    clock = [datetime(2026, 1, 1, tzinfo=UTC)]

    def now() -> datetime:
        clock[0] += timedelta(seconds=next(jumps))
        return clock[0]

    source = EndlessSource()
    rig = Rig(source, now=now)
    levels = (0.1, 0.2, 0.8, 0.9, 0.1, 0.1, 0.3, 0.8, 0.9, 0.1, 0.1)
    runner = threading.Thread(target=rig.service.run)
    runner.start()
    for number, level in enumerate(levels, start=1):
        source.words.put(window(level))
        assert rig.publisher.wait_scores(number), "judged, whatever time it is"
    rig.service.stop("test")
    runner.join(PATIENT_S)
    assert rig.publisher.scores == list(levels)
    assert [e.kind.value for _, e in rig.publisher.alerts] == ["open", "close", "open", "close"]


def listening_of(rig: Rig) -> list[tuple[str, bool]]:
    return [(state.condition.value, state.listening) for state in rig.publisher.told_states]


def test_machine_that_is_not_heard_is_told_as_such_and_as_heard_again() -> None:
    lost, not_finite = SourceLost("unplugged", 0.0), Block(np.full(N, np.nan, np.float32))
    rig = play([window(0.1), lost, window(0.2), window(0.0), not_finite, window(0.3)])
    assert listening_of(rig) == [
        ("starting", True),
        ("normal", True),
        ("mic_lost", False),
        ("starting", True),
        ("normal", True),
        ("unusable", False),  # silence
        ("unusable", True),  # there is sound
        ("normal", True),
        ("stopped", False),
    ]


def test_command_while_nothing_is_heard_does_not_make_it_heard() -> None:
    source = EndlessSource()
    rig = Rig(source)
    runner = threading.Thread(target=rig.service.run)
    runner.start()
    source.words.put(window(0.1))
    assert rig.publisher.wait_scores(1)
    for _ in range(4):
        source.words.put(Block(np.zeros(8000, np.float32)))  # 2 s of digital silence
    until(lambda: listening_of(rig)[-1:] == [("unusable", False)])
    rig.service.command("fan", AskedCommand(Command.model_validate({"command": "mute", "minutes": 5})))
    until(lambda: rig.publisher.told_states[-1].muted_until is not None)
    assert listening_of(rig)[-1] == ("unusable", False)
    rig.service.stop("test")
    runner.join(PATIENT_S)


def until(fits: Callable[[], object]) -> None:
    wait_until(lambda: bool(fits()), "it comes to that")


def test_windows_that_cannot_be_judged_are_never_scored_and_say_why() -> None:
    nan = Block(np.full(N, np.nan, np.float32))
    half = Block(window(0.9).samples[:1000])
    rig = play([window(0.1), window(0.0), nan, half, Block(window(0.2).samples, gap_samples=50)])
    assert rig.publisher.scores == [0.1, 0.2]
    assert rig.publisher.states[2:5] == [
        ("fan", "unusable", "silence"),
        ("fan", "unusable", "not_finite"),
        ("fan", "unusable", "gap"),
    ]
    counts = rig.service.counts
    assert (counts.heard, counts.scored, counts.unusable, counts.gaps, counts.gap_samples) == (5, 2, 3, 1, 50)


def test_lost_microphone_is_a_state_and_keeps_the_alert_open() -> None:
    rig = play(
        [
            window(0.9),
            window(0.9),
            SourceLost("unplugged", 2),
            SourceLost("unplugged", 10),
            Block(window(0.1).samples, 99),
        ]
    )
    assert rig.publisher.states[-5:] == [
        ("fan", "alert", None),
        ("fan", "mic_lost", "unplugged"),
        ("fan", "alert", "sound is back"),
        ("fan", "alert", None),
        ("fan", "stopped", None),
    ]
    assert rig.service.counts.losses == 1


def test_refused_recording_is_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    rig = play([UnreadableRecording(Path("bad.wav"), "bad.wav: is no sound"), window(0.1)])
    assert rig.service.counts.refused == 1
    assert "bad.wav: is no sound" in caplog.text
    assert rig.publisher.scores == [0.1]


def test_live_source_that_is_faster_than_the_judge_loses_the_oldest_and_counts_it() -> None:
    source = EndlessSource()
    rig = Rig(source)
    rig.judge.may_go.clear()
    runner = threading.Thread(target=rig.service.run)
    runner.start()
    source.words.put(window(0.1))
    assert rig.judge.began.wait(PATIENT_S)
    for level in (0.2, 0.3, 0.4, 0.1, 0.2, 0.3, 0.4, 0.4):
        source.words.put(window(level))
    source.words.put(None)
    wait_until(lambda: (rig.service.counts.heard, rig.service.counts.dropped) == (9, 2), "the oldest are dropped")
    rig.judge.may_go.set()
    runner.join(PATIENT_S)
    assert rig.publisher.scores == [0.1, 0.4, 0.1, 0.2, 0.3, 0.4, 0.4]
    assert ("fan", "overloaded", "cannot keep up: windows are dropped") in rig.publisher.states
    counts = rig.service.counts
    assert counts.heard == counts.scored + counts.unusable + counts.dropped == 9


def test_stop_while_listening_ends_in_order_and_accounts_for_every_window() -> None:
    source = EndlessSource()
    rig = Rig(source)
    runner = threading.Thread(target=rig.service.run)
    rig.judge.may_go.clear()
    runner.start()
    for level in (0.1, 0.2, 0.3):
        source.words.put(window(level))
    assert rig.judge.began.wait(PATIENT_S)
    rig.service.stop("test")
    rig.judge.may_go.set()
    runner.join(PATIENT_S)
    assert not runner.is_alive()
    assert rig.publisher.states[-1] == ("fan", "stopped", None)
    counts = rig.service.counts
    assert counts.heard == counts.scored + counts.unusable + counts.dropped


def test_stop_while_a_judge_hangs_accounts_for_the_window_in_its_hands() -> None:
    source = EndlessSource()
    rig = Rig(source)
    rig.judge.may_go.clear()
    for _ in range(3):
        source.words.put(window(0.1))
    runner = threading.Thread(target=rig.service.run)
    runner.start()
    assert rig.judge.began.wait(PATIENT_S)
    rig.service.stop("test")
    runner.join(PATIENT_S)
    assert not runner.is_alive(), "a judge that hangs holds nobody up"
    counts = rig.service.counts
    assert counts.dropped >= 1
    assert counts.heard == counts.scored + counts.unusable + counts.dropped
    rig.judge.may_go.set()
    rig.service.monitors[0].join(PATIENT_S)
    assert rig.service.counts == counts, "what comes too late is not counted twice"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_listening_ends_the_run(number: signal.Signals) -> None:
    source = EndlessSource()
    rig = Rig(source)
    before = signal.getsignal(number)
    source.words.put(window(0.1))

    def raise_later() -> None:
        assert rig.judge.began.wait(PATIENT_S)
        signal.raise_signal(number)

    threading.Thread(target=raise_later).start()
    rig.service.run()
    assert rig.publisher.closed
    assert signal.getsignal(number) is before


def failing(error: Exception) -> Callable[[], Judge]:
    def open_judge() -> Judge:
        raise error

    return open_judge


def test_bundle_that_is_broken_ends_the_run_with_its_error() -> None:
    rig = Rig(EndlessSource(), failing(BundleError("embedder.onnx: wrong hash")))
    with pytest.raises(BundleError, match="wrong hash"):
        rig.service.run()
    assert rig.publisher.closed


def test_source_that_cannot_start_ends_the_run_with_its_error() -> None:
    rig = Rig(ScriptedSource([SourceError("no microphone")]))  # type: ignore[list-item]
    with pytest.raises(SourceError, match=r"^fan: no microphone"):
        rig.service.run()


def test_broker_that_refuses_ends_the_run_with_its_error() -> None:
    source = EndlessSource()
    rig = Rig(source)
    source.words.put(window(0.1))
    threading.Thread(
        target=lambda: (rig.judge.began.wait(PATIENT_S), rig.publisher.failed(BrokerError("refused")))
    ).start()
    with pytest.raises(BrokerError, match="refused"):
        rig.service.run()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_thread_that_dies_of_what_nobody_caught_ends_the_run(caplog: pytest.LogCaptureFixture) -> None:
    source = EndlessSource()
    rig = Rig(source)
    source.words.put(window(0.1))
    before = threading.excepthook

    def die() -> None:
        assert rig.judge.began.wait(PATIENT_S)
        raise ZeroDivisionError("in the connection")

    threading.Thread(target=die, name="connection").start()
    with pytest.raises(ZeroDivisionError):
        rig.service.run()
    assert "thread connection died" in caplog.text
    assert rig.publisher.closed
    assert threading.excepthook is before


def test_judge_that_breaks_is_logged_with_its_traceback_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def score(self, waveform: NDArray[np.float32]) -> Loudness:
            raise ZeroDivisionError("inside the model")

    source = EndlessSource()
    rig = Rig(source, Broken)
    source.words.put(window(0.1))
    with pytest.raises(ZeroDivisionError):
        rig.service.run()
    assert "inside the model" in caplog.text


class Reporter:
    """Notes what is asked of it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[str] = []
        self._error = error

    def start(self, reports: Reports) -> None:
        if self._error is not None:
            raise self._error
        self.calls.append("start")

    def progressed(self) -> None: ...

    def close(self) -> None:
        self.calls.append("close")


def test_start_that_fails_on_the_way_stops_what_was_started_and_nothing_else() -> None:
    """A port of metrics that is taken, say: the status file must not stay, and who never began must not be stopped."""
    rig = Rig(EndlessSource())
    first, second = Reporter(), Reporter(CannotStartError("port taken"))
    rig.service._reporters = (first, second)
    with pytest.raises(CannotStartError, match="port taken"):
        rig.service.run()
    assert (first.calls, second.calls) == (["start", "close"], [])
    assert not rig.publisher.closed
    assert rig.publisher.states == []


class Crowd:
    """Judges that note how many of them judge at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = self.most = self.judged = 0

    def score(self, waveform: NDArray[np.float32]) -> Loudness:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        np.sort(waveform)
        with self._lock:
            self._now -= 1
            self.judged += 1
        return Loudness(0.1)


def test_many_machines_of_one_process_judge_in_turns() -> None:
    publisher, crowd, turns = RememberingTeller(), Crowd(), JudgingTurns(2, patience_s=PATIENT_S)

    def monitors(callbacks: MonitorCallbacks) -> Sequence[MachineMonitor]:
        return [
            MachineMonitor(
                f"m{n}",
                ScriptedSource([window(0.1)] * 2),
                lambda: crowd,
                publisher,
                callbacks,
                rule=RULE,
                turns=turns,
            )
            for n in range(12)
        ]

    Service(publisher, SystemdNotifier({}), monitors).run()
    assert (crowd.judged, crowd.most <= 2) == (24, True)


def test_judge_that_hangs_in_its_turn_holds_the_others_up_for_a_moment_only() -> None:
    publisher, hanging = RememberingTeller(), LoudnessJudge()
    hanging.may_go.clear()
    turns = JudgingTurns(1, patience_s=0.05)
    fan, mill = EndlessSource(), EndlessSource()

    def monitors(callbacks: MonitorCallbacks) -> Sequence[MachineMonitor]:
        return [
            MachineMonitor("fan", fan, lambda: hanging, publisher, callbacks, rule=RULE, turns=turns),
            MachineMonitor("mill", mill, LoudnessJudge, publisher, callbacks, rule=RULE, turns=turns),
        ]

    service = Service(publisher, SystemdNotifier({}), monitors)
    runner = threading.Thread(target=service.run)
    runner.start()
    fan.words.put(window(0.1))
    assert hanging.began.wait(PATIENT_S)
    for _ in range(3):
        mill.words.put(window(0.2))
    assert publisher.wait_scores(3)
    assert publisher.scores == [0.2] * 3
    hanging.may_go.set()
    service.stop("test")
    runner.join(PATIENT_S)
    assert service.counts.heard == service.counts.scored + service.counts.dropped


def test_two_machines_in_one_process_do_not_mix() -> None:
    publisher = RememberingTeller()
    sound = {"fan": (0.1, 0.1, 0.1), "lathe": (0.9, 0.9, 0.9)}

    def monitors(callbacks: MonitorCallbacks) -> Sequence[MachineMonitor]:
        return [
            MachineMonitor(
                name, ScriptedSource([window(v) for v in levels]), LoudnessJudge, publisher, callbacks, rule=RULE
            )
            for name, levels in sound.items()
        ]

    Service(publisher, SystemdNotifier({}), monitors).run()
    assert {machine for machine, _ in publisher.alerts} == {"lathe"}
    assert [s for m, s, _ in publisher.states if m == "fan"] == ["starting", "normal", "stopped"]


def test_window_queue_that_may_wait_waits_for_room_and_wakes_when_stopped() -> None:
    line = JudgingQueue(limit=1)
    refused = UnreadableRecording(Path("x"), "y")
    assert line.put(refused, may_wait=True) == 0
    assert line.get() is refused
    waiting = threading.Thread(target=line.get)
    waiting.start()
    assert line.stop() == 0
    waiting.join(PATIENT_S)
    assert not waiting.is_alive()
    assert line.get() is None
