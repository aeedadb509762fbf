"""One machine's alerts: which are published and which are withheld, with what explanation, and what survives a restart.

Owns the order in which score log, drift, alarm, threshold, silence and publisher are asked for each window. It is asked from one
thread, the judging one; it knows no microphone and no broker.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import datetime

from asd_daemon.hear.windows.fresh_sound import FreshSound
from asd_daemon.hear.windows.window import Window
from asd_daemon.judge.alarm.alarm import Alarm, AlertEvent, AlertKind
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.judge.alarm.lasting_change import UNKNOWN_STATE_WORDS, LastingChange
from asd_daemon.judge.alarm.score_drift import ScoreDriftRule
from asd_daemon.judge.scoring.verdict import DescribedVerdict, Likeness, Verdict, heard_hall
from asd_daemon.run.alert_explanation import AlertExplanation
from asd_daemon.run.alert_teaching import AlertTeaching
from asd_daemon.run.machine_threshold import MachineThreshold, ThresholdRule
from asd_daemon.run.score_drift_watch import ScoreDriftWatch
from asd_daemon.tell.commands import Answer, Command, CommandKind
from asd_daemon.tell.payloads import AboveThreshold, AlertDetails, MachineState, alert_text
from asd_daemon.tell.publisher import Publisher
from asd_daemon.tell.storage.machine_memory import MachineMemory
from asd_daemon.tell.storage.machine_records import MachineRecords
from asd_daemon.watch.counters import Counters
from asd_daemon.waveform import WINDOW_SAMPLES
from asd_daemon.wording import score_of

_LOG = logging.getLogger(__name__)
_HAPPENS = {AlertKind.OPEN: "opens", AlertKind.UPDATE: "goes on", AlertKind.CLOSE: "closes"}


@dataclass(frozen=True)
class AlertRules:
    """By which rules one machine's windows become alerts."""

    alarm: AlarmRule
    drift: ScoreDriftRule = field(default_factory=ScoreDriftRule)
    threshold: ThresholdRule = field(default_factory=ThresholdRule)
    hop_samples: int = WINDOW_SAMPLES
    """From the start of one window to the start of the next."""


class MachineAlerts:
    """All alerts of one machine.

    Args:
        machine: whose.
        rules: what makes an alert.
        publisher: whom alerts are given to.
        records: what is kept; its memory is taken up where the run before ended, if `resumes`.
        counters: where opened alerts are counted.
        teaching: what people say of its alerts; None: nothing can be said.
        resumes: whether the sound is the same machine's as in the run before, which recordings need not be; if not, nothing is remembered.
    """

    def __init__(
        self,
        machine: str,
        rules: AlertRules,
        publisher: Publisher,
        records: MachineRecords | None = None,
        counters: Counters | None = None,
        *,
        teaching: AlertTeaching | None = None,
        resumes: bool = False,
    ) -> None:
        self._machine, self._rules, self._publisher = machine, rules, publisher
        self._teaching = teaching or AlertTeaching(machine, None)
        self._like: Likeness | None = None  # of the worst window of the alert that is open
        self._records = records or MachineRecords(machine)
        self._counters = counters or Counters()
        self._resumes = resumes
        memory = self._records.memory() if resumes else MachineMemory()
        self._alarm = Alarm(rules.alarm, memory=memory.alarm)
        self._clip = self._records.clip_of(self.open_alert)
        self._teaching.resume(self.open_alert, self._clip)
        self._silence, self._drift = memory.silence, ScoreDriftWatch(machine, rules.drift, memory.level)
        learning = rules.threshold.learning if resumes else None
        self._threshold = MachineThreshold(
            machine, replace(rules.threshold, learning=learning), memory.tail, memory.other_tail
        )
        self._explanation, self._fresh_sound = AlertExplanation(), FreshSound(rules.hop_samples)
        self._lasting, self._unknown_told = LastingChange(), memory.unknown_told

    @property
    def is_unknown_state(self) -> bool:
        """Whether the alert that is open may be a state of the machine that was never heard."""
        return self._lasting.holds

    @property
    def alarm_rule(self) -> AlarmRule:
        """By which rule windows become alerts."""
        return self._rules.alarm

    @property
    def open_alert(self) -> AlertEvent | None:
        """The alert that is open, published or not."""
        return self._alarm.open_alert

    @property
    def above(self) -> AboveThreshold | None:
        """How near an alert is; None where no window of the last ones lies above the threshold, or an alert is open."""
        windows, rule = self._alarm.above, self._rules.alarm
        return AboveThreshold(windows, rule.open_after, rule.of) if windows else None

    def resume(self) -> None:
        """Publish again what an earlier run has left open."""
        if (alert := self.open_alert) is not None:
            self._records.take_up_alert(alert, self._details, told=not self._silence.held)
            _LOG.info("%s: alert %s is still open from an earlier run", self._machine, alert.event_id)
            if not self._silence.held:
                self._publisher.republish_alert(self._machine, alert)

    def close(self) -> None:
        """Remember everything; nothing more is heard."""
        self._records.finish()
        self._remember()

    def change_rules(self, rules: AlertRules) -> None:
        """Judge by other rules from the next window on; what is known and an alert that is open stay."""
        learning = rules.threshold.learning if self._resumes else None
        self._alarm = Alarm(rules.alarm, memory=self._alarm.memory)
        self._threshold = MachineThreshold(
            self._machine, replace(rules.threshold, learning=learning), *self._threshold.memories
        )
        self._rules = replace(rules, drift=self._rules.drift, hop_samples=self._rules.hop_samples)
        self._remember()

    def describe(self, state: MachineState, now: datetime) -> MachineState:
        """A state with all that is to be said of alerts, drift and stores."""
        alert, silence = self.open_alert, self._silence
        return replace(
            state,
            event_id=alert.event_id if alert else None,
            acknowledged=alert is not None and alert.event_id == silence.acknowledged,
            muted_until=silence.muted_until(now),
            drift=self._drift.drift,
            calibration=self._threshold.state,
            troubles=(*self._records.write_errors, *filter(None, [self._teaching.write_error])),
            changes=self._explanation.changes if alert else None,
            like=self._like if alert else None,
        )

    def record_sound(self, window: Window) -> None:
        """Take in a window's sound for clips, fit to judge or not."""
        self._records.record_sound(self._fresh_sound.of(window))

    def handle_unusable_window(self, at: datetime, reason: str) -> None:
        """A window could not be judged."""
        self._records.log_score(at, None, None, reason)
        self._end_expired_silence(at)
        self._handle_unjudged(self._alarm.unjudged(at))

    def handle_passing_window(self, window: Window) -> None:
        """A window held a start, a stop or a change of the machine's state, and says nothing of its health."""
        self._records.log_score(window.ended_at, None, None, "changing")

    def handle_deafness(self, at: datetime) -> None:
        """Nothing is heard of the machine; called again and again while that lasts."""
        self._handle_unjudged(self._alarm.unjudged(at, is_deaf=True))

    def _handle_unjudged(self, event: AlertEvent | None) -> None:
        if event is None:
            return
        ends = "ends as unknown" if event.outcome is not None else "stays open"
        if event.outcome is not None:
            self._threshold.drop_alert()
        _LOG.warning("%s: can't be judged while alert %s is open; it %s", self._machine, event.event_id, ends)
        self._handle_event(event)

    def apply_threshold(self, verdict: Verdict) -> Verdict:
        """What the judge says of a window, by the threshold that holds for this machine."""
        return self._threshold.apply(verdict)

    def handle_verdict(self, window: Window, verdict: Verdict) -> None:
        """Take in what is said of a window by the threshold that holds, and publish what there is to publish."""
        at = window.ended_at
        self._records.log_score(at, verdict.score, verdict.threshold)
        is_worth_keeping = self._drift.update(verdict.score, self._threshold.unmoved(verdict), at)
        self._end_expired_silence(at)
        self._teaching.hear(verdict, at, alert_open=self.open_alert is not None)
        event = self._alarm.update(verdict.score, verdict.threshold, at)
        alert = self.open_alert
        event = self._with_unknown_state(event, verdict, at)
        is_worth_keeping |= self._threshold.hear(verdict.score, at, alert_open=alert is not None)
        if alert is not None and verdict.score == alert.peak_score:
            self._like = verdict.like if isinstance(verdict, DescribedVerdict) else None
        if event is not None and event.kind is AlertKind.OPEN:
            self._explanation.begin(window.samples, heard_hall(verdict))
        elif alert is not None and verdict.score == alert.peak_score:  # what is told is how the worst window differs
            self._explanation.replace_worst(window.samples, heard_hall(verdict))
        if event is not None:
            self._handle_event(event)
        elif alert is None and verdict.score <= self._rules.alarm.close_threshold(verdict.threshold):
            self._explanation.add_normal(window.samples)
            self._records.keep_normal(window.samples, at)
        if is_worth_keeping:
            self._remember()

    def _with_unknown_state(self, event: AlertEvent | None, verdict: Verdict, at: datetime) -> AlertEvent | None:
        """What there is to tell where the change may be a state that was never heard: that once, and then only what is worse."""
        alert = self.open_alert
        was_told = alert is not None and alert.event_id == self._unknown_told
        lasts = self._lasting.update(verdict.score, verdict.threshold, alert_open=alert is not None, was_told=was_told)
        if alert is None:
            return event
        if lasts and not was_told:
            self._unknown_told = alert.event_id
            _LOG.warning("%s: alert %s %s", self._machine, alert.event_id, UNKNOWN_STATE_WORDS)
            return replace(alert, kind=AlertKind.UPDATE, at=at)
        if event is not None and event.kind is AlertKind.UPDATE and self._lasting.is_usual(verdict.score):
            return None
        return event

    def handle_word(self, command: Command, now: datetime) -> Answer:
        """Take somebody's word for an alert: that it was normal, which closes it, or a fault."""
        alert = self.open_alert
        answer, accepted = self._teaching.say(command, alert.event_id if alert else None, now)
        event = self._alarm.accept(now) if alert is not None and accepted == alert.event_id else None
        if event is not None:
            self._threshold.drop_alert()
            self._handle_event(event)
        return answer

    def handle_command(self, command: Command, now: datetime) -> Answer:
        """Mute, unmute or acknowledge, as people ask; what was done, or why not."""
        alert, done = self.open_alert, "alerts are told"
        if command.command is CommandKind.MUTE:
            self._silence = self._silence.muted(now, command.minutes * 60)
            done = f"no alert is told for {command.minutes:g} minutes"
        elif command.command is CommandKind.UNMUTE:
            self._unmute()
        elif alert is None or command.event_id not in (None, alert.event_id):
            which = "is open that could be" if command.event_id is None else f"{command.event_id} is open to be"
            return Answer(False, f"{self._machine}: no alert {which} acknowledged")
        else:
            self._silence = self._silence.acknowledging(alert.event_id)
            done = "acknowledged: nothing but the end of this alert is told"
        self._remember()
        return Answer(True, f"{self._machine}: {done}")

    def _handle_event(self, event: AlertEvent) -> None:
        """Publish an event unless it is withheld; what the alarm knows is kept with it in any case."""
        text = alert_text(self._explanation.changes, self._like)
        score, words = score_of(event.score, event.threshold), f": {text}" if text is not None else ""
        _LOG.info("%s: alert %s, score %s%s", self._machine, _HAPPENS[event.kind], score, words)
        if event.kind is AlertKind.OPEN:
            self._counters.add(opened=1)
            self._silence = self._silence.when_opened(event.at)
            self._clip = self._records.begin_clip(event)
        self._teaching.follow(event, text, self._clip)
        is_withheld = self._silence.withholds(event)
        if event.kind is AlertKind.CLOSE:
            self._silence = self._silence.when_closed()
        if is_withheld:
            self._records.record_alert(event, self._details, told=False)
            self._remember()
        else:
            self._publish(event)

    def _publish(self, event: AlertEvent) -> None:
        """Give an event away, together with what is known after it."""
        memory = self._memory().to_bytes() if self._resumes else None
        self._records.record_alert(event, self._details, told=True)
        self._publisher.publish_alert(self._machine, event, self._details, memory)

    @property
    def _details(self) -> AlertDetails:
        alert, told = self.open_alert, self._explanation
        is_unknown = alert is not None and alert.event_id == self._unknown_told
        return AlertDetails(
            told.difference, told.changes, self._clip, is_unknown, self._like, told.picture, told.hall_share
        )

    def _end_expired_silence(self, now: datetime) -> None:
        if self._silence.has_expired(now):
            _LOG.info("%s: no longer muted", self._machine)
            self._unmute()

    def _unmute(self) -> None:
        """Publish alerts again; the one that was held back and is still open is published now."""
        was_held, alert = self._silence.held, self.open_alert
        self._silence = self._silence.unmuted()
        if was_held and alert is not None:
            self._publish(replace(alert, kind=AlertKind.OPEN))
        else:
            self._remember()

    def _memory(self) -> MachineMemory:
        tail, other = self._threshold.memories
        return MachineMemory(self._alarm.memory, self._silence, self._drift.memory, tail, self._unknown_told, other)

    def _remember(self) -> None:
        if self._resumes:
            self._records.remember(self._memory())
