"""SIGHUP: sent by people and systemd it asks for the configuration to be read anew; sent by a terminal that closes it ends the daemon."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType, TracebackType


class ReloadSignal(AbstractContextManager["ReloadSignal"]):
    """SIGHUP, from the first moment of the program on: what comes before somebody can heed it is not lost, and none kills.

    After the context it is ignored: a program that ends shall not end by it.
    """

    def __init__(self) -> None:
        self._reload: Callable[[], None] | None = None
        self._stop: Callable[[str], None] | None = None
        self._asked: list[Callable[[], None]] = []
        self._ends_with_terminal = False

    def __enter__(self) -> ReloadSignal:
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            before = signal.signal(signal.SIGHUP, self._handle)
            self._ends_with_terminal = before is not signal.SIG_IGN and _has_terminal()  # else started by nohup
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def heed(self, reload: Callable[[], None], stop: Callable[[str], None]) -> None:
        """Whom to ask from now on, and for what was asked before; both are called from a signal handler."""
        self._reload, self._stop = reload, stop
        for ask in self._asked:
            ask()

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        ask = self._ask_to_stop if self._ends_with_terminal and not _has_terminal() else self._ask_to_reload
        if self._reload is None:
            self._asked = [ask]
        else:
            ask()

    def _ask_to_reload(self) -> None:
        if self._reload is not None:
            self._reload()

    def _ask_to_stop(self) -> None:
        if self._stop is not None:
            self._stop("the terminal is gone")


def _has_terminal() -> bool:
    """Whether the process has a terminal that is there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:  # ENXIO: none; EIO: it has hung up
        return False
    return True
