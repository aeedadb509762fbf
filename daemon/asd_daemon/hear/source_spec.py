"""Which source is meant: the words of `--source` and their options, before anything is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from asd_daemon.errors import UsageError
from asd_daemon.sound_file import printable

KINDS = ("device", "file", "folder", "command", "simulate")


SIMULATION_OPTIONS = frozenset(
    {
        *("fail", "severity", "fail_after", "repair_after", "seconds", "cycle"),
        *("domain", "snr", "noise", "speed", "seed", "serial", "far", "crosstalk", "moving"),
    }
)


# simulate also takes the operating attributes of its machine, which only the simulator knows
_OPTIONS: Mapping[str, frozenset[str]] = {
    "device": frozenset({"channel", "far", "far_device", "rate_hz"}),
    "file": frozenset({"channel", "far", "speed"}),
    "folder": frozenset({"channel", "far", "speed"}),
    "command": frozenset({"speed"}),  # in a configuration only: a question mark is a command's own
}


@dataclass(frozen=True)
class SourceSpec:
    """Which source, with its options, before it is opened."""

    kind: str
    target: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        query = "&".join(f"{k}={v}" for k, v in self.options.items())
        return printable(f"{self.kind}:{self.target}" + (f"?{query}" if query else ""))

    def number(self, option: str, default: float, least: float = 0.0, most: float = float("inf")) -> float:
        """A numeric option, checked.

        Raises:
            UsageError: no number, or out of range.
        """
        text = self.options.get(option)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            bounds = f"{least:g} or more" if most == float("inf") else f"{least:g} to {most:g}"
            raise UsageError(f"source {self}: {option} is {text!r}, must be a number, {bounds}")
        return value

    def channel(self, option: str = "channel") -> int | None:
        """Which channel is meant, counted from 0; `far` is that of a second microphone, far from the machine; None where it is not given.

        Raises:
            UsageError: no whole number, out of range, or one and the same for both.
        """
        if option not in self.options:
            return None
        number = self.number(option, 0, 0, 63)
        if number != int(number):
            raise UsageError(f"source {self}: {option} must be a whole number, counted from 0")
        if option == "far" and "far_device" not in self.options and number == (self.channel() or 0):
            raise UsageError(
                f"source {self}: far must be another channel than that of the machine, which is {number:g}"
            )
        return int(number)

    @property
    def far_device(self) -> SourceSpec | None:
        """The second microphone, where it is on a device of its own.

        Raises:
            UsageError: it is the machine's own device.
        """
        name = self.options.get("far_device")
        if name is None:
            return None
        if name == self.target:
            raise UsageError(
                f"source {self}: far_device is the machine's own; leave it out, and far is a channel of that"
            )
        return SourceSpec("device", name, {"channel": str(self.channel("far") or 0)})

    def flag(self, option: str) -> bool:
        """An option that is 1 or 0; 0 where it is not given.

        Raises:
            UsageError: it is something else.
        """
        text = self.options.get(option, "0")
        if text not in ("0", "1"):
            raise UsageError(f"source {self}: {option} is {text!r}, must be 1 or 0")
        return text == "1"

    def speed(self, default: float) -> float:
        """How many times faster than real time; `max` and 0 are infinity: as fast as it goes."""
        if self.options.get("speed") == "max":
            return float("inf")
        return self.number("speed", default) or float("inf")


def parse_source(text: str) -> SourceSpec:
    """Read the words of `--source`: KIND:TARGET[?option=value&…].

    Raises:
        UsageError: unknown kind, no target, or an option this kind does not have.
    """
    kind, colon, target = text.partition(":")
    if kind not in KINDS or not colon or not target:
        raise UsageError(
            f"source {text!r} must be device:NAME, file:PATH, folder:PATH, command:PROGRAM… or simulate:MACHINE"
        )
    query = ""
    if kind != "command" and not (kind in ("file", "folder") and Path(target).exists()):
        target, _, query = target.partition("?")
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError as e:
        raise UsageError(f"source {text!r}: {query!r} must be option=value&option=value") from e
    return check_source(SourceSpec(kind, target, options))


def check_source(spec: SourceSpec) -> SourceSpec:
    """The same source, if its kind knows its options.

    Raises:
        UsageError: an option this kind does not have.
    """
    known = _OPTIONS.get(spec.kind, frozenset(spec.options))
    unknown = [name for name in spec.options if name not in known]
    if unknown:
        can = f"can have {', '.join(sorted(known))}" if known else "has no options"
        raise UsageError(f"source {spec}: unknown option {unknown[0]!r}; {spec.kind} {can}")
    return spec
