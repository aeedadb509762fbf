"""The monitor of one machine: its hearing thread, its judging thread and the queue between them.

Owns the two threads. What happens when either fails is the service's business.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from asd_daemon.hear.source import Source, SourceHealth
from asd_daemon.hear.windows.fitness import WindowFitness
from asd_daemon.hear.windows.window import WindowCutter
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.judge.scoring.verdict import Judge
from asd_daemon.run.alert_teaching import AlertTeaching
from asd_daemon.run.hearing_loop import HearingLoop
from asd_daemon.run.judging_loop import JudgingLoop
from asd_daemon.run.judging_queue import JudgingQueue
from asd_daemon.run.judging_turns import JudgingTurns
from asd_daemon.run.machine_alerts import AlertRules, MachineAlerts
from asd_daemon.run.machine_rules import MachineRules
from asd_daemon.run.machine_status import MachineStatus, Outage
from asd_daemon.run.machine_threshold import ThresholdRule
from asd_daemon.run.window_judging import Learner, WindowJudging
from asd_daemon.tell.commands import AskedCommand
from asd_daemon.tell.learning_report import LearningReport
from asd_daemon.tell.payloads import AboveThreshold, Condition, MachineState
from asd_daemon.tell.publisher import Publisher
from asd_daemon.tell.storage.machine_records import MachineRecords
from asd_daemon.watch.counters import Counters
from asd_daemon.watch.live_sound import LiveSound
from asd_daemon.watch.log import speak_of
from asd_daemon.waveform import WINDOW_SAMPLES


@dataclass(frozen=True)
class MonitorCallbacks:
    """Whom a monitor tells how it goes; all are called from its threads."""

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
    changed: Callable[[str], None] = lambda _: None
    """Its state may be another one, by a command or other rules; that is no progress."""


class MachineMonitor:
    """Monitors one machine.

    Args:
        machine: its name.
        source: its sound.
        open_judge: opens what scores its windows; called in the judging thread.
        publisher: who publishes states, scores and alerts.
        callbacks: whom it tells how it goes.
        rule: what makes an alert.
        threshold: which threshold holds; unset: the judge's.
        records: what is kept of it; None keeps nothing.
        fitness: whether its windows can be judged.
        learner: where it can be learned while it is heard; None where it can't.
        teaching: what people say of its alerts, known to its judge too; None: nothing can be said.
        hop_samples: from the start of one window to the start of the next.
        resumes: whether the sound is the same machine's as in the run before; None: where it is live.
        troubles: what is wrong with the daemon as a whole, in words; part of the machine's state.
        turns: at judging, shared with the other machines of the process; None where there are none.
        live_sound: where its sound is left for who looks at it just now; None where nobody can.
        now: UTC time.
    """

    def __init__(
        self,
        machine: str,
        source: Source,
        open_judge: Callable[[], Judge],
        publisher: Publisher,
        callbacks: MonitorCallbacks,
        *,
        rule: AlarmRule,
        threshold: ThresholdRule | None = None,
        records: MachineRecords | None = None,
        fitness: WindowFitness | None = None,
        learner: Learner | None = None,
        teaching: AlertTeaching | None = None,
        hop_samples: int = WINDOW_SAMPLES,
        resumes: bool | None = None,
        troubles: Callable[[], tuple[str, ...]] = tuple,
        turns: JudgingTurns | None = None,
        live_sound: LiveSound | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.machine = machine
        self.counters = Counters()
        self.callbacks = callbacks
        self._source, self._open_judge = source, open_judge
        self._learner, self._now = learner, now
        resumes = source.live if resumes is None else resumes
        rules = AlertRules(rule, threshold=threshold or ThresholdRule(), hop_samples=hop_samples)
        self._alerts = MachineAlerts(
            machine, rules, publisher, records, self.counters, teaching=teaching, resumes=resumes
        )
        fitness = fitness or WindowFitness()
        self._queue = JudgingQueue()
        cutter = WindowCutter(live=source.live, hop_samples=hop_samples, now=now)
        self._hearing = HearingLoop(machine, source, cutter, self._queue, self.counters, live_sound)
        self._status = MachineStatus(machine, publisher, self._alerts, now(), troubles)
        outage = Outage(machine, fitness, self._status, self.counters)
        self._windows = WindowJudging(
            machine, fitness, self._status, self._alerts, outage, publisher, self.counters, learner, now()
        )
        self._judging = JudgingLoop(
            machine,
            self._queue,
            self._windows,
            self._status,
            self._alerts,
            outage,
            self.counters,
            learner,
            now,
            command_time=now if source.live else lambda: self._windows.judged_until,
            turns=turns or JudgingTurns(),
        )
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"{name}-{machine}", daemon=True)
            for name, work in (("hear", self._hear), ("judge", self._judge))
        ]
        self._may_listen, self._judge_is_open = threading.Event(), threading.Event()
        self._judge_is_opened = False  # unlike the event, not by a stop

    @property
    def state(self) -> MachineState:
        """How the machine is."""
        return self._status.state

    @property
    def alarm_rule(self) -> AlarmRule:
        """By which rule its windows become alerts."""
        return self._alerts.alarm_rule

    @property
    def above(self) -> AboveThreshold | None:
        """How near an alert is."""
        return self._alerts.above

    @property
    def source_health(self) -> SourceHealth:
        """How its source has done."""
        return self._source.source_health

    def start(self) -> None:
        """Say that it begins, and open the judge, which takes its time while the first window fills; `listen` follows soon."""
        self._status.publish(self._now())
        self._alerts.resume()
        for thread in self._threads:
            thread.start()

    def listen(self) -> None:
        """Begin to listen, once all machines are started: until then no thread takes the processor from those that start."""
        self._may_listen.set()

    def stop(self) -> None:
        """End soon: the window in progress is judged, the rest is dropped and counted."""
        self._may_listen.set()
        self._judge_is_open.set()
        self._source.close()
        self.counters.add(dropped=self._queue.stop())
        if self._learner is not None:
            self._learner.close()

    def join(self, timeout_s: float) -> bool:
        """Wait for both threads; whether they are over. A window that a judge does not let go of is dropped and counted."""
        for thread in self._threads:
            thread.join(timeout_s)
        if not any(thread.is_alive() for thread in self._threads):
            return True
        self._windows.in_progress.abandon()
        return False

    @property
    def what_keeps_it(self) -> str:
        """Why it has not ended yet, in words."""
        if self._threads[0].is_alive():
            return "its source does not let go"
        return "is still judging a window" if self._judge_is_opened else "what judges it is still being opened"

    @property
    def learning(self) -> LearningReport | None:
        """How far the learning of it is; None where it can't be learned while it is heard."""
        return None if self._learner is None else self._learner.report

    def command(self, asked: AskedCommand) -> None:
        """Do what people ask for, soon; from any thread."""
        self._queue.put(asked, may_wait=False)

    def change_rules(self, rules: MachineRules) -> None:
        """Judge by other rules from the next window on, without missing one; from any thread."""
        self._queue.put(rules, may_wait=False)

    def publish_stopped(self) -> None:
        """Remember everything, and publish that nobody listens any more."""
        self._alerts.close()
        self._status.change(Condition.STOPPED, None, self._now())

    def _guarded(self, work: Callable[[], None]) -> None:
        speak_of(self.machine)
        try:
            work()
        except Exception as e:  # noqa: BLE001  # the top of a thread: whatever it is, the service must hear of it
            self.callbacks.failed(self.machine, e)

    def _hear(self) -> None:
        self._may_listen.wait()
        if not self._source.live:  # it can wait, and would take the processor from the judges that open
            self._judge_is_open.wait()
        self._hearing.run()

    def _judge(self) -> None:
        try:
            judge = self._open_judge()
            self._judge_is_opened = True
        finally:
            self._judge_is_open.set()
        if self._hearing.wait_for_first_event():
            self.callbacks.running(self.machine)
        told = self.callbacks
        self._judging.run(judge, lambda: told.progressed(self.machine), lambda: told.changed(self.machine))
        self.callbacks.ended(self.machine)
