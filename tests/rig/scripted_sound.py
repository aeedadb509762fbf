"""Sound that a test says, a judge that hears loudness, and one who remembers what is told: a service in memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asd_daemon.hear.source import Block, SourceEvent, SourceHealth
from asd_daemon.judge.alarm.alarm import AlertEvent
from asd_daemon.tell.commands import Command
from asd_daemon.tell.payloads import NO_DETAILS, AlertDetails, MachineState, PublishedScore
from rig.waiting import PATIENT_S

N = 160_000


@dataclass(frozen=True)
class Loudness:
    """A verdict: the peak of the window, anomalous above one half."""

    score: float
    threshold: float = 0.5
    enrolled: None = None
    operating_state: None = None
    is_off: bool = False

    @property
    def anomalous(self) -> bool:
        return self.score > self.threshold


class LoudnessJudge:
    """Judges by the peak; can be held up."""

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.may_go.set()
        self.began = threading.Event()

    def score(self, waveform: NDArray[np.float32]) -> Loudness:
        assert waveform.shape == (N,)
        assert waveform.dtype == np.float32
        self.began.set()
        assert self.may_go.wait(PATIENT_S)
        return Loudness(round(float(np.abs(waveform).max()), 1))


class RememberingTeller:
    """Keeps all it is told."""

    def __init__(self) -> None:
        self.states: list[tuple[str, str, str | None]] = []
        self.scores: list[float] = []
        self._scored = threading.Condition()
        self.alerts: list[tuple[str, AlertEvent]] = []
        self.closed = False
        self.failed: Callable[[Exception], None] = lambda _: None
        self.on_command: Callable[[str, Command], None] = lambda *_: None
        self.details: list[AlertDetails] = []
        self.resumed: list[AlertEvent] = []
        self.told_states: list[MachineState] = []

    def start(self, failed: Callable[[Exception], None]) -> None:
        self.failed = failed

    def publish_state(self, machine: str, state: MachineState) -> None:
        self.states.append((machine, state.condition.value, state.reason))
        self.told_states.append(state)

    def publish_score(self, machine: str, score: PublishedScore) -> None:
        with self._scored:
            self.scores.append(score.score)
            self._scored.notify_all()

    def wait_scores(self, count: int) -> bool:
        """Wait for so many; whether they came."""
        with self._scored:
            return self._scored.wait_for(lambda: len(self.scores) >= count, PATIENT_S)

    def publish_alert(
        self, machine: str, event: AlertEvent, details: AlertDetails = NO_DETAILS, memory: bytes | None = None
    ) -> None:
        self.alerts.append((machine, event))
        self.details.append(details)

    def republish_alert(self, machine: str, event: AlertEvent) -> None:
        self.resumed.append(event)

    def close(self, timeout_s: float) -> None:
        self.closed = True


def window(level: float) -> Block:
    """Ten seconds of noise whose peak is `level`; 0 is digital silence."""
    noise = np.random.default_rng(0).uniform(-1, 1, N)
    return Block((noise / np.abs(noise).max() * level).astype(np.float32))


class EndlessSource:
    """A live source: says what is put into it, until it is closed."""

    live = True
    source_health = SourceHealth()

    def __init__(self) -> None:
        self.words: queue.SimpleQueue[SourceEvent | None] = queue.SimpleQueue()

    def events(self) -> Iterator[SourceEvent]:
        while (item := self.words.get()) is not None:
            yield item

    def close(self) -> None:
        self.words.put(None)
