"""A machine's scorer that knows what people have said of its alerts: accepted windows are normal, named examples are recognised."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.scoring.scorer import Scorer, WindowScore
from asd_daemon.judge.scoring.verdict import Likeness
from asd_daemon.run.alert_teaching import AlertTeaching

_LOG = logging.getLogger(__name__)
F32 = NDArray[np.float32]
ALIKE = 0.5
"""A window resembles an example if it lies less than this fraction as far from it as from what is normal, both above 1."""


class TaughtJudge:
    """One machine's; from its judging thread.

    Args:
        machine: whose.
        scorer: what was learned of it.
        teaching: what was said.
    """

    def __init__(self, machine: str, scorer: Scorer, teaching: AlertTeaching) -> None:
        self._machine, self._learned, self._teaching = machine, scorer, teaching
        self._version: int | None = None
        self._scorer = scorer
        self._examples: list[tuple[Likeness, dict[str, F32]]] = []
        teaching.can_be_taught = scorer.can_be_taught

    def score(self, waveform: F32) -> WindowScore:
        """Score float32 (160 000,), or (160 000, 2) of two microphones.

        Raises:
            RecordingError: not a finite window of that length.
        """
        if self._version != self._teaching.version:
            self._version = self._teaching.version
            self._take_up()
        verdict = self._scorer.score(waveform)
        return replace(verdict, like=self._like(verdict)) if self._examples and verdict.vectors else verdict

    def _take_up(self) -> None:
        """Go over to what was said last; what this scorer can't use is left out."""
        self._scorer, self._examples = self._learned, []
        if not self._learned.can_be_taught:
            return
        self._scorer = taught_scorer(self._machine, self._learned, self._teaching.accepted())
        self._examples = [example for example in self._teaching.examples() if self._fits(example[1])]

    def _fits(self, vectors: Mapping[str, F32]) -> bool:
        missing = [view for view in self._learned.views if view not in vectors]
        if missing:
            _LOG.warning("%s: an example has no view %s and is not used", self._machine, missing[0])
        return not missing

    def _like(self, verdict: WindowScore) -> Likeness | None:
        """The example that a window resembles most, of those that explain at least half of what is abnormal in it."""
        found = [(self._learned.likeness(vectors, verdict.vectors), like) for like, vectors in self._examples]
        nearest, like = min(found, key=lambda each: each[0])
        return like if nearest - 1 < ALIKE * (verdict.score - 1) else None


def taught_scorer(machine: str, scorer: Scorer, accepted: Sequence[Mapping[str, F32]]) -> Scorer:
    """A scorer that takes windows for normal that people called so, view → (K, D) for each alert; the log names what it can't use."""
    if not scorer.can_be_taught:
        return scorer
    for vectors in accepted:
        try:
            scorer = scorer.taught([vectors])
        except ValueError as e:
            _LOG.warning("%s: windows that were called normal can't be used: %s", machine, e)
    return scorer
