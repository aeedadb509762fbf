"""A board that the daemon is given, and what came of it."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Board:
    """What the daemon gets."""

    name: str
    memory_mb: int
    processors: float
    microphones: int = 1
    eats_mb: int = 0
    """So much is taken by another program as soon as an alert is open, for 20 s."""
    keeps: bool = True
    """Whether all that is asked must hold; else it is found out how it ends."""


BOARDS = (
    Board("Pi Zero 2 W, 512 MB", 512, 0.08),
    Board("Pi 4, 512 MB, 4 microphones", 512, 0.25, microphones=4),
    Board("256 MB", 256, 0.08),
    Board("160 MB", 160, 0.08),
    Board("128 MB", 128, 0.08),
    Board("96 MB, and another program takes 48", 96, 0.25, eats_mb=48, keeps=False),
    Board("96 MB", 96, 0.25),
    Board("64 MB", 64, 0.25, keeps=False),
)


@dataclass
class BoardReport:
    """What came of it."""

    board: Board
    start_s: float = float("nan")
    """By the clock, from the first start until it listens."""
    start_processor_s: float = float("nan")
    """Of the processor till then, recorders included."""
    daemon_mb: float = 0.0
    """Most resident memory of the daemon, libraries that it shares with the recorder included."""
    recorder_mb: float = 0.0
    """Most of a recorder."""
    anonymous_mb: float = 0.0
    """Most of the group that can't be dropped."""
    peak_mb: float = 0.0
    killed: int = 0
    starts: int = 0
    delays_s: list[float] = field(default_factory=list)
    """From the end of each window until its score was there."""
    processor: float = float("nan")
    """Share of a core while it listens, windows included."""
    opened: int = 0
    closed: int = 0
    unclosed: int = 0
    lost: int = 0
    """Alerts that the daemon has kept and that nobody was told of."""
    dropped: int = 0
    last_words: str = ""

    def faults(self) -> list[str]:
        """What is not as it must be."""
        found = []
        if self.board.keeps:
            if self.killed or self.starts > 1:
                found.append(f"{self.killed} processes killed, started {self.starts} times")
            if self.opened < self.board.microphones or self.dropped:
                found.append(f"{self.opened} alerts, {self.dropped} windows dropped")
        if self.unclosed or self.lost:
            found.append(f"{self.unclosed} alerts never closed, {self.lost} lost")
        if self.board.eats_mb and not (self.killed and self.opened):
            found.append("nothing was killed while an alert was open")
        return found

    def line(self) -> str:
        """All of it in words."""
        delay = f"{statistics.median(self.delays_s):.2f} s, at most {max(self.delays_s):.2f}" if self.delays_s else "–"
        start = f"listens after {self.start_s:.1f} s ({self.start_processor_s:.2f} s of processor)"
        if math.isnan(self.start_s):
            start = "never listens"
        share = "–" if math.isnan(self.processor) else f"{self.processor:.1%}"
        return (
            f"{self.board.name} ({self.board.processors:g} of a core): {start};"
            f" daemon {self.daemon_mb:.0f} MB, recorder {self.recorder_mb:.0f} MB,"
            f" group {self.anonymous_mb:.0f} MB that can't be dropped, {self.peak_mb:.0f} MB with files; {share} of a core;"
            f" {len(self.delays_s)} windows, scored after {delay}; {self.dropped} dropped; {self.killed} killed, {self.starts} starts;"
            f" {self.opened} alerts opened, {self.closed} closed, {self.lost} lost{f'; {self.last_words}' if self.last_words else ''}"
        )
