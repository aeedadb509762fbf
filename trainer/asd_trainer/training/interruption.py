"""Being asked to stop: SIGINT and SIGTERM while something is learned.

Owns the exception that carries the signal outwards, and the span in which signals only leave a note. It needs no torch.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from asd_daemon.cli.console import StoppedBySignal


class Interrupted(StoppedBySignal):
    """A signal asked the work to stop; what was learned so far is on disk."""


@contextmanager
def recorded_signals() -> Iterator[list[int]]:
    """Inside, SIGINT and SIGTERM only append their number to the list; outside the main thread nothing changes."""
    noted: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        noted.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
