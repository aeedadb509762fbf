"""Work on clips by which workers die; in a module of its own, as other processes call it by name."""

from __future__ import annotations

import os
import signal

import numpy as np
from numpy.typing import NDArray

from asd_trainer.data.clip import Clip


def dying_once(clip: Clip, channel: int) -> NDArray[np.float32]:
    """The first process that gets clip 5 dies of it; else the row of each."""
    mark = clip.path / "died"
    if clip.row == 5 and not mark.exists():
        mark.mkdir()
        os.kill(os.getpid(), signal.SIGKILL)
    return np.full(2, clip.row + channel, np.float32)


def deadly(clip: Clip, channel: int) -> NDArray[np.float32]:
    """Whoever gets clip 5 dies of it."""
    if clip.row == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.full(2, clip.row + channel, np.float32)
