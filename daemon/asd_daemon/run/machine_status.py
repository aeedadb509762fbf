"""One machine's state as people are told it: what it is, since when, and how long nothing could be judged.

Owns the state. Who decides that it changes is the judging loop's business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from asd_daemon.hear.windows.fitness import WindowFitness
from asd_daemon.judge.scoring.verdict import Verdict
from asd_daemon.run.machine_alerts import MachineAlerts
from asd_daemon.tell.payloads import Condition, MachineState
from asd_daemon.tell.publisher import Publisher
from asd_daemon.watch.counters import Counters

_LOG = logging.getLogger(__name__)


class MachineStatus:
    """A machine's state, published whenever it changes.

    Args:
        machine: whose.
        publisher: who publishes it.
        alerts: the machine's, which are part of its state.
        at: UTC time from which it is starting.
        troubles: what is wrong with the daemon as a whole, in words.
    """

    def __init__(
        self,
        machine: str,
        publisher: Publisher,
        alerts: MachineAlerts,
        at: datetime,
        troubles: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self._machine, self._publisher, self._alerts, self._troubles = machine, publisher, alerts, troubles
        self._state = MachineState(Condition.STARTING, at)

    @property
    def state(self) -> MachineState:
        """The state; from any thread."""
        return self._state

    def publish(self, at: datetime) -> None:
        """Publish the state as it is, for the first time."""
        self._state = self._described(self._state, at)
        self._publisher.publish_state(self._machine, self._state)

    def set_score(self, verdict: Verdict) -> None:
        """Note the last window's score, which by itself is no change."""
        self._state = replace(self._state, score=verdict.score, threshold=verdict.threshold)

    def change(
        self,
        condition: Condition,
        reason: str | None,
        at: datetime,
        *,
        hears: bool | None = None,
        operating_state: str | None = None,
    ) -> None:
        """Take on a condition, and publish the state if that changes anything of it.

        Args:
            condition: how the machine is now.
            reason: why, in words.
            at: UTC time.
            hears: whether sound comes that could be the machine's; None leaves that as it is in the same condition, and is yes in another.
            operating_state: in which of its states the machine is; None leaves that as it is.
        """
        before = self._state
        if hears is None:
            hears = before.hears or condition is not before.condition
        since = before.since if condition is before.condition else at
        state = operating_state or before.operating_state
        changed = replace(before, condition=condition, reason=reason, since=since, hears=hears, operating_state=state)
        self._state = self._described(changed, at)
        if self._state != before:
            self._publisher.publish_state(self._machine, self._state)

    def _described(self, state: MachineState, at: datetime) -> MachineState:
        described = self._alerts.describe(state, at)
        return replace(described, troubles=(*described.troubles, *self._troubles()))


class Outage:
    """A time in which nothing of a machine can be judged: a condition at once, counted when it lasts too long."""

    def __init__(self, machine: str, fitness: WindowFitness, status: MachineStatus, counters: Counters) -> None:
        self._machine, self._fitness, self._status, self._counters = machine, fitness, status, counters

    def report(self, condition: Condition, reason: str, at: datetime, *, hears: bool) -> None:
        """Say that there is nothing to judge and why; once more when that has lasted too long.

        Args:
            condition: how the machine is now.
            reason: why nothing can be judged.
            at: UTC time.
            hears: whether sound comes all the same; what has lasted too long counts as not heard.
        """
        if self._fitness.mark_unusable(at):
            self._counters.add(deaf=1)
            _LOG.error("%s: %s%s", self._machine, reason, self._fitness.deaf_text)
        self._status.change(
            condition, reason + self._fitness.deaf_text, at, hears=hears and not self._fitness.deaf_text
        )
