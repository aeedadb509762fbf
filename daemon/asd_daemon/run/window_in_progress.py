"""The window that is being judged: it is counted exactly once, whatever becomes of it, also where its judge hangs at the end."""

from __future__ import annotations

import threading

from asd_daemon.watch.counters import Counters


class WindowInProgress:
    """At most one window; begun and settled by the judging thread, abandoned by the one that stops it."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._lock = threading.Lock()  # guards the two below
        self._is_judged_now = self._is_abandoned = False

    def begin(self) -> None:
        """A window is being judged."""
        self._is_judged_now = True

    def settle(self, **counted: int) -> None:
        """Count what became of it, unless it has been abandoned."""
        with self._lock:
            if not self._is_abandoned:
                self._counters.add(**counted)
            self._is_judged_now = False

    def abandon(self) -> None:
        """Nobody waits for it any more: it is dropped, and what becomes of it is not counted."""
        with self._lock:
            if self._is_judged_now:
                self._counters.add(dropped=1)
            self._is_abandoned = True
