"""What people may ask for, by MQTT, at the page or on the command line: silence, a word for an alert, learning the machine, a setting.

Owns the form of a command. What it does is the monitor's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from asd_daemon.waveform import WINDOW_S

LEARNING_MINUTES = 20.0
LEARNING_WINDOWS, MOST_WINDOWS = 600, 2000
"""Windows that are learned from where they are spread; more of them make judging slower and nothing else."""
_STATE_NAME = re.compile(r"[^\W_][\w ,.+-]{0,63}")  # as a pattern of pydantic's it takes 16 ms and a megabyte to build
MOST_DAYS = 31
_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0}


def checked_state(name: str) -> str:
    """A name that a state of a machine can have.

    Raises:
        ValueError: it is none.
    """
    if _STATE_NAME.fullmatch(name) is None:
        raise ValueError("must begin with a letter or digit and have at most 64 letters, digits, blanks, ,.+-")
    return name


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
    NORMAL = "normal"
    """An alert was normal: its windows are, from now on."""
    FAULT = "fault"
    """An alert was a fault: it is kept as an example with a name."""
    SET = "set"
    """Choose a value for a key of the configuration that may be chosen (settings/chosen_keys.py)."""
    UNSET = "unset"
    """Let the configuration's value hold again."""
    NOTE = "note"
    """Write something down about an alert."""
    FORGET = "forget"
    """Delete all that is kept of a machine; one that was added at the page is heard no more."""
    RESTORE = "restore"
    """Take over what was learned of a machine from the file that is handed over with the command."""
    ROLLBACK = "rollback"
    """Make the bundle before the current one current again."""
    LOG = "log"
    """Say the last lines of the log."""


UPKEEP = frozenset({CommandKind.FORGET, CommandKind.RESTORE, CommandKind.ROLLBACK, CommandKind.LOG})
"""What is for who looks after the box, at the page or on it, and refused by MQTT."""


class Command(BaseModel):
    """One wish."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    command: CommandKind
    minutes: float = Field(60.0, gt=0, le=10_080)
    """How long to mute, or how much usable sound to learn from; an hour and twenty minutes where it is missing."""
    mode: Literal["add", "relearn"] | None = None
    """Whether to extend or to replace what was learned before; None for a machine that was not."""
    over: str | None = Field(None, max_length=20)
    """Over how long to spread the windows that are learned from: 90m, 12h, 3d; None: one after the other."""
    windows: int = Field(LEARNING_WINDOWS, ge=16, le=MOST_WINDOWS)
    """How many windows, where they are spread."""
    state: Annotated[str, AfterValidator(checked_state)] | None = None
    """In which state the machine is now: its sound becomes one normal of its own."""
    event_id: str | None = Field(None, max_length=100)
    """The alert that is meant; None for the one that is open."""
    name: str | None = Field(None, min_length=1, max_length=60, pattern=r"^[^\x00-\x1f\x7f]+$")
    """What a fault is called."""
    key: str | None = Field(None, min_length=1, max_length=100, pattern=r"^[^\x00-\x20\x7f]+$")
    """Which setting is meant, as a path with dots below the machine."""
    value: Any = None
    """What it shall be."""
    text: str | None = Field(None, max_length=1000, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")
    """What is noted; nothing takes a note away."""
    undo: bool = Field(False, strict=True)
    """Take back what was said of an alert; or stop learning, and forget what was heard for it."""
    id: str | None = Field(None, max_length=100)
    """Given back with the answer."""

    @model_validator(mode="after")
    def _names_a_fault(self) -> Self:
        if self.command is CommandKind.FAULT and not self.undo and self.name is None:
            raise ValueError("name: a fault needs a name, such as bearing")
        return self

    @model_validator(mode="after")
    def _names_a_setting(self) -> Self:
        if self.is_setting and self.key is None:
            raise ValueError("key: say which setting, such as alarm.threshold")
        if self.command is CommandKind.SET and "value" not in self.model_fields_set:
            raise ValueError("value: say what the setting shall be")
        return self

    @property
    def is_setting(self) -> bool:
        """Whether it changes a setting."""
        return self.command in (CommandKind.SET, CommandKind.UNSET)

    @property
    def is_word(self) -> bool:
        """Whether it says something of an alert."""
        return self.command in (CommandKind.NORMAL, CommandKind.FAULT, CommandKind.NOTE)

    @property
    def is_upkeep(self) -> bool:
        """Whether it is for who looks after the box."""
        return self.command in UPKEEP

    @field_validator("over")
    @classmethod
    def _is_duration(cls, text: str | None) -> str | None:
        if text is not None:
            parse_duration_s(text)
        return text

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.over is None and "windows" in self.model_fields_set:
            raise ValueError("windows has a meaning with over only; give minutes")
        if self.over is not None and "minutes" in self.model_fields_set:
            raise ValueError("give minutes, or over and windows")
        if self.over is not None and self.windows * WINDOW_S > parse_duration_s(self.over):
            raise ValueError(f"{self.windows} windows of {WINDOW_S:g} s do not fit into {self.over}")
        return self

    @property
    def over_s(self) -> float | None:
        """Over how long the windows are spread."""
        return None if self.over is None else parse_duration_s(self.over)

    @property
    def learning_minutes(self) -> float:
        """How much usable sound to learn from."""
        return self.minutes if "minutes" in self.model_fields_set else LEARNING_MINUTES


def parse_duration_s(text: str) -> float:
    """Seconds of `90m`, `12h`, `3d`.

    Raises:
        ValueError: something else, or more than a month.
    """
    try:
        seconds = float(text[:-1]) * _UNITS_S[text[-1:]]
    except (KeyError, ValueError):
        seconds = float("nan")
    if not 0 < seconds <= MOST_DAYS * 86_400:
        raise ValueError(f"{text!r} must be a time up to {MOST_DAYS} days, such as 90m, 12h or 3d")
    return seconds


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


@dataclass(frozen=True)
class Answer:
    """What came of a command."""

    ok: bool
    text: str


@dataclass(frozen=True)
class AskedCommand:
    """A command, and whom to answer."""

    command: Command
    reply: Callable[[Answer], None] = lambda _: None
    """Called from the machine's judging thread with what came of it."""
    refusal: str | None = None
    """Why who asks may not; None: they may."""
