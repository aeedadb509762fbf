"""What a simulated machine does over time: runs, stands still, changes its product, over and over.

Owns the words of `cycle=` and which step a second lies in; the sound is the scene's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from asd_daemon.errors import UsageError

ON, OFF = "on", "off"


@dataclass(frozen=True)
class CycleStep:
    """One thing that the machine does."""

    setting: Mapping[str, str] | None
    """Attributes that differ from the machine's usual ones; None: it stands still."""
    seconds: int


@dataclass(frozen=True)
class WorkCycle:
    """Steps that come again and again."""

    steps: tuple[CycleStep, ...]

    def step_at(self, second: int) -> int:
        """Which step a second of the machine's time lies in."""
        ends = list(accumulate(step.seconds for step in self.steps))
        return next(number for number, end in enumerate(ends) if second % ends[-1] < end)


def parse_cycle(text: str) -> WorkCycle:
    """Read `WHAT:SECONDS,WHAT:SECONDS,…`; WHAT is `on`, `off` or attributes, `load=50` or `load=50+m-n=X`.

    Raises:
        UsageError: anything else.
    """
    return WorkCycle(tuple(_step(words, text) for words in text.split(",")))


def _step(words: str, text: str) -> CycleStep:
    what, colon, duration = words.rpartition(":")
    if not colon or not duration.isascii() or not duration.isdigit() or not 1 <= int(duration) <= 10**7:
        raise UsageError(f"cycle {text!r}: {words!r} must be WHAT:SECONDS, with whole seconds, 1 or more")
    if what == OFF:
        return CycleStep(None, int(duration))
    pairs = [] if what == ON else [pair.partition("=") for pair in what.split("+")]
    if any(not (name and equals and value) for name, equals, value in pairs):
        raise UsageError(f"cycle {text!r}: {what!r} must be on, off, or attributes: load=50 or load=50+m-n=X")
    return CycleStep({name: value for name, _, value in pairs}, int(duration))
