"""One machine's alarm with all that people want of it: what is told and what is kept back, what is explained, kept and remembered.

Owns muting, acknowledging, the slow level of normal scores, the comparison with normal windows, clips and the memory that survives a
restart. It is asked from one thread, the station's judging one; it knows no microphone and no broker, only whoever tells people.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from asd_daemon.hear.windows.window import Window
from asd_daemon.judge.alarm.alarm import Alarm, AlarmRule, AlertEvent, AlertKind
from asd_daemon.judge.alarm.score_drift import ScoreDrift, ScoreDriftRule
from asd_daemon.judge.features.spectral_difference import RecentNormalWindows
from asd_daemon.judge.scoring.verdict import Verdict
from asd_daemon.tell.commands import Command, CommandKind
from asd_daemon.tell.payloads import AlertDetails, Drift, MachineState
from asd_daemon.tell.publisher import Publisher
from asd_daemon.tell.storage.machine_records import MachineRecords
from asd_daemon.tell.storage.station_memory import AlertSilence, StationMemory
from asd_daemon.watch.counters import Counters
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_SAMPLES

_LOG = logging.getLogger(__name__)
_LATE = timedelta(seconds=120)  # so old may a window be that is judged after a command


@dataclass(frozen=True)
class AttentionRule:
    """What makes an alert, and what makes a drift."""

    alarm: AlarmRule
    level: ScoreDriftRule = field(default_factory=ScoreDriftRule)
    hop_samples: int = WINDOW_SAMPLES
    """From the start of one window to the start of the next."""


class Attention:
    """One machine's.

    Args:
        machine: whose.
        rule: when there is something to tell.
        publisher: whom alerts are given to.
        records: what is kept; its memory is taken up where the run before ended, if `resumes`.
        counters: where opened alerts are counted.
        resumes: whether the sound is the same machine's as in the run before, which recordings need not be; if not, nothing is remembered.
    """

    def __init__(
        self,
        machine: str,
        rule: AttentionRule,
        publisher: Publisher,
        records: MachineRecords | None = None,
        counters: Counters | None = None,
        *,
        resumes: bool = False,
    ) -> None:
        self._machine, self._rule, self._publisher = machine, rule, publisher
        self._records = records or MachineRecords(machine)
        self._counters = counters or Counters()
        self._resumes = resumes
        memory = self._records.memory() if resumes else StationMemory()
        self._alarm = Alarm(rule.alarm, memory=memory.alarm)
        self._silence, self._level = memory.silence, ScoreDrift(rule.level, memory.level)
        self._normal = RecentNormalWindows()
        self._details = AlertDetails()
        self._heard_until: datetime | None = None

    @property
    def open_alert(self) -> AlertEvent | None:
        """The alert that is open, told or not."""
        return self._alarm.open_alert

    def begin(self) -> None:
        """Say what an earlier run has left open."""
        alert = self.open_alert
        if alert is not None:
            _LOG.info("%s: alert %s is still open from an earlier run", self._machine, alert.event_id)
            if not self._silence.held:
                self._publisher.republish_alert(self._machine, alert)

    def end(self) -> None:
        """Remember everything; nothing more is heard."""
        self._records.finish()
        self._remember()

    def describe(self, state: MachineState, now: datetime) -> MachineState:
        """A state with all that is to be said of alerts, level and stores."""
        alert, silence = self.open_alert, self._silence
        since, drift = self._level.drifted_since, self._level.drift
        return replace(
            state,
            event_id=alert.event_id if alert else None,
            acknowledged=alert is not None and alert.event_id == silence.acknowledged,
            muted_until=self._muted_until(now),
            drift=Drift(since, round(drift or 0.0, 1)) if since is not None else None,
            troubles=self._records.troubles,
        )

    def hear(self, window: Window) -> None:
        """Take in a window's sound, fit to judge or not, for clips."""
        known = window.samples[: WINDOW_SAMPLES - window.padded_samples - min(window.gap_samples, WINDOW_SAMPLES)]
        fresh = self._fresh_samples(window.started_at, len(known))
        self._records.hear(known[len(known) - fresh :])

    def unfit(self, at: datetime, reason: str) -> None:
        """A window could not be judged."""
        self._records.keep_score(at, None, None, reason)
        self._look_at_the_clock(at)

    def judged(self, window: Window, verdict: Verdict) -> None:
        """Take in what the judge says of a window, and tell what there is to tell."""
        at = window.ended_at
        self._records.keep_score(at, verdict.score, verdict.threshold)
        self._watch_level(verdict, at)
        self._look_at_the_clock(at)
        event = self._alarm.judge(verdict.score, verdict.threshold, at)
        alert = self.open_alert
        if event is not None and event.kind is AlertKind.OPEN:
            self._details = AlertDetails()
            self._explain(window.samples)
        elif alert is not None and verdict.score == alert.peak_score:  # what is told is how the worst window differs
            self._explain(window.samples)
        if event is not None:
            self._announce(event)
        elif self.open_alert is None and verdict.score <= self._rule.alarm.close_threshold(verdict.threshold):
            self._normal.take(window.samples)

    def heed(self, command: Command, now: datetime) -> None:
        """Do what people ask for."""
        alert = self.open_alert
        if command.command is CommandKind.MUTE:
            self._silence = replace(self._silence, muted_at=now, muted_for_s=command.minutes * 60)
        elif command.command is CommandKind.UNMUTE:
            self._unmute()
        elif alert is None or command.event_id not in (None, alert.event_id):
            _LOG.warning("%s: there is no open alert %s to acknowledge", self._machine, command.event_id or "")
        else:
            self._silence = replace(self._silence, acknowledged=alert.event_id)
        self._remember()

    def _fresh_samples(self, started_at: datetime, samples: int) -> int:
        """How many samples at the end of a window the window before did not have."""
        ends_at = started_at + timedelta(seconds=samples / SAMPLE_RATE_HZ)
        before, self._heard_until = self._heard_until, ends_at
        overlap = 0 if before is None else round((before - started_at).total_seconds() * SAMPLE_RATE_HZ)
        expected = WINDOW_SAMPLES - self._rule.hop_samples
        tolerance = SAMPLE_RATE_HZ // 4  # blocks of live sound come when they come
        if expected and abs(overlap - expected) <= tolerance:
            return max(0, samples - expected)
        return samples

    def _explain(self, samples: NDArray[np.float32]) -> None:
        self._details = replace(self._details, difference=self._normal.compare(samples) or self._details.difference)

    def _announce(self, event: AlertEvent) -> None:
        """Tell an event, unless people asked for silence; what the alarm knows is kept with it in any case."""
        _LOG.info("%s: alert %s, score %.4g of %.4g", self._machine, event.kind, event.score, event.threshold)
        if event.kind is AlertKind.OPEN:
            self._counters.add(opened=1)
            held = self._muted_until(event.at) is not None
            self._silence = replace(self._silence, held=held, acknowledged=None)
            self._details = replace(self._details, clip=self._records.begin_clip(event))
        is_told = not self._silence.held
        if event.kind is AlertKind.UPDATE and (
            self._silence.acknowledged == event.event_id or self._muted_until(event.at) is not None
        ):
            is_told = False
        if event.kind is AlertKind.CLOSE:
            self._silence = replace(self._silence, held=False, acknowledged=None)
        if is_told:
            self._tell(event)
        else:
            self._remember()

    def _tell(self, event: AlertEvent) -> None:
        """Give an event away, together with what is known after it."""
        memory = self._memory().to_bytes() if self._resumes else None
        self._publisher.publish_alert(self._machine, event, self._details, memory)

    def _look_at_the_clock(self, now: datetime) -> None:
        """End a silence whose time is over."""
        if self._silence.muted_at is not None and self._muted_until(now) is None:
            _LOG.info("%s: no longer muted", self._machine)
            self._unmute()

    def _unmute(self) -> None:
        """Tell alerts again; the one that was held back and is still open is told now."""
        held, alert = self._silence.held, self.open_alert
        self._silence = replace(self._silence, muted_at=None, muted_for_s=0.0, held=False)
        if held and alert is not None:
            self._tell(replace(alert, kind=AlertKind.OPEN))
        else:
            self._remember()

    def _muted_until(self, now: datetime) -> datetime | None:
        """None where alerts are told; a silence that would begin in the future, the clock having been set back, is over."""
        silence = self._silence
        if silence.muted_at is None or not -_LATE <= now - silence.muted_at < _seconds(silence):
            return None
        return silence.muted_at + _seconds(silence)

    def _watch_level(self, verdict: Verdict, at: datetime) -> None:
        """Notice that normal scores creep towards the threshold, or do so no longer."""
        if not self._level.take(verdict.score, verdict.threshold, at):
            return
        drift = self._level.drift or 0.0
        if self._level.drifted_since is not None:
            _LOG.warning(
                "%s: normal scores have drifted %.0f %% of the way to the threshold; look at machine and microphone, or enrol anew",
                *(self._machine, 100 * drift),
            )
        else:
            _LOG.info("%s: normal scores are back", self._machine)
        self._remember()

    def _memory(self) -> StationMemory:
        return StationMemory(self._alarm.memory, self._silence, self._level.memory)

    def _remember(self) -> None:
        if self._resumes:
            self._records.remember(self._memory())


def _seconds(silence: AlertSilence) -> timedelta:
    return timedelta(seconds=silence.muted_for_s)
