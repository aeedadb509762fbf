"""What has happened so far, counted by several threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Counts:
    """What has happened so far. Every window that was heard is scored, unusable, off or dropped in the end."""

    heard: int = 0
    """Windows."""
    scored: int = 0
    """Windows."""
    unusable: int = 0
    """Windows that could not be judged."""
    off: int = 0
    """Windows in which the machine was switched off."""
    dropped: int = 0
    """Windows that came faster than they could be judged, or were left when the daemon stopped."""
    refused: int = 0
    """Recordings that could not be read."""
    gaps: int = 0
    """Times that sound was missing."""
    gap_samples: int = 0
    """How much, at 16 kHz."""
    losses: int = 0
    """Times that the source fell silent against its will."""
    opened: int = 0
    """Alerts."""
    deaf: int = 0
    """Times that nothing usable was heard for too long."""

    def __add__(self, other: Counts) -> Counts:
        """The sum of two machines' counts."""
        return Counts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


class Counters:
    """Counts that several threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()

    def add(self, **more: int) -> None:
        """Count some things, by the names of `Counts`."""
        with self._lock:
            self._counts = replace(self._counts, **{k: getattr(self._counts, k) + n for k, n in more.items()})

    @property
    def now(self) -> Counts:
        """The counts as they stand."""
        return self._counts
