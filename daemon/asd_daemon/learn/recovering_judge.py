"""The judge of a machine that may not be there yet: opened when it can be, learned anew from what was kept where that helps, tried again.

What is wrong with one machine (a record that can't be read, damaged files, other models) is its own trouble, and told in words; other
machines of the process never notice. Owns when to try again. It is asked from the station's judging thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import AsdError, CannotJudgeError, EnrolmentError, RecordingError, UnknownMachineError
from asd_daemon.judge.scoring.verdict import Judge, Verdict

_LOG = logging.getLogger(__name__)
F32 = NDArray[np.float32]
FIRST_RETRY_S, LAST_RETRY_S = 20.0, 600.0

Relearn = Callable[[Callable[[str], None]], object]
"""Learns the machine anew from what was kept; is given whom to tell how far it is.

Raises:
    AsdError: it can't be done.
"""


class RecoveringJudge:
    """One machine's.

    Args:
        machine: whose.
        open_judge: opens what is known of the machine.
        relearn: what to try where what was learned can't be judged by; None: nothing.
        unjudged: told when the machine can't be judged and nothing can be done about it here, and None when it can again.
        waits_for_lesson: whether somebody can teach the machine while it is listened to, so that one that is unknown is no trouble.
        clock_s: a steady clock.
    """

    def __init__(
        self,
        machine: str,
        open_judge: Callable[[], Judge],
        relearn: Relearn | None = None,
        unjudged: Callable[[Exception | None], None] = lambda _: None,
        *,
        waits_for_lesson: bool = False,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._machine, self._open_judge, self._relearn, self._unjudged = machine, open_judge, relearn, unjudged
        self._waits_for_lesson, self._clock_s = waits_for_lesson, clock_s
        self._judge: Judge | None = None
        self._thread: threading.Thread | None = None
        self._progress = ""
        self._reason = "is being opened"
        self._said: str | None = None
        self._tried_for: str | None = None  # what was wrong when it was last learned anew
        self._failure: AsdError | None = None  # why that failed
        self._wait_s, self._next_s = FIRST_RETRY_S, 0.0

    def open(self) -> Judge:
        """Open what is known, or see what can be done.

        Raises:
            UnknownMachineError: nothing is known, and a lesson is waited for.
        """
        self._try()
        return self

    def score(self, waveform: F32) -> Verdict:
        """Score a window.

        Raises:
            UnknownMachineError: the machine is being learned anew.
            CannotJudgeError: it can't be judged at present, and why.
        """
        if self._judge is None and self._thread is None and self._clock_s() >= self._next_s:
            self._try()
        thread = self._thread
        if thread is not None and not thread.is_alive():
            self._thread = None
            self._try(may_relearn=False)
        if self._judge is None:
            if self._thread is not None:
                raise UnknownMachineError(self._progress)
            raise CannotJudgeError(self._reason)
        try:
            return self._judge.score(waveform)
        except (RecordingError, UnknownMachineError, CannotJudgeError):
            raise
        except Exception as e:  # whatever a model does, the other machines of this process go on
            self._give_up(e)
            raise CannotJudgeError(self._reason) from e

    def _try(self, *, may_relearn: bool = True) -> None:
        try:
            self._judge = self._open_judge()
        except EnrolmentError as e:
            if self._relearn is None or not may_relearn or self._tried_for == str(e):
                self._give_up(self._failure or e)
                return
            self._tried_for, self._failure = str(e), None
            _LOG.warning("%s: %s; it is learned anew from what was kept", self._machine, e)
            self._progress = "is learned anew from what was kept"
            self._thread = threading.Thread(
                target=self._learn, args=(self._relearn,), name=f"relearn-{self._machine}", daemon=True
            )
            self._thread.start()
        except UnknownMachineError as e:
            if self._waits_for_lesson:
                raise
            self._give_up(e)
        except Exception as e:  # noqa: BLE001  # likewise
            self._give_up(e)
        else:
            if self._said is not None:
                _LOG.info("%s: can be judged again", self._machine)
            self._said, self._wait_s, self._tried_for, self._failure = None, FIRST_RETRY_S, None, None
            self._unjudged(None)

    def _learn(self, relearn: Relearn) -> None:
        """The thread's work."""
        try:
            relearn(self._told)
        except AsdError as e:
            self._failure = e
        except Exception as e:  # noqa: BLE001  # the top of a thread: whatever it is, the machine's state must tell it
            _LOG.exception("%s: can't be learned anew", self._machine)
            self._failure = CannotJudgeError(f"can't be learned anew from what was kept: {e}")

    def _told(self, words: str) -> None:
        self._progress = f"is learned anew from what was kept: {words}"

    def _give_up(self, error: Exception) -> None:
        """Nothing can be done now; it is tried again, less and less often."""
        self._judge = None
        self._reason = str(error) or type(error).__name__
        self._next_s = self._clock_s() + self._wait_s
        self._wait_s = min(2 * self._wait_s, LAST_RETRY_S)
        if self._said != self._reason:
            self._said = self._reason
            if not isinstance(error, AsdError):
                _LOG.error("%s: its judge failed", self._machine, exc_info=error)
            self._unjudged(error if isinstance(error, AsdError) else CannotJudgeError(self._reason))
