"""What people may ask for by MQTT: mute, unmute, acknowledge a machine's alarm; learn the machine.

Owns the form of a command. What it does is the monitor's business.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

LEARNING_MINUTES = 20.0


class CommandKind(StrEnum):
    """What is asked for."""

    MUTE = "mute"
    """Tell no alert for some minutes."""
    UNMUTE = "unmute"
    """Tell alerts again; one that opened meanwhile and is still open is told now."""
    ACKNOWLEDGE = "acknowledge"
    """Somebody looks after the alert that is open: nothing but its close is told."""
    ENROLL = "enroll"
    """Learn the machine from what is heard now; where the configuration allows that too."""


class Command(BaseModel):
    """One wish."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    command: CommandKind
    minutes: float = Field(60.0, gt=0, le=10_080)
    """How long to mute, or how much usable sound to learn from; an hour and twenty minutes where it is missing."""
    mode: Literal["add", "relearn"] | None = None
    """Whether to extend or to replace what was learned before; None for a machine that was not."""
    event_id: str | None = Field(None, max_length=100)
    """The alert that is meant; None for the one that is open."""

    @property
    def learning_minutes(self) -> float:
        """How much usable sound to learn from."""
        return self.minutes if "minutes" in self.model_fields_set else LEARNING_MINUTES


def parse_command(payload: bytes, *, retained: bool = False) -> Command:
    """A command from its JSON.

    Raises:
        ValueError: it is none, or is retained and so would be given again at every connect; says why in one line.
    """
    if retained:
        raise ValueError("a command must not be retained")
    try:
        return Command.model_validate_json(payload)
    except ValidationError as e:
        first = e.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where + ': ' if where else ''}{first['msg']}") from e
