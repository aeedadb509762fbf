"""One machine's way from its source to people: two threads, a bounded queue between them, its alarm and its state.

The hearing thread cuts windows and never waits for a slow judge when the sound is live: the oldest window is dropped and counted.
The judging thread does all the rest. What happens when either fails is the service's business.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from asd_daemon.errors import CannotJudgeError, UnknownMachineError
from asd_daemon.hear.source import (
    Block,
    DeadMicrophone,
    SoundReturned,
    Source,
    SourceHealth,
    SourceLost,
    UnreadableRecording,
)
from asd_daemon.hear.windows.dead_microphone import with_dead_microphone_events
from asd_daemon.hear.windows.fitness import Fitness
from asd_daemon.hear.windows.window import Window, WindowCutter
from asd_daemon.judge.alarm.alarm import AlarmRule
from asd_daemon.judge.scoring.verdict import Judge
from asd_daemon.run.attention import Attention, AttentionRule
from asd_daemon.run.window_queue import WindowQueue
from asd_daemon.tell.commands import Command, CommandKind
from asd_daemon.tell.payloads import Condition, MachineState, PublishedScore
from asd_daemon.tell.publisher import Publisher
from asd_daemon.tell.storage.machine_records import MachineRecords
from asd_daemon.watch.counters import Counters
from asd_daemon.waveform import WINDOW_SAMPLES

_LOG = logging.getLogger(__name__)


class Learner(Protocol):
    """Learns the machine from the windows that are judged, when it is asked to."""

    @property
    def is_learning(self) -> bool:
        """Whether it is at it."""

    def enrol(self, command: Command) -> str | None:
        """Begin; why not, where it can't."""

    def news(self) -> str | None:
        """How far it is; or, once, what came of it."""

    def close(self) -> None:
        """Leave it at that, soon."""


@dataclass(frozen=True)
class StationCallbacks:
    """Whom a station tells how it goes; all are called from its threads."""

    running: Callable[[str], None]
    """Once: the judge is open, and there is sound, or it is known that there is none."""
    progressed: Callable[[str], None]
    """A window, or the lack of one, went all the way."""
    ended: Callable[[str], None]
    """The source has nothing more and all of it is judged."""
    failed: Callable[[str, Exception], None]
    """A thread can't go on."""
    unjudged: Callable[[str, Exception | None], None] = lambda *_: None
    """The machine can't be judged, and nobody can teach it here; None: it can again."""


class Station:
    """Listens to one machine."""

    def __init__(
        self,
        machine: str,
        source: Source,
        open_judge: Callable[[], Judge],
        publisher: Publisher,
        news: StationCallbacks,
        *,
        rule: AlarmRule,
        records: MachineRecords | None = None,
        fitness: Fitness | None = None,
        learner: Learner | None = None,
        hop_samples: int = WINDOW_SAMPLES,
        resumes: bool | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.machine = machine
        self.counters = Counters()
        self._source, self._open_judge, self._publisher, self._news, self._now = (
            source,
            open_judge,
            publisher,
            news,
            now,
        )
        self._attention = Attention(
            machine,
            AttentionRule(rule, hop_samples=hop_samples),
            publisher,
            records,
            self.counters,
            resumes=source.live if resumes is None else resumes,
        )
        self._fitness, self._learner = fitness or Fitness(), learner
        self._cutter = WindowCutter(live=source.live, hop_samples=hop_samples, now=now)
        self._queue = WindowQueue()
        self._dropped_said = 0  # of the windows that were dropped, how many have been told
        self._state = MachineState(Condition.STARTING, now())
        self._awake = threading.Event()  # the source has spoken, or never will
        self._judged_until = now()
        self._has_spoken = False
        self._is_lost = False
        self._accounts = threading.Lock()  # guards the two below
        self._is_at_hand = self._is_abandoned = False  # a window is being judged; and nobody waits for it any more
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"{name}-{machine}", daemon=True)
            for name, work in (("hear", self._hear), ("judge", self._judge))
        ]

    @property
    def state(self) -> MachineState:
        """How the machine is."""
        return self._state

    @property
    def source_health(self) -> SourceHealth:
        """How its source has done."""
        return self._source.source_health

    def start(self) -> None:
        """Begin to listen; the judge is opened while the first window fills."""
        self._state = self._attention.describe(self._state, self._now())
        self._publisher.state(self.machine, self._state)
        self._attention.begin()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End soon: the window at hand is judged, the rest is dropped and counted."""
        self._source.close()
        self.counters.add(dropped=self._queue.stop())
        if self._learner is not None:
            self._learner.close()

    def join(self, timeout_s: float) -> bool:
        """Wait for both threads; whether they are over. The window that a judge does not let go of is dropped and counted."""
        for thread in self._threads:
            thread.join(timeout_s)
        if not any(thread.is_alive() for thread in self._threads):
            return True
        with self._accounts:
            if self._is_at_hand:
                self.counters.add(dropped=1)
            self._is_abandoned = True
        return False

    def command(self, command: Command) -> None:
        """Do what people ask for, soon; from any thread."""
        self._queue.put(command, may_wait=False)

    def say_stopped(self) -> None:
        """Remember everything, and tell that nobody listens any more."""
        self._attention.end()
        self._become(Condition.STOPPED, None, self._now())

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as e:  # noqa: BLE001  # the top of a thread: whatever it is, the service must hear of it
            self._news.failed(self.machine, e)

    def _hear(self) -> None:
        try:
            for heard in (
                with_dead_microphone_events(self._source.events()) if self._source.live else self._source.events()
            ):
                gap = getattr(heard, "gap_samples", 0)
                if gap:
                    self.counters.add(gaps=1, gap_samples=gap)
                if isinstance(heard, SourceLost) and not self._is_lost:
                    self.counters.add(losses=1)
                if self._is_lost and isinstance(heard, Block):
                    self._pass_on(SoundReturned())
                self._is_lost = isinstance(heard, SourceLost)
                self._has_spoken = True
                self._awake.set()
                for item in self._cutter.feed(heard):
                    self._pass_on(item)
        finally:
            self._awake.set()
            self._queue.end()

    def _pass_on(self, item: Window | SourceLost | SoundReturned | UnreadableRecording | DeadMicrophone) -> None:
        if isinstance(item, Window):
            self.counters.add(heard=1)
        dropped = self._queue.put(item, may_wait=not self._source.live)
        if dropped:
            self.counters.add(dropped=dropped)
            _LOG.warning("%s: judging can't keep up, a window is dropped", self.machine)

    def _judge(self) -> None:
        judge = self._open_judge()
        self._awake.wait()
        if self._has_spoken:
            self._news.running(self.machine)
        while (item := self._queue.get()) is not None:
            if isinstance(item, Window):
                self._judge_window(judge, item)
            elif isinstance(item, SourceLost):
                condition = Condition.WRONG_DEVICE if item.wrong_device else Condition.MIC_LOST
                self._become_deaf(condition, item.reason, self._now())
            elif isinstance(item, SoundReturned):
                condition = Condition.ALERT if self._attention.open_alert else Condition.STARTING
                self._become(condition, "sound is back", self._now())
            elif isinstance(item, DeadMicrophone):
                self._become_deaf(Condition.UNUSABLE, item.reason, self._now())
            elif isinstance(item, Command) and item.command is CommandKind.ENROLL:
                self._learn(item)
            elif isinstance(item, Command):
                at = self._now() if self._source.live else self._judged_until
                self._attention.heed(item, at)
                self._become(self._state.condition, self._state.reason, at)
            else:
                self.counters.add(refused=1)
                _LOG.error("%s: %s", self.machine, item.reason)
            if isinstance(
                item, Window | SourceLost | UnreadableRecording
            ):  # a command or a word in between is no sign that windows flow
                self._news.progressed(self.machine)
        self._news.ended(self.machine)

    def _judge_window(self, judge: Judge, window: Window) -> None:
        """Judge one window and tell all there is to tell."""
        self._is_at_hand = True
        self._judged_until = window.ended_at
        self._attention.hear(window)
        reason = self._fitness.reason(window)
        if reason is not None:
            self._settle(unusable=1)
            self._attention.unfit(window.ended_at, reason.value)
            self._become_deaf(Condition.UNUSABLE, reason.value, window.ended_at)
            return
        try:
            verdict = judge.score(window.samples)
        except UnknownMachineError as e:  # it waits for its first lesson, or is at it
            self._settle(unusable=1)
            self._become(Condition.LEARNING, str(e), window.ended_at)
            return
        except CannotJudgeError as e:
            self._settle(unusable=1)
            self._attention.unfit(window.ended_at, "not judged")
            self._become_deaf(Condition.UNUSABLE, str(e), window.ended_at)
            return
        self._fitness.hears()
        self._settle(scored=1)
        told = PublishedScore(window.started_at, verdict.score, verdict.threshold, verdict.anomalous)
        self._publisher.score(self.machine, told)
        self._attention.judged(window, verdict)
        self._state = replace(self._state, score=verdict.score, threshold=verdict.threshold)
        condition, reason_text = Condition.ALERT if self._attention.open_alert else Condition.NORMAL, None
        dropped = self.counters.now.dropped
        if dropped > self._dropped_said:
            reason_text, self._dropped_said = "cannot keep up: windows are dropped", dropped
            condition = Condition.ALERT if self._attention.open_alert else Condition.OVERLOADED
        if self._learner is not None and condition is Condition.NORMAL:
            reason_text = self._learner.news()
            condition = Condition.LEARNING if self._learner.is_learning else Condition.NORMAL
        self._become(condition, reason_text, window.ended_at)

    def _settle(self, **counted: int) -> None:
        """Say what became of the window at hand, unless it has been given up."""
        with self._accounts:
            if not self._is_abandoned:
                self.counters.add(**counted)
            self._is_at_hand = False

    def _learn(self, command: Command) -> None:
        """Begin to learn the machine, or say why that can't be."""
        refused = "mqtt.enrolment is not set" if self._learner is None else self._learner.enrol(command)
        if refused is None and self._learner is not None:
            condition = self._state.condition
            learning = condition if condition is Condition.ALERT else Condition.LEARNING
            self._become(learning, self._learner.news(), self._now())
        else:
            _LOG.warning("%s: command enroll refused: %s", self.machine, refused)
            self._become(self._state.condition, f"enroll refused: {refused}", self._now())

    def _become_deaf(self, condition: Condition, reason: str, at: datetime) -> None:
        """There is nothing that can be judged; say so, and once more when that has lasted too long."""
        if self._fitness.is_deaf(at):
            self.counters.add(deaf=1)
            _LOG.error("%s: %s%s", self.machine, reason, self._fitness.deaf_text)
        self._become(condition, reason + self._fitness.deaf_text, at)

    def _become(self, condition: Condition, reason: str | None, at: datetime) -> None:
        """Change state, and tell so if it is a change."""
        before = self._state
        since = before.since if condition is before.condition else at
        changed = replace(before, condition=condition, reason=reason, since=since)
        self._state = self._attention.describe(changed, at)
        if self._state != before:
            self._publisher.state(self.machine, self._state)
