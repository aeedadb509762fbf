"""What a judge is, whatever it judges by: a window in, a verdict out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.thresholds.threshold import EnrolledThreshold

OFF, RUNNING = "off", "running"
"""States that have these names without anybody's saying so."""


class Verdict(Protocol):
    """What a judge says of a window."""

    @property
    def score(self) -> float:
        """Higher is more abnormal."""

    @property
    def threshold(self) -> float:
        """Above it the window is anomalous."""

    @property
    def anomalous(self) -> bool:
        """Whether it is."""

    @property
    def enrolled(self) -> EnrolledThreshold | None:
        """What enrolment knows of the threshold; None where nothing can be learned from that."""

    @property
    def operating_state(self) -> str | None:
        """In which of the states that were learned the machine is; None where none were."""

    @property
    def is_off(self) -> bool:
        """Whether the machine stands still, so that there is nothing to judge."""


@dataclass(frozen=True)
class Likeness:
    """A named example that a window resembles."""

    name: str
    on: date
    """When the example was heard, UTC."""


@runtime_checkable
class DescribedVerdict(Protocol):
    """A verdict that says what it was made of."""

    @property
    def vectors(self) -> Mapping[str, NDArray[np.float32]]:
        """By view, (1, D)."""

    @property
    def like(self) -> Likeness | None:
        """The named example that the window resembles most; None for none."""


@dataclass(frozen=True)
class HeardHall:
    """What the second microphone says of a window."""

    share: float | None
    """Of the window's power that came from the hall, 0 to 1; None where the far microphone is lost."""
    drowns: bool = False
    """Whether the hall leaves nothing of the machine to judge."""


@runtime_checkable
class VerdictOfTwo(Protocol):
    """A verdict on a machine that was learned with two microphones."""

    @property
    def hall(self) -> HeardHall | None:
        """What the far microphone says; None for a machine that was learned with one."""


def heard_hall(verdict: Verdict) -> HeardHall | None:
    """What the far microphone says of a window; None of a machine that was learned with one."""
    return verdict.hall if isinstance(verdict, VerdictOfTwo) else None


class Judge(Protocol):
    """Scores windows of one machine."""

    def score(self, waveform: NDArray[np.float32]) -> Verdict:
        """Score float32 (160 000,), or (160 000, 2) of two microphones, the near one first."""
