"""What every source of sound says: blocks of samples, and what happened to it between them.

Each kind of source is a module of `sources`; none of them judges what it hears.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from asd_daemon.waveform import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Block:
    """Consecutive sound."""

    samples: NDArray[np.float32]
    """float32 mono in [-1, 1] at 16 kHz, any length; (N, C) only between a shared microphone and those who share it."""
    gap_samples: int = 0
    """How many samples are missing between the block before and this one."""
    last: bool = False
    """Whether a recording ends with this block: what follows does not join on."""
    rate_error: float | None = 0.0
    """How much faster than promised samples have come lately, as a fraction of the rate; negative: slower. None where the source promises
    nothing that can be relied on and it is not measured yet."""
    far: NDArray[np.float32] | None = None
    """What a second microphone, far from the machine, heard meanwhile, shaped as `samples`; None where there is none or it is lost."""


@dataclass(frozen=True)
class SourceLost:
    """The source is silent against its will. Said at once, then again every few seconds until a block comes."""

    reason: str
    for_s: float
    """Seconds since the last sound, or since the start."""
    wrong_device: bool = False
    """Whether there is sound, but from another device than the one that this source is of."""


@dataclass(frozen=True)
class DeadMicrophone:
    """The source delivers, but no microphone sounds like that: said at once, before the window ends, once a spell."""

    reason: str
    """`silence` or `stuck`, as the window will be called."""


@dataclass(frozen=True)
class SoundReturned:
    """After `SourceLost` or `DeadMicrophone`: there is sound again, long before a window is full of it."""


@dataclass(frozen=True)
class UnreadableRecording:
    """A recording that could not be read, and why."""

    path: Path
    reason: str


SourceEvent = Block | SourceLost | UnreadableRecording | DeadMicrophone | SoundReturned


@dataclass(frozen=True)
class SourceHealth:
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
    def source_health(self) -> SourceHealth:
        """How it has done so far; from any thread."""

    def events(self) -> Iterator[SourceEvent]:
        """All that is heard, until the source ends or is closed; may be asked for once.

        Raises:
            SourceError: the source can't start, and was told not to wait for it.
        """

    def close(self) -> None:
        """End `events` soon, from any thread, any number of times."""


@runtime_checkable
class EarlySource(Protocol):
    """A source that can begin to record before anybody listens; what it has heard by then, `events` gives first."""

    def begin(self) -> None:
        """Begin, and return at once."""


def begin_early(source: Source) -> None:
    """Have a source begin to record, where it can do that by itself."""
    if isinstance(source, EarlySource):
        source.begin()


class ScriptedSource:
    """A source that says what it was given, for tests and rehearsals; it waits for a slow listener unless told otherwise."""

    def __init__(self, script: Iterable[SourceEvent], *, live: bool = False) -> None:
        self.live = live
        self.source_health = SourceHealth()
        self._script = script
        self._closed = False

    def events(self) -> Iterator[SourceEvent]:
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
    if block.samples.dtype != "float32" or block.samples.ndim != 1:
        raise ValueError(
            f"a block is float32 mono at {SAMPLE_RATE_HZ} Hz, got {block.samples.dtype} {block.samples.shape}"
        )
