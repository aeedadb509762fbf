"""The threshold that holds for one machine: the one of the settings, else the learned one, else that of enrolment.

Owns which of them it is. How a threshold is learned is judge/thresholds/learned_threshold.py's business.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.scoring.verdict import DescribedVerdict, HeardHall, Likeness, Verdict, heard_hall
from asd_daemon.judge.thresholds.learned_threshold import LearnedThreshold
from asd_daemon.judge.thresholds.tail_memory import TailMemory
from asd_daemon.judge.thresholds.threshold import EnrolledThreshold, LearningRule, Threshold
from asd_daemon.wording import score_text

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ThresholdRule:
    """Which threshold holds."""

    fixed: float | None = None
    """The one of the settings; None: they have none."""
    learning: LearningRule | None = None
    """By which rule it is learned; None: it is not."""


@dataclass(frozen=True)
class Judgement:
    """A verdict by the threshold that holds."""

    score: float
    threshold: float
    anomalous: bool
    enrolled: EnrolledThreshold | None
    operating_state: str | None = None
    is_off: bool = False
    vectors: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, repr=False, compare=False)
    """view → (1, D), of a judge that tells them."""
    like: Likeness | None = None
    """The named example that the window resembles."""
    hall: HeardHall | None = None
    """What the far microphone says of the window; None of a machine that was learned with one."""


class MachineThreshold:
    """One machine's threshold; from one thread.

    Args:
        machine: whose.
        rule: which threshold holds.
        memory: what was known when it last ran; kept as it is where nothing is learned.
        other: what was known of the scores before those, which may come back: of the other scoring, say.
    """

    def __init__(self, machine: str, rule: ThresholdRule, memory: TailMemory, other: TailMemory | None = None) -> None:
        self._machine, self._rule, self._memory, self._other = machine, rule, memory, other or TailMemory()
        self._enrolled: EnrolledThreshold | None = None
        self._learned: LearnedThreshold | None = None
        self._stretch: int | None = None
        self.state = None if rule.fixed is None else Threshold(rule.fixed, "fixed")
        """As it stands; None until there is one."""

    @property
    def memory(self) -> TailMemory:
        """All that must survive a restart."""
        return self._memory if self._learned is None else self._learned.memory

    @property
    def memories(self) -> tuple[TailMemory, TailMemory]:
        """The memory, and that of the scores before."""
        return self.memory, self._other

    def apply(self, verdict: Verdict) -> Judgement:
        """A verdict by the threshold that holds."""
        value = self.take_up(verdict.threshold, verdict.enrolled).value
        anomalous = verdict.score > value and not verdict.is_off
        judgement = Judgement(
            verdict.score,
            value,
            anomalous,
            verdict.enrolled,
            verdict.operating_state,
            is_off=verdict.is_off,
            hall=heard_hall(verdict),
        )
        if isinstance(verdict, DescribedVerdict):
            return replace(judgement, vectors=verdict.vectors, like=verdict.like)
        return judgement

    def take_up(self, threshold: float, enrolled: EnrolledThreshold | None) -> Threshold:
        """The threshold that holds where the judge has this one; learning begins anew where the machine was enrolled anew."""
        if self.state is not None and (self._rule.fixed is not None or enrolled == self._enrolled):
            return self.state
        self._memory, self._learned, self._enrolled = self.memory, None, enrolled
        self.state = Threshold(threshold, "provisional")
        if enrolled is None or self._rule.learning is None:
            return self.state
        if not enrolled.threshold > enrolled.centre:
            _LOG.warning(
                "%s: half of the normal windows exceed the threshold %s: it can't be learned; lower alarm.open_after",
                *(self._machine, score_text(enrolled.threshold)),
            )
            return self.state
        subject = self._rule.learning.subject(enrolled.enrolment)
        if self._memory.subject not in ("", subject):  # other scores: those before them may be these
            self._memory, self._other = self._other, self._memory
        self._learned = LearnedThreshold(self._rule.learning, enrolled, self._memory)
        self.state = self._learned.threshold
        return self.state

    def unmoved(self, judgement: Verdict) -> float:
        """The threshold that stays while another one is learned: what slow changes are measured by."""
        if self._rule.fixed is not None or judgement.enrolled is None:
            return judgement.threshold
        return judgement.enrolled.threshold

    def hear(self, score: float, at: datetime, *, alert_open: bool) -> bool:
        """Learn from a window that the alarm has judged; whether so much was heard that it should be kept."""
        if self._learned is None:
            return False
        changed = self._learned.hear(score, at, alert_open=alert_open)
        if changed is not None:
            self._log(changed)
            self.state = changed
        before, self._stretch = self._stretch, self._learned.stretch
        return before is not None and before != self._stretch

    def drop_alert(self) -> None:
        """The open alert ended without anybody knowing how its machine was: it says nothing of false alarms."""
        if self._learned is not None:
            self._learned.drop_alert()

    def _log(self, changed: Threshold) -> None:
        before = self.state
        if before is None or (before.value, before.state, before.held) != (changed.value, changed.state, changed.held):
            _LOG.info("%s: threshold %s, %s", self._machine, score_text(changed.value), changed.words)
