"""How far the learning of a machine is, for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LearningReport:
    """How far the learning of a machine is, and what came of it when it last ended."""

    is_learning: bool = False
    windows: int = 0
    """Usable ones that were heard for it …"""
    wanted: int = 0
    """… of so many."""
    unusable: int = 0
    over_s: float | None = None
    """Over how long the windows are spread; None: one after the other."""
    words: str | None = None
    """What it is at, or came of it; None: nothing since the daemon runs."""
    failed: bool = False
    """Whether it ended without success."""
