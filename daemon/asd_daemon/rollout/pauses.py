"""Pauses that grow: what the box was too busy for is tried again, less and less often."""

from __future__ import annotations

from collections.abc import Callable

FIRST_S, MOST_S = 60.0, 3600.0


class Pauses:
    """Of one thing that is tried.

    Args:
        clock_s: seconds that never go back.
    """

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._due_s = float("-inf")
        self.times = 0
        """Tries in a row that came to nothing."""

    @property
    def is_over(self) -> bool:
        """Whether it may be tried now."""
        return self._clock_s() >= self._due_s

    def later(self) -> float:
        """It came to nothing: seconds until it may be tried again."""
        pause_s = min(MOST_S, FIRST_S * 2.0 ** min(self.times, 20))
        self.times += 1
        self._due_s = self._clock_s() + pause_s
        return pause_s

    def reset(self) -> None:
        """It was done, or is not wanted any more."""
        self.times, self._due_s = 0, float("-inf")
