"""What people may choose while the daemon runs, without a right to the configuration: this table, and nothing else.

Whoever may write the configuration may have any program run (`command:` sources), so nobody at a page may. What stands here can do no
more than its sentence says. One more key: one more line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from asd_daemon.errors import UsageError
from asd_daemon.hear.source_spec import SourceSpec, parse_source


@dataclass(frozen=True)
class ChoosableKey:
    """A key of the configuration that may be chosen."""

    key: str
    """Its path with dots, below the machine or from the top; what lies below it is chosen with it."""
    of_machine: bool
    words: str
    """What it does, for people."""


SOURCE = "source"
CHOOSABLE = (
    ChoosableKey(
        SOURCE, True, "where an added machine is heard: a microphone (device) or a simulated machine (simulate)"
    ),
    ChoosableKey("title", True, "what people call the machine"),
    ChoosableKey("alarm.threshold", True, "a limit of your own, which nothing moves"),
    ChoosableKey("alarm.false_alarms_per_week", True, "how many alerts a week a healthy machine may cause"),
    ChoosableKey("notify.tell", True, "tags of those who are told of the machine"),
    ChoosableKey("notify.quiet_hours", True, "when nobody is told of it"),
    ChoosableKey(
        "notify.escalate_after_min", True, "minutes until others are told of an alert that nobody has answered"
    ),
    ChoosableKey("notify.tell", False, "tags of those who are told of machines that say nothing else"),
    ChoosableKey("notify.quiet_hours", False, "when nobody is told of these"),
    ChoosableKey(
        "notify.escalate_after_min", False, "minutes until others are told of an alert that nobody has answered"
    ),
)
MOST_ADDED = 32
"""So many machines may be added: each costs memory and time of the box."""
MOST_SPEED = 60.0
"""So many times faster than real time a simulated machine that is added may run, so that it takes no window of others."""
SOURCES = {"device": ("device", "channel", "far", "far_device", "rate_hz"), "simulate": ("simulate",)}
"""Kinds of source that an added machine may have, with their keys: what opens no file and runs no program."""


@dataclass(frozen=True)
class Choice:
    """One value that was chosen."""

    machine: str | None
    """None: of all of the daemon."""
    key: str
    value: Any
    """As YAML and JSON have it."""

    @property
    def path(self) -> str:
        """Where the value stands in a configuration."""
        return path_of(self.machine, self.key)


def path_of(machine: str | None, key: str) -> str:
    """Where a key stands in a configuration."""
    return key if machine is None else f"machines.{machine}.{key}"


def check_key(machine: str | None, key: str) -> None:
    """Refuse what may not be chosen.

    Raises:
        UsageError: names the key, and those that there are.
    """
    if not any(one.key == key and one.of_machine == (machine is not None) for one in CHOOSABLE):
        known = [one.key for one in CHOOSABLE if one.of_machine == (machine is not None)]
        whose = "of a machine" if machine is not None else "without a machine"
        there = f"{whose} there may be: {', '.join(known)}" if known else "every one there is needs a machine"
        raise UsageError(f"{path_of(machine, key)}: may not be chosen while the daemon runs; {there}")


def checked_source(words: str) -> SourceSpec:
    """A source that may be tried: one of those that an added machine may have.

    Args:
        words: as on the command line, `device:default`.

    Raises:
        UsageError: it may not; says why.
    """
    _source(words, "source")
    return parse_source(words)


def checked_choice(machine: str | None, key: str, value: Any) -> Choice:
    """A choice whose key is allowed, and whose source is one of those that are; whether the value fits is the configuration's to say.

    Raises:
        UsageError: it is not; names key and value.
    """
    check_key(machine, key)
    return Choice(machine, key, _source(value, path_of(machine, key)) if key == SOURCE else value)


def choices_in(content: Mapping[str, Any]) -> Iterator[Choice | str]:
    """Each choice in a mapping that is made like a configuration; for what may not be chosen, why, in words."""
    for key, below in content.items():
        if key != "machines":
            yield from _choices_below(None, key, below)
            continue
        for machine, keys in _pairs(below):
            for name, value in _pairs(keys):
                yield from _choices_below(machine, name, value)


def _pairs(content: Any) -> list[tuple[str, Any]]:
    return [(str(key), value) for key, value in content.items()] if isinstance(content, Mapping) else []


def content_of(choices: tuple[Choice, ...]) -> dict[str, Any]:
    """Choices as a mapping that is made like a configuration."""
    content: dict[str, Any] = {}
    for choice in choices:
        below = content if choice.machine is None else content.setdefault("machines", {}).setdefault(choice.machine, {})
        *sections, last = choice.key.split(".")
        for section in sections:
            below = below.setdefault(section, {})
        below[last] = choice.value
    return content


def _choices_below(machine: str | None, key: str, value: Any) -> Iterator[Choice | str]:
    if isinstance(value, Mapping) and any(one.key.startswith(f"{key}.") for one in CHOOSABLE):
        for name, below in value.items():
            yield from _choices_below(machine, f"{key}.{name}", below)
        return
    try:
        yield checked_choice(machine, key, value)
    except UsageError as e:
        yield str(e)


def _source(value: Any, path: str) -> dict[str, Any]:
    """A source as its section has it, of one of the kinds that are allowed; written as a section or as on the command line."""
    if isinstance(value, str):
        spec = parse_source(value)
        if spec.kind == "simulate":
            value = {"simulate": value.partition(":")[2]}
        else:
            value = {spec.kind: spec.target} | {k: int(v) if v.isdigit() else v for k, v in spec.options.items()}
    given = list(value) if isinstance(value, Mapping) else []
    kind = next((kind for kind in SOURCES if kind in given), None)
    if kind is None or any(key not in SOURCES[kind] for key in given):
        raise UsageError(f"{path}: an added machine is heard by device or simulate, and by nothing else, got {value!r}")
    if kind == "simulate":
        speed = parse_source(f"simulate:{value['simulate']}").speed(1.0)
        if speed > MOST_SPEED:
            raise UsageError(
                f"{path}: simulated at {speed:g} times real time, at most {MOST_SPEED:g} leaves others theirs"
            )
    return dict(value)
