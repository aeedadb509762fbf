"""What is known of a rollout while the daemon runs: written before it is acted by, told when it changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from asd_daemon.rollout.rollout_state import Named, Phase, RolloutState, read_state, write_state

_LOG = logging.getLogger(__name__)
_SAVE_EVERY_S = 30.0


class Ledger:
    """The state and its file.

    Args:
        file: where it is kept.
        clock_s: seconds that never go back.
    """

    def __init__(self, file: Path, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.file, self._clock_s = file, clock_s
        self.state, self._saved_s = RolloutState(), float("-inf")

    def read(self) -> None:
        """Go on with what was known."""
        self.state = read_state(self.file)

    def save(self) -> None:
        """Keep it.

        Raises:
            OSError: the disk refuses.
        """
        self._saved_s = self._clock_s()
        write_state(self.file, self.state)

    def save_now_and_then(self) -> None:
        """Keep what grows slowly."""
        if self._clock_s() - self._saved_s > _SAVE_EVERY_S:
            self.save()

    def tell(self, phase: Phase, reason: str | None = None, *, level: int = logging.INFO) -> None:
        """Be in a phase from now on."""
        if (phase, reason) == (self.state.phase, self.state.reason):
            return
        self.state.phase, self.state.reason = phase, reason
        self.save()
        offered = self.state.offered.words if self.state.offered else "no bundle"
        # The phase is in the template: lines of different phases are no repeats of each other
        _LOG.log(level, f"rollout: %s: {phase.value}%s", offered, f", {reason}" if reason else "")

    def refuse(self, named: Named, phase: Phase, why: str) -> None:
        """Want an offering no more."""
        self.state.refuse(named.id, why)
        self.state.offered = named
        self.tell(phase, why, level=logging.WARNING)
