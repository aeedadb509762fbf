"""Sources of sound: what they all say, how they are named, and the door that opens them.

Owns `Block`, `Lost`, `Refused` and the words of `--source`. Each kind of source lives in its own module and is imported when it is
opened; none of them judges what it hears.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import UsageError
from asd_daemon.waveform import SAMPLE_RATE_HZ

KINDS = ("device", "file", "folder", "command", "simulate")
SIMULATION_OPTIONS = frozenset(
    {"fail", "severity", "fail_after", "repair_after", "seconds", "domain", "snr", "noise", "speed", "seed", "serial"}
)
# simulate also takes the operating attributes of its machine, which only the simulator knows
_OPTIONS: Mapping[str, frozenset[str]] = {
    "device": frozenset({"channel", "rate_hz"}),
    "file": frozenset({"channel", "speed"}),
    "folder": frozenset({"channel", "speed"}),
    "command": frozenset(),
}


@dataclass(frozen=True)
class Block:
    """Consecutive sound."""

    samples: NDArray[np.float32]
    """float32 mono in [-1, 1] at 16 kHz, any length."""
    gap_samples: int = 0
    """How many samples are missing between the block before and this one."""
    last: bool = False
    """Whether a recording ends with this block: what follows does not join on."""


@dataclass(frozen=True)
class Lost:
    """The source is silent against its will. Said at once, then again every few seconds until a block comes."""

    reason: str
    for_s: float
    """Seconds since the last sound, or since the start."""


@dataclass(frozen=True)
class Refused:
    """A recording that could not be read, and why."""

    path: Path
    reason: str


Heard = Block | Lost | Refused


class Source(Protocol):
    """Anything that sounds."""

    @property
    def live(self) -> bool:
        """Whether sound is made by the world: it does not wait for a slow listener."""

    @property
    def restarts(self) -> int:
        """How often the source had to be started again."""

    def heard(self) -> Iterator[Heard]:
        """All that is heard, until the source ends or is closed; may be asked for once.

        Raises:
            SourceError: the source can't start, and was told not to wait for it.
        """

    def close(self) -> None:
        """End `heard` soon, from any thread, any number of times."""


@dataclass(frozen=True)
class SourceSpec:
    """Which source, with its options, before it is opened."""

    kind: str
    target: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        query = "&".join(f"{k}={v}" for k, v in self.options.items())
        return f"{self.kind}:{self.target}" + (f"?{query}" if query else "")

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


def open_source(spec: SourceSpec, *, wait: bool = False) -> Source:
    """Make a source ready to be heard.

    Args:
        spec: which one.
        wait: keep trying when a device or command isn't there at the start, rather than fail.

    Raises:
        UsageError: options out of range.
        RecordingError: a file that can't be read.
        SourceError: nothing to play.
    """
    if spec.kind in ("device", "command"):
        from asd_daemon.hear.microphone import open_command, open_microphone

        return open_microphone(spec, wait=wait) if spec.kind == "device" else open_command(spec, wait=wait)
    if spec.kind == "simulate":
        from asd_daemon.hear.performance import open_simulation

        return open_simulation(spec)
    from asd_daemon.hear.playback import open_recordings

    return open_recordings(spec)


class ScriptedSource:
    """A source that says what it was given, for tests and rehearsals; it waits for a slow listener unless told otherwise."""

    def __init__(self, script: Iterable[Heard], *, live: bool = False) -> None:
        self.live = live
        self.restarts = 0
        self._script = script
        self._closed = False

    def heard(self) -> Iterator[Heard]:
        """The script, in order; an exception in it is raised."""
        for item in self._script:
            if self._closed:
                return
            if isinstance(item, Block):
                _check_block(item)
            elif isinstance(item, Exception):
                raise item
            yield item

    def close(self) -> None:
        """Leave out the rest."""
        self._closed = True


def _check_block(block: Block) -> None:
    """A fake must be as strict as the real thing."""
    if block.samples.dtype != np.float32 or block.samples.ndim != 1:
        raise ValueError(
            f"a block is float32 mono at {SAMPLE_RATE_HZ} Hz, got {block.samples.dtype} {block.samples.shape}"
        )
