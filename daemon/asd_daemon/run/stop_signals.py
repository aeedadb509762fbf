"""SIGTERM and SIGINT, by which systemd and people at a terminal stop the daemon."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType, TracebackType


class StopSignals(AbstractContextManager["StopSignals"]):
    """SIGTERM and SIGINT ask to stop, as long as the context lasts; what was there before is put back."""

    def __init__(self, stop: Callable[[str], None]) -> None:
        self._stop = stop
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        is_main = threading.current_thread() is threading.main_thread()  # no other may set handlers
        for number in (signal.SIGTERM, signal.SIGINT) if is_main else ():
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() gave back

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._stop(signal.Signals(number).name)
