"""What is known of a rollout from run to run: one JSON file beside the bundles, replaced as a whole."""

from __future__ import annotations

import logging
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from asd_daemon.private_files import write_private

_LOG = logging.getLogger(__name__)
_MOST_REFUSED = 50


class Phase(StrEnum):
    """How far it is."""

    IDLE = "idle"
    """Nothing new is offered to this box."""
    FETCHING = "fetching"
    UNTRIED = "untried"
    """It is here, and the box was too busy for its self-test; that is tried again."""
    TRIAL = "trial"
    """The new bundle judges beside the present one."""
    WAITING = "waiting"
    """It waits for the maintenance window, and for machines that are well."""
    INSTALLED = "installed"
    """What is offered judges."""
    REFUSED = "refused"
    """What is offered stays out."""
    RETURNED = "returned"
    """What was offered was installed, and the bundle before it judges again."""


class Named(BaseModel):
    """A bundle that is offered."""

    id: str
    name: str
    version: str

    @property
    def words(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"


class MachineTrial(BaseModel):
    """What was seen of one machine."""

    windows: int = 0
    """Judged by both."""
    old_above: int = 0
    new_above: int = 0
    opened: list[datetime] = Field(default_factory=list)
    """When the new one would have opened an alert, UTC; one that stays open counts again each hour."""
    cpu_s: float = 0.0
    """That the new one took for all windows."""


class TrialRecord(BaseModel):
    """A bundle that judges beside the present one."""

    id: str
    began_at: datetime
    seconds: float = 0.0
    """For which the daemon ran."""
    machines: dict[str, MachineTrial] = Field(default_factory=dict)
    dropped: int = 0
    """Windows that the new one was too slow for."""
    peak_mb: float = 0.0
    failures: int = 0
    """Times that its process ended early by itself."""
    kills: int = 0
    """Times that the box ended its process."""

    @property
    def windows(self) -> int:
        """Of all machines."""
        return sum(machine.windows for machine in self.machines.values())

    @property
    def opened(self) -> int:
        """Alerts that the new one would have opened."""
        return sum(len(machine.opened) for machine in self.machines.values())


class Switch(BaseModel):
    """A bundle that took another's place."""

    named: Named
    before: str | None
    """The version folder that was current; None: the program's own."""
    folder: str | None = None
    """The version folder that became current; None while it is not known whether it did."""
    at: datetime
    seconds: float = 0.0
    """For which the daemon has run with it."""
    is_watched: bool = True
    returns: str | None = None
    """Why the one before shall judge again; None: it shall not."""


class Untried(BaseModel):
    """A bundle that is here, for whose self-test the box was too busy."""

    id: str
    times: int
    """That it was tried."""
    until: datetime
    """UTC time; not before is it tried again."""


class RolloutState(BaseModel):
    """All of it."""

    phase: Phase = Phase.IDLE
    reason: str | None = None
    offered: Named | None = None
    """What is offered to this box."""
    checked_at: datetime | None = None
    """UTC time of the last answer that could be believed."""
    serial: int = 0
    """The highest that was seen."""
    candidate: Named | None = None
    """What was fetched, verified and tested."""
    untried: Untried | None = None
    is_tried: bool = False
    """Whether the candidate has passed its trial."""
    trial: TrialRecord | None = None
    switch: Switch | None = None
    """The last one, as long as that bundle is current."""
    refused: dict[str, str] = Field(default_factory=dict)
    """Offerings that are not wanted any more, and why."""

    def refuse(self, offering: str, why: str) -> None:
        """Want an offering no more."""
        self.refused[offering] = why
        for old in list(self.refused)[:-_MOST_REFUSED]:
            del self.refused[old]


def state_file(root: Path) -> Path:
    """Where it lies below the box's bundles."""
    return root / "rollout" / "state.json"


def read_state(file: Path) -> RolloutState:
    """What was known; nothing where the file is not there or can't be read."""
    try:
        return RolloutState.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return RolloutState()
    except (OSError, ValidationError) as e:
        _LOG.warning("%s can't be read, the rollout begins anew: %s", file, str(e).splitlines()[0])
        return RolloutState()


def write_state(file: Path, state: RolloutState) -> None:
    """Keep it.

    Raises:
        OSError: the disk refuses.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    write_private(file, state.model_dump_json(indent=1))


def report_of(state: RolloutState, version: str | None) -> dict[str, Any]:
    """What is told: `version` that judges, `offered`, `phase`, `reason`."""
    return {
        "version": version,
        "offered": None if state.offered is None else state.offered.words,
        "phase": state.phase.value,
        "reason": state.reason,
    }
