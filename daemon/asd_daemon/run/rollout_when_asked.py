"""The rollout of bundles, loaded when the configuration first names a server: most boxes never need it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asd_daemon.rollout.rollout import Rollout


class RolloutWhenAsked:
    """A reporter of the daemon.

    Args:
        is_asked: whether the configuration names a server now.
        make: makes the rollout.
    """

    def __init__(self, is_asked: Callable[[], bool], make: Callable[[], Rollout]) -> None:
        self._is_asked, self._make = is_asked, make
        self._making = threading.Lock()
        self._rollout: Rollout | None = None
        self._is_closed = False

    def start(self, reports: object = None) -> None:
        """Begin, where the configuration asks for it."""
        del reports  # it asks the daemon itself
        self.progressed()

    def progressed(self) -> None:
        """A window went by; the configuration may ask for it by now."""
        rollout = self._rollout or self._made()
        if rollout is not None:
            rollout.progressed()

    def _made(self) -> Rollout | None:
        with self._making:
            if self._rollout is None and not self._is_closed and self._is_asked():
                self._rollout = self._make()
            return self._rollout

    def close(self) -> None:
        """End within a second or so."""
        with self._making:
            self._is_closed = True
        if self._rollout is not None:
            self._rollout.close()

    def report(self) -> dict[str, Any] | None:
        """What is told of it; None where nothing is asked for."""
        return None if self._rollout is None else self._rollout.report()

    def account(self) -> dict[str, Any] | None:
        """How it stands, for the page; None where nothing is asked for."""
        return None if self._rollout is None else self._rollout.account()
