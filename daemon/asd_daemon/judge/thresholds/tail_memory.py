"""All that is remembered of a machine's highest normal scores, over restarts and for weeks; bounded.

Owns the form of the memory. It decides nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Stretch(NamedTuple):
    """A stretch of time."""

    number: int
    """Counted from 1970."""
    peak: float
    """The largest of the k-th largest of n scores in it."""
    level: float
    """Mean score."""
    windows: int


class TailMemory(BaseModel):
    """What survives a restart. At most some 5000 numbers: 70 days of 24 stretches, three of each; 45 kB as JSON."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    subject: str = ""
    """Of which scores: enrolment and rule; "" where nothing was heard."""
    windows: int = Field(default=0, ge=0)
    """Windows that have taught anything."""
    numbers: list[int] = []
    """Stretches that teach, rising …"""
    peaks: list[float] = []
    """… the peak of each …"""
    levels: list[float] = []
    """… and its level."""
    alarms: list[tuple[int, float]] = []
    """Stretches in which the threshold was crossed by an alert that went by itself, and that threshold."""
    pending: list[Stretch] = []
    """Stretches that wait to see whether an alert follows."""
    quarantine: list[Stretch] = []
    """Stretches of alerts, before them, or of a drift: they teach only when somebody says that they were normal."""
    current: Stretch | None = None
    """The stretch that is heard now."""
    tainted: bool = False
    """Whether it has seen an alert."""
    usual: float | None = None
    """The level that drifts are measured from, where somebody has said what is normal; None: the median of `levels`."""
    last_day: list[float] = []
    """Levels of the last day's stretches, whether they teach or not."""
    recent: list[float] = []
    """The last scores, at most as many as the alarm counts among."""
    opened_at: datetime | None = None
    """UTC time at which the open alert opened."""
    opened_over: float = 0.0
    """The threshold that it exceeded."""
    value: float | None = None
    """The threshold as it stands …"""
    budget: float = 1.0
    """… and the false alarms a week that it is for."""
    moved: int = 0
    """The day, counted from 1970, on which it moved last."""

    @model_validator(mode="after")
    def _belongs_together(self) -> TailMemory:
        if not len(self.numbers) == len(self.peaks) == len(self.levels):
            raise ValueError("numbers, peaks and levels must be equally many")
        return self
