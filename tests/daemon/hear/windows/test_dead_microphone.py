"""A monitor that hears nothing it can judge: what it says, counts, and that nothing makes a hanging judge look alive."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.hear.source import Block, SourceEvent, SourceLost
from asd_daemon.hear.windows.fitness import FitnessLimits, WindowFitness
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.run.machine_monitor import MachineMonitor, MonitorCallbacks
from asd_daemon.run.service import Service
from asd_daemon.tell.payloads import MachineState
from asd_daemon.tell.publisher import PrintingPublisher
from asd_daemon.watch.systemd import SystemdNotifier
from rig.scripted_sound import EndlessSource
from rig.waiting import PATIENT_S, wait_until

RULE = AlarmRule(open_after=2, of=3, close_after=2, update_every_s=0)
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Calm:
    """A verdict that nothing is wrong."""

    score: float = 0.1
    threshold: float = 0.5
    anomalous: bool = False
    enrolled: None = None
    operating_state: None = None
    is_off: bool = False


class SlowJudge:
    """Finds everything calm, once it may."""

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.may_go.set()

    def score(self, waveform: NDArray[np.float32]) -> Calm:
        assert self.may_go.wait(PATIENT_S)
        return Calm()


class States(PrintingPublisher):
    """Keeps the states, in order, and wakes who waits for one."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str | None]] = []
        self._seen = 0
        self._changed = threading.Condition()

    def start(self, *_: object) -> None:
        """Nothing to begin."""

    def publish_state(self, machine: str, state: MachineState) -> None:
        with self._changed:
            self.told.append((state.condition.value, state.reason))
            self._changed.notify_all()

    def publish_score(self, *_: object) -> None:
        """Of no interest here."""

    def publish_alert(self, *_: object) -> None:
        """None can come."""

    def close(self, timeout_s: float) -> None:
        """Nothing waits."""

    def wait_for(self, condition: str, reason: str | None) -> None:
        """Wait for a state that was not waited for before."""
        wanted = (condition, reason)
        with self._changed:
            assert self._changed.wait_for(lambda: wanted in self.told[self._seen :], PATIENT_S), (wanted, self.told)
            self._seen = self.told.index(wanted, self._seen) + 1


class Rig:
    """One machine, a clock that is moved by hand, and a thread that runs it all."""

    def __init__(self, notifier: SystemdNotifier | None = None) -> None:
        self.source, self.judge, self.states = EndlessSource(), SlowJudge(), States()
        self.at = START

        def monitors(callbacks: MonitorCallbacks) -> Sequence[MachineMonitor]:
            fitness = WindowFitness(FitnessLimits(deaf_after_s=60))
            made = MachineMonitor(
                "fan",
                self.source,
                lambda: self.judge,
                self.states,
                callbacks,
                rule=RULE,
                fitness=fitness,
                now=lambda: self.at,
            )
            return [made]

        self.service = Service(self.states, notifier or SystemdNotifier({}), monitors)
        self._thread = threading.Thread(target=self.service.run)

    def __enter__(self) -> Rig:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.judge.may_go.set()
        self.service.stop("test")
        self._thread.join(PATIENT_S)
        assert not self._thread.is_alive()

    def say(self, item: SourceEvent, after_s: float = 0.0) -> None:
        self.at += timedelta(seconds=after_s)
        self.source.words.put(item)


def sound(samples: int = 160_000) -> Block:
    return Block(np.random.default_rng(0).uniform(-0.5, 0.5, samples).astype(np.float32))


def test_swapped_microphone_is_a_state_and_the_right_one_is_heard_again() -> None:
    with Rig() as rig:
        rig.say(sound())
        rig.states.wait_for("normal", None)
        rig.say(SourceLost("this is B, not A", 0.5, wrong_device=True))
        rig.states.wait_for("wrong_device", "this is B, not A")
        rig.say(Block(sound(1000).samples, gap_samples=9))
        rig.states.wait_for("starting", "sound is back")
        rig.say(sound())
        rig.states.wait_for("normal", None)
    assert rig.service.counts.losses == 1
    assert rig.service.counts.scored == 2


def test_silence_is_told_before_the_window_ends() -> None:
    with Rig() as rig:
        for _ in range(4):
            rig.say(Block(np.zeros(8000, np.float32)))
        rig.states.wait_for("unusable", "silence")
        assert rig.service.counts.heard == 0, "two seconds are no window"
        rig.say(sound(8000))
        rig.states.wait_for("starting", "sound is back")
        rig.say(sound())
        rig.states.wait_for("normal", None)
    counts = rig.service.counts
    assert (counts.heard, counts.unusable, counts.scored, counts.losses) == (2, 1, 1, 0)


def test_deafness_that_lasts_is_counted_once_and_said_in_the_reason() -> None:
    with Rig() as rig:
        rig.say(SourceLost("unplugged", 1.0))
        rig.states.wait_for("mic_lost", "unplugged")
        rig.say(SourceLost("unplugged", 80.0), after_s=80)
        rig.states.wait_for("mic_lost", "unplugged, and nothing usable for 60 s")
        assert rig.service.counts.deaf == 1
        rig.say(sound())
        rig.states.wait_for("normal", None)
        rig.say(SourceLost("unplugged", 1.0), after_s=30)
        rig.states.wait_for("mic_lost", "unplugged")
    assert rig.service.counts.deaf == 1


def test_watchdog_is_not_fed_while_the_judge_hangs_however_much_is_heard(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENT_S)
        with Rig(SystemdNotifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})) as rig:
            rig.say(sound())
            while systemd.recv(4096) != b"WATCHDOG=1":
                pass
            rig.judge.may_go.clear()
            for _ in range(12):
                rig.say(sound())
            wait_until(lambda: rig.service.counts.heard == 13, "all is heard")
            systemd.setblocking(False)
            heard_by_systemd = []
            try:
                while True:
                    heard_by_systemd.append(systemd.recv(4096))
            except BlockingIOError:
                assert b"WATCHDOG=1" not in heard_by_systemd
            systemd.settimeout(PATIENT_S)
            rig.judge.may_go.set()
            while systemd.recv(4096) != b"WATCHDOG=1":
                pass
    assert rig.service.counts.dropped > 0
    assert ("overloaded", "cannot keep up: windows are dropped") in rig.states.told
