"""What becomes of one window: it is not fit, its machine is not known yet, or it gets a score and the machine a condition.

Asked from the judging thread only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from asd_daemon.errors import CannotJudgeError, UnknownMachineError
from asd_daemon.hear.windows.fitness import FitnessLimits, WindowFitness
from asd_daemon.hear.windows.quality import UnfitReason
from asd_daemon.hear.windows.window import Window
from asd_daemon.judge.alarm.lasting_change import UNKNOWN_STATE_WORDS
from asd_daemon.judge.scoring.verdict import OFF, HeardHall, Judge, heard_hall
from asd_daemon.run.machine_alerts import MachineAlerts
from asd_daemon.run.machine_status import MachineStatus, Outage
from asd_daemon.run.state_changes import JudgedWindow, StateChanges
from asd_daemon.run.window_in_progress import WindowInProgress
from asd_daemon.tell.commands import Command
from asd_daemon.tell.learning_report import LearningReport
from asd_daemon.tell.payloads import Condition, PublishedScore
from asd_daemon.tell.publisher import Publisher
from asd_daemon.watch.counters import Counters

_LOG = logging.getLogger(__name__)
FAR_LOST_WORDS = "the far microphone is not heard: judged by the near one alone"
_QUIET = "much quieter than usual: switched off, or the microphone is covered; learn it with the machine off too"


class Learner(Protocol):
    """Learns the machine from the windows that are judged, when it is asked to."""

    @property
    def report(self) -> LearningReport:
        """How far it is, and what came of it; from any thread."""

    @property
    def is_learning(self) -> bool:
        """Whether it is at it."""

    def enrol(self, command: Command) -> str | None:
        """Begin, or stop; why not, where it can't."""

    def status_message(self) -> str | None:
        """How far it is; or, once, what came of it."""

    def reopen(self, open_judge: Callable[[], Judge]) -> None:
        """Open what is known anew; what is being learned goes on."""

    def close(self) -> None:
        """Leave it at that, soon."""


class WindowJudging:
    """Judges one machine's windows.

    Args:
        machine: whose.
        fitness: whether a window can be judged.
        status: the machine's state.
        alerts: the machine's alerts.
        outage: told where a window can't be judged.
        publisher: told every score.
        counters: of all windows.
        learner: where the machine can be learned; None where it can't.
        at: UTC time of the start.
    """

    def __init__(
        self,
        machine: str,
        fitness: WindowFitness,
        status: MachineStatus,
        alerts: MachineAlerts,
        outage: Outage,
        publisher: Publisher,
        counters: Counters,
        learner: Learner | None,
        at: datetime,
    ) -> None:
        self._machine, self._fitness, self._status, self._alerts = machine, fitness, status, alerts
        self._outage, self._publisher, self._counters, self._learner = outage, publisher, counters, learner
        self.in_progress = WindowInProgress(counters)
        self.judged_until = at
        """UTC time of the end of the last window."""
        self._changes = StateChanges()
        self._is_far_lost = False
        self._dropped_reported = 0  # of the windows that were dropped, how many have been told

    def change_limits(self, limits: FitnessLimits) -> None:
        """Let usable end elsewhere from the next window on."""
        self._fitness.change_limits(limits)

    def judge(self, judge: Judge, window: Window) -> None:
        """Judge one window and publish all there is to publish."""
        self.in_progress.begin()
        self.judged_until = at = window.ended_at
        self._alerts.record_sound(window)
        reason = self._fitness.check(window)
        if reason is UnfitReason.OFF:
            self._fitness.mark_usable()
            self._handle_off(at, is_known=True)
            return
        is_quiet = reason is UnfitReason.QUIET
        if reason is not None and not is_quiet:
            self.in_progress.settle(unusable=1)
            self._alerts.handle_unusable_window(at, reason.value)
            hears = reason not in (UnfitReason.SILENCE, UnfitReason.STUCK)
            self._outage.report(Condition.UNUSABLE, reason.value, at, hears=hears)
            return
        try:
            verdict = self._alerts.apply_threshold(judge.score(window.both))
        except UnknownMachineError as e:  # it waits to be learned, or is being learned
            self.in_progress.settle(unusable=1)
            self._status.change(Condition.LEARNING, str(e), at)
            return
        except CannotJudgeError as e:
            self.in_progress.settle(unusable=1)
            self._alerts.handle_unusable_window(at, "not judged")
            self._outage.report(Condition.UNUSABLE, str(e), at, hears=True)
            return
        hall = heard_hall(verdict)
        self._hear_far(hall)
        if hall is not None and hall.drowns and not verdict.is_off:
            self._handle_drowned(at)
            return
        self._fitness.mark_usable()
        if verdict.is_off or is_quiet:
            self._handle_off(at, is_known=verdict.is_off)
            return
        self.in_progress.settle(scored=1)
        score = PublishedScore(
            window.started_at,
            verdict.score,
            verdict.threshold,
            verdict.anomalous,
            verdict.operating_state,
            None if hall is None else hall.share,
        )
        self._publisher.publish_score(self._machine, score)
        self._count(self._changes.take(window, verdict))
        self._status.set_score(verdict)
        self._status.change(*self._condition(), at, operating_state=self._changes.state)

    def _hear_far(self, hall: HeardHall | None) -> None:
        """Say once that the far microphone is lost, and once that it is back."""
        lost = hall is not None and hall.share is None
        if lost and not self._is_far_lost:
            _LOG.warning("%s: %s", self._machine, FAR_LOST_WORDS)
        elif self._is_far_lost and not lost:
            _LOG.info("%s: the far microphone is back", self._machine)
        self._is_far_lost = lost

    def _handle_drowned(self, at: datetime) -> None:
        """The hall is too loud for anything to be said of the machine."""
        self.in_progress.settle(unusable=1)
        self._alerts.handle_unusable_window(at, UnfitReason.HALL.value)
        self._outage.report(Condition.UNUSABLE, UnfitReason.HALL.value, at, hears=True)

    def _handle_off(self, at: datetime, *, is_known: bool) -> None:
        """The machine stands still: nothing of it can be judged, and nothing is wrong with that."""
        if is_known:
            self._fitness.mark_off()
        self.in_progress.settle(off=1)
        self._count(self._changes.off(OFF))
        self._alerts.handle_unusable_window(at, OFF)
        self._status.change(Condition.OFF, None if is_known else _QUIET, at, operating_state=self._changes.state)

    def _count(self, judged: list[JudgedWindow]) -> None:
        """Let the alarm hear of windows of which it is clear what they are."""
        for one in judged:
            if one.counts:
                self._alerts.handle_verdict(one.window, one.verdict)
            else:
                self._alerts.handle_passing_window(one.window)

    def _condition(self) -> tuple[Condition, str | None]:
        """The machine's condition after a window that was scored, and the reason."""
        has_alert = self._alerts.open_alert is not None
        condition, reason = Condition.ALERT if has_alert else Condition.NORMAL, None
        if has_alert and self._alerts.is_unknown_state:
            condition, reason = Condition.UNKNOWN_STATE, UNKNOWN_STATE_WORDS
        dropped = self._counters.now.dropped
        if dropped > self._dropped_reported:
            reason, self._dropped_reported = "cannot keep up: windows are dropped", dropped
            condition = condition if has_alert else Condition.OVERLOADED
        if reason is None and self._is_far_lost:
            reason = FAR_LOST_WORDS
        if self._learner is not None and condition is Condition.NORMAL:
            reason = self._learner.status_message() or reason
            condition = Condition.LEARNING if self._learner.is_learning else Condition.NORMAL
        return condition, reason
