"""How long the supervisor of a child process waits for what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ChildTimeouts:
    """How long a supervisor waits for what."""

    boot_s: float = 20.0
    """From starting the process to its first message: interpreter and libraries, slow on small boards."""
    start_s: float = 3.0
    """From its first message to the first sound."""
    stall_s: float = 2.0
    """From sound to sound."""
    backoff_least_s: float = 0.25
    """Before the second start; doubles with each failure."""
    backoff_most_s: float = 1.5
    """The longest wait before a start."""
    healthy_s: float = 5.0
    """A life with this much sound sets the back-off to its least again."""
    lost_every_s: float = 8.0
    """How often `SourceLost` is said again."""
