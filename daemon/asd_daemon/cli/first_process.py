"""SIGTERM for the first process of a container: the kernel keeps its default action from process 1, so that it must have a handler.

`run` sets its own, which stops in order, once it runs; until then, and in every other command, SIGTERM ends the process at once as it
does everywhere else.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def end_on_sigterm_as_first_process() -> None:
    """To be called before anything heavy is imported; does nothing in a process that is not the first."""
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    os.write(2, b"stopped: by SIGTERM\n")
    os._exit(128 + number)  # all that is left in the container ends with process 1
