"""The daemon, as a rollout of bundles knows it, and what the configuration says of rollouts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.rollout.fetching import FetchJob
from asd_daemon.rollout.returning import JudgedMachine, PastAlert
from asd_daemon.tell.notifications.quiet_hours import QuietHours


@dataclass(frozen=True)
class RolloutRules:
    """What the configuration says."""

    job: FetchJob
    check_s: float
    trial_s: float
    trial_words: str
    window: QuietHours
    """When one may be installed; without times: always."""
    window_words: str | None


class Box(Protocol):
    """Asked from the rollout's thread."""

    def loaded(self) -> Path | None:
        """The folder of the bundle that judges; None until it is loaded."""

    def words(self) -> str | None:
        """Its name and version."""

    def take_on(self) -> None:
        """Judge with the current bundle from the next window on.

        Raises:
            AsdError: it can't be used; the present one judges on.
        """

    def objection(self, new: Bundle) -> str | None:
        """Why a bundle can't take the present one's place."""

    def judged(self, new: Bundle | None = None) -> list[JudgedMachine]:
        """The machines that the present bundle judges; those alone that a new one could judge without learning them anew."""

    def busy(self) -> str | None:
        """Why no bundle may be exchanged just now: an alert is open, a machine is being learned."""

    def failing(self) -> str | None:
        """What is wrong with judging by the present bundle."""

    def alerts(self, since: datetime) -> list[PastAlert]:
        """Alerts that were open at or after a UTC time."""
