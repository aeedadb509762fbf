"""Turns of the machines of one process at judging: many judges at once would only wait for each other, each with memory in its hands.

A turn is a courtesy and no lock: who waits too long, because a judge hangs, goes on without one.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

_PATIENCE_S = 5.0


class JudgingTurns:
    """Lets as many judge at a time as there are processors; asked from the judging threads.

    Args:
        at_once: how many; None: one for each processor, two at least.
        patience_s: after how many seconds one goes on all the same.
    """

    def __init__(self, at_once: int | None = None, patience_s: float = _PATIENCE_S) -> None:
        self._free = threading.BoundedSemaphore(at_once or max(2, os.cpu_count() or 2))
        self._patience_s = patience_s

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and give it back at the end."""
        has_turn = self._free.acquire(timeout=self._patience_s)
        try:
            yield
        finally:
            if has_turn:
                self._free.release()
