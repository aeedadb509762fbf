"""Sources of sound: what they all say, how they are named, and the door that opens them.

Owns `Block`, `Lost`, `Refused` and the words of `--source`. Each kind of source lives in its own module and is imported when it is
opened; none of them judges what it hears.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
    """float32 mono in [-1, 1] at 16 kHz, any length; (N, C) only between a shared microphone and those who share it."""
    gap_samples: int = 0
    """How many samples are missing between the block before and this one."""
    last: bool = False
    """Whether a recording ends with this block: what follows does not join on."""
    rate_error: float = 0.0
    """How much faster than promised samples have come lately, as a fraction of the rate; negative: slower."""


@dataclass(frozen=True)
class Lost:
    """The source is silent against its will. Said at once, then again every few seconds until a block comes."""

    reason: str
    for_s: float
    """Seconds since the last sound, or since the start."""
    wrong_device: bool = False
    """Whether there is sound, but from another device than the one that this source is of."""


@dataclass(frozen=True)
class Dead:
    """The source delivers, but no microphone sounds like that: said at once, before the window ends, once a spell."""

    reason: str
    """`silence` or `stuck`, as the window will be called."""


@dataclass(frozen=True)
class Back:
    """After `Lost` or `Dead`: there is sound again, long before a window is full of it."""


@dataclass(frozen=True)
class Refused:
    """A recording that could not be read, and why."""

    path: Path
    reason: str


Heard = Block | Lost | Refused | Dead | Back


@dataclass(frozen=True)
class Vitals:
    """How a source has done so far."""

    restarts: int = 0
    """How often it had to be started again."""
    overruns: int = 0
    """How often the device dropped samples because nobody took them in time."""
    drift_ppm: float | None = None
    """How much faster than this box's clock its samples come, in millionths; None until it is known."""
    identity: str | None = None
    """The device it hears, where that can be known: usb-id:VVVV:PPPP[:SERIAL], card:ID or pulse:NAME."""


class Source(Protocol):
    """Anything that sounds."""

    @property
    def live(self) -> bool:
        """Whether sound is made by the world: it does not wait for a slow listener."""

    @property
    def vitals(self) -> Vitals:
        """How it has done so far; from any thread."""

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


def open_sources(
    specs: Mapping[str, SourceSpec], *, wait: bool, objections: Mapping[str, Callable[[str], str | None]]
) -> dict[str, Source]:
    """The sources of several machines; machines that name the same device share it.

    Args:
        specs: machine → its source.
        wait: keep trying when a device or command isn't there at the start, rather than fail.
        objections: machine → why a device of some identity must not be heard; None where it may.

    Raises:
        AsdError: as `open_source`.
    """
    devices = {name: spec for name, spec in specs.items() if spec.kind == "device"}
    opened: dict[str, Source] = {}
    if devices:
        from asd_daemon.hear.sharing import open_microphones

        opened = open_microphones(devices, wait=wait, objections=objections)
    return {name: opened.get(name) or open_source(spec, wait=wait) for name, spec in specs.items()}


class ScriptedSource:
    """A source that says what it was given, for tests and rehearsals; it waits for a slow listener unless told otherwise."""

    def __init__(self, script: Iterable[Heard], *, live: bool = False) -> None:
        self.live = live
        self.vitals = Vitals()
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
