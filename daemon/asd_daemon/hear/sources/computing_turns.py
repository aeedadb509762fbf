"""Turns of the simulated machines of one process at computing their sound: one at a time, the one that is farthest behind first.

Hundreds at once would only take Python from each other, operation by operation; and those that have begun would keep the rest from it.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
from collections.abc import Iterator


class ComputingTurns:
    """Asked from the machines' hearing threads; each waits on a lock of its own, so that a turn wakes one of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the three below
        self._waiting: list[tuple[int, int, threading.Lock]] = []
        self._numbers = itertools.count()
        self._is_taken = False

    @contextlib.contextmanager
    def turn(self, computed: int) -> Iterator[None]:
        """Wait until it is one's turn, and give it back at the end.

        Args:
            computed: how much this machine has computed already; among equals who came first goes first.
        """
        called = threading.Lock()
        called.acquire()
        with self._lock:
            if self._is_taken:
                heapq.heappush(self._waiting, (computed, next(self._numbers), called))
            else:
                self._is_taken = True
                called.release()
        with called:
            try:
                yield
            finally:
                self._call_next()

    def _call_next(self) -> None:
        with self._lock:
            self._is_taken = bool(self._waiting)
            if self._waiting:
                heapq.heappop(self._waiting)[2].release()
