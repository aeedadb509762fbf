"""A thread that dies of an error which nobody caught ends the daemon, instead of leaving it half alive."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

_LOG = logging.getLogger(__name__)


class ThreadFailures(AbstractContextManager["ThreadFailures"]):
    """A thread that dies of an error nobody caught ends the daemon with it, as long as the context lasts.

    A connection, say, whose thread is gone would look alive for ever. What is started again is well; alerts wait on disk.
    """

    def __init__(self, fail: Callable[[Exception], None]) -> None:
        self._fail, self._before = fail, threading.excepthook

    def __enter__(self) -> ThreadFailures:
        threading.excepthook = self._handle
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        threading.excepthook = self._before

    def _handle(self, death: threading.ExceptHookArgs) -> None:
        if isinstance(death.exc_value, Exception):
            name = death.thread.name if death.thread else "unknown"
            _LOG.error("thread %s died", name, exc_info=death.exc_value)
            self._fail(death.exc_value)
