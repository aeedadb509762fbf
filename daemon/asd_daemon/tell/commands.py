"""What people may ask a machine's alarm for by MQTT: mute, unmute, acknowledge.

Owns the form of a command. What it does is the station's business.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class CommandKind(StrEnum):
    """What is asked for."""

    MUTE = "mute"
    """Tell no alert for some minutes."""
    UNMUTE = "unmute"
    """Tell alerts again; one that opened meanwhile and is still open is told now."""
    ACKNOWLEDGE = "acknowledge"
    """Somebody looks after the alert that is open: nothing but its close is told."""


class Command(BaseModel):
    """One wish."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    command: CommandKind
    minutes: float = Field(60.0, gt=0, le=10_080)
    """How long to mute."""
    event_id: str | None = Field(None, max_length=100)
    """The alert that is meant; None for the one that is open."""


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
