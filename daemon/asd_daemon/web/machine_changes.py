"""What may be changed of a machine on its page: the fields of its form, how what was typed is read, and what came of it in their words.

Keys of the configuration are for the command line and MQTT; here a field is called what stands beside it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_CHARACTERS = 300


class NotUnderstoodError(ValueError):
    """What was typed is no value of its field; says what one is."""


@dataclass(frozen=True)
class Field:
    """One of the form."""

    key: str
    label: str
    button: str
    read: Callable[[str], Any]
    empty: str
    """What an empty list is called; where there is none, how a value is written."""


@dataclass(frozen=True)
class Kept:
    """What was typed and refused, and why: shown again in its field."""

    machine: str
    key: str
    typed: str
    why: str


def _text(typed: str) -> str:
    if len(typed) > MOST_CHARACTERS or not typed.isprintable():
        raise NotUnderstoodError(f"write up to {MOST_CHARACTERS} printable characters")
    return typed


def _number(typed: str) -> float:
    try:
        number = float(typed.replace(",", "."))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise NotUnderstoodError("write a number")
    return number


def _words(typed: str) -> list[str]:
    """A list with commas; `none` and `all`: the empty one."""
    return _pieces(_text(typed).split(","))


def _times(typed: str) -> list[str]:
    """The same of times of the week, in which a comma between days stays: `22:00-06:00, mon,wed 12:00-13:00` are two."""
    return _pieces(re.split(r";|(?<=\d),|,(?=[\s\d])", _text(typed)))


def _pieces(parts: list[str]) -> list[str]:
    words = [word for part in parts if (word := part.strip())]
    return [] if words in (["none"], ["all"]) else words


FIELDS = {
    field.key: field
    for field in (
        Field("title", "What people call it", "Call it so", _text, ""),
        Field("alarm.false_alarms_per_week", "False alarms a week, at most", "Use this budget", _number, ""),
        Field("notify.tell", "Who is told: tags, or all", "Tell these", _words, "all"),
        Field("notify.quiet_hours", "Quiet hours, or none", "Be quiet then", _times, "none"),
        Field("notify.escalate_after_min", "Minutes until others are told", "Escalate so", _number, ""),
    )
}
"""By key."""


def shown(field: Field, value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(value) or field.empty if isinstance(value, list | tuple) else str(value)


def done_words(field: Field, called: str, value: Any) -> str:
    """What holds now; None: as configured."""
    if value is None:
        return f"{called}: “{field.label}” is as configured again."
    return f"{called}: “{field.label}” is {shown(field, value)} from now on."


def refused_words(key: str, label: str, machine: str, reason: str) -> str:
    """Why a value was refused, in a daemon's words, without the key of the configuration and the file.

    Args:
        key: of the configuration.
        label: what the field is called, where the reason begins with something else than the key.
        machine: its name.
        reason: a daemon's answer.
    """
    path = rf"(?:machines\.{re.escape(machine)}\.)?{re.escape(key)}"
    plain = re.sub(rf"^.*?(?<![\w.]){path}(?:\.\d+)*: ", "", reason, count=1)
    plain = re.sub(rf"(?<![\w.]){path}(?![\w.])", f"“{label}”", plain)
    return plain.replace("input should be", "it must be")


def as_configured(machine: Mapping[str, Any], key: str) -> bool:
    """Whether nothing was chosen for a key."""
    return key not in machine.get("chosen", {})
