"""Listens beside the judges: a new bundle hears the windows that are judged, and a bundle that fails is seen to fail."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import CannotJudgeError, EnrolmentError, RecordingError, UnknownMachineError
from asd_daemon.judge.scoring.verdict import Judge, Verdict

F32 = NDArray[np.float32]
_USUAL = (RecordingError, UnknownMachineError, EnrolmentError, CannotJudgeError)
"""What is no fault of a bundle."""


class JudgeTap:
    """Of all machines of a process; from their judging threads."""

    def __init__(self) -> None:
        self.hear: Callable[[str, F32, Verdict], None] = lambda *_: None
        """Told each window and what is said of it; may not wait."""
        self.failures: dict[str, str] = {}
        """Machines whose judge fails, and why."""

    def beside(self, machine: str, open_judge: Callable[[], Judge]) -> Callable[[], Judge]:
        """What opens a machine's judge, listened to."""

        def opened() -> Judge:
            try:
                return _HeardJudge(self, machine, open_judge())
            except _USUAL:
                raise
            except Exception as e:
                self.failures[machine] = f"{machine}: {e}"
                raise

        return opened


class _HeardJudge:
    def __init__(self, tap: JudgeTap, machine: str, judge: Judge) -> None:
        self._tap, self._machine, self._judge = tap, machine, judge

    def score(self, waveform: F32) -> Verdict:
        """As the judge does."""
        try:
            verdict = self._judge.score(waveform)
        except _USUAL:
            raise
        except Exception as e:
            self._tap.failures[self._machine] = f"{self._machine}: {type(e).__name__}: {e}"
            raise
        self._tap.failures.pop(self._machine, None)
        self._tap.hear(self._machine, waveform, verdict)
        return verdict
