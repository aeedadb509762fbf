"""The sound of a clip, wherever it lies: in a file of its own or in a shard.

Owns the one way from a clip to its samples. What a sound is, `asd_daemon.waveform` says.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asd_daemon.sound_file import header_objection
from asd_daemon.waveform import fit_length, read_waveform
from asd_trainer.data.clip import Clip
from asd_trainer.data.shard_sound import clip_content


def load_clip(clip: Clip, channel: int = 0) -> NDArray[np.float32]:
    """One channel of a clip at 16 kHz, repeated or truncated to 10 s; float32 (160 000,).

    Of several channels the first is taken unless another is asked for: in 2026 it is the microphone near the machine.

    Raises:
        RecordingError: names the file and what is wrong with it.
    """
    return fit_length(read_waveform(clip.path, channel, clip_content(clip)))


def clip_objection(clip: Clip, channel: int = 0) -> str | None:
    """Why a clip can't be read as sound, as far as its header tells, without its name; None where it can."""
    return header_objection(clip.path, channel, clip_content(clip))
