"""How a rollout stands, for the page: from time to time and whenever it changes, since counting asks the disk."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from asd_daemon.rollout.asking import Asking
from asd_daemon.rollout.box import Box, RolloutRules
from asd_daemon.rollout.returning import false_alarms
from asd_daemon.rollout.rollout_state import RolloutState, report_of

_COUNT_EVERY_S = 60.0


class Account:
    """Of one box; `update` from the rollout's thread, `facts` from any.

    Args:
        box: the daemon.
        clock_s: seconds that never go back.
    """

    def __init__(self, box: Box, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._box, self._clock_s = box, clock_s
        self._known: object = None
        self._counted_s = float("-inf")
        self.facts: dict[str, Any] | None = None
        """What is known; None where nothing is asked for, or nothing was looked at yet."""

    def update(self, rules: RolloutRules, state: RolloutState, asking: Asking | None) -> None:
        """Take in how it stands.

        Args:
            rules: what the configuration says.
            state: what is known of the rollout.
            asking: who asks; None where another daemon of this box does.
        """
        percent = None if asking is None or asking.progress is None else int(100 * asking.progress)
        changes = {
            **report_of(state, self._box.words()),
            "channel": rules.job.channel,
            "ring": rules.job.ring,
            "window": rules.window_words,
            "checked_at": None if state.checked_at is None else state.checked_at.isoformat(),
            "is_asking": asking is not None and asking.is_busy,
            "failures": 0 if asking is None else asking.failures,
            "percent": percent,
            "is_watched": state.switch is not None and state.switch.is_watched,
        }
        if changes == self._known and self._clock_s() - self._counted_s < _COUNT_EVERY_S:
            return
        self._known, self._counted_s = changes, self._clock_s()
        self.facts = {**changes, **self._counts(rules, state)}

    def _counts(self, rules: RolloutRules, state: RolloutState) -> dict[str, Any]:
        """Whom the bundle judges, and how a trial goes."""
        judged, record = self._box.judged(), state.trial
        names = sorted(machine.name for machine in judged)
        if record is None:
            return {"judges": names, "trial": None}
        present, new = false_alarms(record, judged, self._box.alerts(record.began_at))
        seen = {"seconds": round(record.seconds), "of_s": round(rules.trial_s), "windows": record.windows}
        return {"judges": names, "trial": {**seen, "left_out": record.dropped, "present": present, "new": new}}
