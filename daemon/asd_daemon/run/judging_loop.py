"""One machine's judging thread: takes what waits in the queue, in order, and gives each to whoever handles it.

Windows go to `WindowJudging`, commands to the alerts or the learner, all else changes the machine's condition.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from asd_daemon.hear.source import DeadMicrophone, SoundReturned, SourceLost, UnreadableRecording
from asd_daemon.hear.windows.window import Window
from asd_daemon.judge.scoring.verdict import Judge
from asd_daemon.run.judging_queue import JudgingQueue
from asd_daemon.run.judging_turns import JudgingTurns
from asd_daemon.run.machine_alerts import MachineAlerts
from asd_daemon.run.machine_rules import MachineRules
from asd_daemon.run.machine_status import MachineStatus, Outage
from asd_daemon.run.window_judging import Learner, WindowJudging
from asd_daemon.tell.commands import Answer, AskedCommand, CommandKind
from asd_daemon.tell.payloads import Condition
from asd_daemon.watch.counters import Counters

_LOG = logging.getLogger(__name__)
_RECORDING = "a recording, or a simulation that is only tried out, is learned by `asd-daemon enroll`"


class JudgingLoop:
    """Handles one machine's queue until its end.

    Args:
        machine: whose.
        queue: what waits.
        windows: judges windows.
        status: the machine's state.
        alerts: the machine's alerts.
        outage: told where there is nothing to judge.
        counters: where unreadable recordings are counted.
        learner: where the machine can be learned; None where it can't.
        now: UTC time at which what is no window is handled.
        command_time: UTC time at which a command holds.
        turns: shared with the other machines of the process.
    """

    def __init__(
        self,
        machine: str,
        queue: JudgingQueue,
        windows: WindowJudging,
        status: MachineStatus,
        alerts: MachineAlerts,
        outage: Outage,
        counters: Counters,
        learner: Learner | None,
        now: Callable[[], datetime],
        command_time: Callable[[], datetime],
        turns: JudgingTurns,
    ) -> None:
        self._machine, self._queue, self._windows, self._status = machine, queue, windows, status
        self._alerts, self._outage, self._counters, self._learner = alerts, outage, counters, learner
        self._now, self._command_time, self._turns = now, command_time, turns

    def run(self, judge: Judge, progressed: Callable[[], None], changed: Callable[[], None]) -> None:
        """Handle all that comes.

        Args:
            judge: scores the windows.
            progressed: called after each window, and each sign that there is none.
            changed: called after what else may have changed the state.
        """
        while (item := self._queue.get()) is not None:
            if isinstance(item, Window):
                self._judge_in_turn(judge, item)
            elif isinstance(item, AskedCommand):
                self._handle_command(item)
            elif isinstance(item, MachineRules):
                judge = self._take_on(item, judge)
            else:
                self._handle_event(item)
            if isinstance(item, Window | SourceLost | UnreadableRecording):  # nothing else shows that windows flow
                progressed()
            else:
                changed()
            item = None  # a window of 0.6 MB, which would be held until the next one

    def _judge_in_turn(self, judge: Judge, window: Window) -> None:
        """Judge a window when it is this machine's turn; drop it where nobody waits for it any more by then."""
        self._windows.in_progress.begin()
        with self._turns.turn():
            if self._queue.is_stopped:
                self._windows.in_progress.settle(dropped=1)
            else:
                self._windows.judge(judge, window)

    def _take_on(self, rules: MachineRules, judge: Judge) -> Judge:
        """Go over to other rules; the judge by them."""
        if rules.alerts is not None:
            self._alerts.change_rules(rules.alerts)
        if rules.limits is not None:
            self._windows.change_limits(rules.limits)
        if rules.open_judge is not None:
            if self._learner is not None:
                self._learner.reopen(rules.open_judge)
            else:
                judge = rules.open_judge()
        self._status.change(self._status.state.condition, self._status.state.reason, self._now())
        return judge

    def _handle_event(self, event: SourceLost | SoundReturned | DeadMicrophone | UnreadableRecording) -> None:
        """Change the condition by what has happened to the source."""
        if isinstance(event, SourceLost):
            condition = Condition.WRONG_DEVICE if event.wrong_device else Condition.MIC_LOST
            self._alerts.handle_deafness(self._now())
            self._outage.report(condition, event.reason, self._now(), hears=False)
        elif isinstance(event, SoundReturned):
            condition = Condition.ALERT if self._alerts.open_alert else Condition.STARTING
            self._status.change(condition, "sound is back", self._now())
        elif isinstance(event, DeadMicrophone):
            self._alerts.handle_deafness(self._now())
            self._outage.report(Condition.UNUSABLE, event.reason, self._now(), hears=False)
        else:
            self._counters.add(refused=1)
            _LOG.error("%s: %s", self._machine, event.reason)

    def _handle_command(self, asked: AskedCommand) -> None:
        command = asked.command
        if command.command is CommandKind.ENROLL:
            self._enrol(asked)
            return
        at, condition, reason = self._command_time(), self._status.state.condition, self._status.state.reason
        if command.is_word:
            asked.reply(self._alerts.handle_word(command, at))
            if condition in (Condition.ALERT, Condition.UNKNOWN_STATE) and self._alerts.open_alert is None:
                condition, reason = Condition.NORMAL, None
        else:
            answer = self._alerts.handle_command(command, at)
            if not answer.ok:
                _LOG.warning("%s", answer.text)
            asked.reply(answer)
        self._status.change(condition, reason, at)

    def _enrol(self, asked: AskedCommand) -> None:
        """Begin to learn the machine, or stop it, or say why that can't be."""
        refused = asked.refusal or (_RECORDING if self._learner is None else self._learner.enrol(asked.command))
        condition = self._status.state.condition
        if refused is None and self._learner is not None:
            learning = condition if condition in (Condition.ALERT, Condition.UNKNOWN_STATE) else Condition.LEARNING
            self._status.change(learning, self._learner.status_message(), self._now())
            words = "is being learned" if not asked.command.undo else "is not learned any further"
            asked.reply(Answer(True, f"{self._machine} {words}"))
        else:
            _LOG.warning("%s: command enroll refused: %s", self._machine, refused)
            self._status.change(condition, f"enroll refused: {refused}", self._now())
            asked.reply(Answer(False, f"{self._machine}: {refused}"))
