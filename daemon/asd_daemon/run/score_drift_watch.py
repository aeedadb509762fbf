"""Notices that one machine's normal scores drift towards the threshold, and writes it to the log.

What counts as drift is the rule's business; a drift is no alert.
"""

from __future__ import annotations

import logging
from datetime import datetime

from asd_daemon.judge.alarm.score_drift import ScoreDrift, ScoreDriftMemory, ScoreDriftRule
from asd_daemon.tell.payloads import Drift

_LOG = logging.getLogger(__name__)


class ScoreDriftWatch:
    """One machine's; from one thread.

    Args:
        machine: whose scores.
        rule: what counts as drift.
        memory: what was known when it last ran.
    """

    def __init__(self, machine: str, rule: ScoreDriftRule, memory: ScoreDriftMemory) -> None:
        self._machine, self._scores = machine, ScoreDrift(rule, memory)

    @property
    def memory(self) -> ScoreDriftMemory:
        """All that must survive a restart."""
        return self._scores.memory

    @property
    def drift(self) -> Drift | None:
        """The drift as the machine's state tells it; None where there is none."""
        since = self._scores.drifted_since
        return None if since is None else Drift(since, round(self._scores.drift or 0.0, 1))

    def update(self, score: float, threshold: float, at: datetime) -> bool:
        """Take in a window's score and a threshold that stays; whether a drift began or ended with it."""
        if not self._scores.update(score, threshold, at):
            return False
        if self._scores.drifted_since is not None:
            _LOG.warning(
                "%s: normal scores have drifted %.0f %% of the way to the threshold; look at machine and microphone, or enrol anew",
                *(self._machine, 100 * (self._scores.drift or 0.0)),
            )
        else:
            _LOG.info("%s: normal scores are back", self._machine)
        return True
