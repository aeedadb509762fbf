"""Playing sound on this box, by PortAudio as it is heard."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import UsageError
from asd_daemon.waveform import SAMPLE_RATE_HZ


def play_sound(samples: NDArray[np.float32], device: str | None) -> None:
    """Play float32 (N,) at 16 kHz to its end.

    Args:
        samples: the sound.
        device: name or number of an output; None: the system's.

    Raises:
        UsageError: there is no such output, or it can't be played there; names those that there are.
    """
    import sounddevice

    try:
        chosen = int(device) if device is not None and device.isdigit() else device
        sounddevice.play(samples, SAMPLE_RATE_HZ, device=chosen, blocking=True)
    except (sounddevice.PortAudioError, ValueError) as e:
        outputs = [f"{one['index']} {one['name']}" for one in sounddevice.query_devices() if one["max_output_channels"]]
        there = f"there are: {'; '.join(outputs)}" if outputs else "this box has no output for sound"
        raise UsageError(f"can't be played{'' if device is None else f' at {device!r}'}: {e}; {there}") from e
