"""What a sound is inside asd-edge: float32 mono in [-1, 1] at 16 kHz, judged in windows of 10 s.

Owns the rate, the window and how recordings of any rate and length become both, for the daemon and the trainer alike. It knows no
feature, no format and no device. NumPy is imported where it is used: to begin to record takes the constants alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from asd_daemon.errors import RecordingError
from asd_daemon.resampling import Resampler
from asd_daemon.sound_file import SoundFile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

_LOG = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 16_000
WINDOW_S = 10.0
WINDOW_SAMPLES = int(SAMPLE_RATE_HZ * WINDOW_S)  # 160 000
LEAST_S = 5.0
"""A recording that is shorter is not judged and not learned: it holds too little of a machine's cycle."""
LEAST_SAMPLES = int(SAMPLE_RATE_HZ * LEAST_S)
LEAST_RATE_HZ = 14_000
"""A recording of a lower rate does not hold the band that is judged."""


def read_blocks(path: Path, channel: int = 0, content: bytes | None = None) -> Iterator[F32]:
    """One channel of a sound file, in order, in blocks float32 (N,) at 16 kHz; memory does not grow with the file.

    Other rates are resampled with soxr (HQ); of one that is too low to be judged the windows will be found unfit. A file that ends before
    its header says is read as far as it goes, and that is logged. Content that is given takes the place of the file's.

    Raises:
        RecordingError: the file is missing, unreadable, empty, has no such channel, or holds samples that are not finite; what came before
            a damage has been given by then.
    """
    import numpy as np

    with SoundFile(path, channel, content) as file:
        resample = Resampler(file.rate_hz, SAMPLE_RATE_HZ)
        given = 0
        for block in file.blocks():
            given += (samples := resample(block)).shape[0]
            if samples.shape[0]:
                yield samples
        rest = resample(np.zeros(0, np.float32), last=True)
        if rest.shape[0]:
            yield rest
        if given + rest.shape[0] == 0:
            raise RecordingError(f"{file.name}: too short ({file.read_samples} samples at {file.rate_hz} Hz)")
        if file.shortfall is not None:
            _LOG.warning("%s", file.shortfall)


def read_both(path: Path, channel: int = 0, far: int = 1) -> Iterator[F32]:
    """Two channels of a sound file, in order, in blocks float32 (N, 2) at 16 kHz: a microphone at the machine and one far from it.

    Raises:
        RecordingError: as `read_blocks`.
    """
    import numpy as np

    for near, other in zip(read_blocks(path, channel), read_blocks(path, far), strict=True):
        yield np.stack([near, other], axis=1)


def refuse_low_rate(file: SoundFile) -> None:
    """Refuse a recording whose rate can't hold the band that is judged.

    Raises:
        RecordingError: its rate is below 14 kHz.
    """
    if file.rate_hz < LEAST_RATE_HZ:
        raise RecordingError(
            f"{file.name}: too little band: {file.rate_hz} Hz hold nothing above {file.rate_hz / 2:g} Hz;"
            f" {LEAST_RATE_HZ} Hz or more are needed"
        )


def read_waveform(path: Path, channel: int = 0, content: bytes | None = None) -> F32:
    """Read one channel of a sound file as a waveform of any length.

    Returns:
        float32, shape (samples,), at 16 kHz.

    Raises:
        RecordingError: as `read_blocks`; a file that is damaged anywhere is refused.
    """
    import numpy as np

    return np.concatenate(list(read_blocks(path, channel, content)))


def fit_length(waveform: F32, samples: int = WINDOW_SAMPLES) -> F32:
    """Bring a waveform (N,), or (N, C), to a number of samples: cut, or repeated from its beginning.

    The paper pads (section 2.4). Zeros are no sound of any machine: the quiet moments, by which steady machines are judged, would be
    those of the padding.
    """
    import numpy as np

    if waveform.shape[0] >= samples:
        return waveform[:samples]
    shape = (samples, *waveform.shape[1:])
    return np.resize(waveform, shape) if waveform.shape[0] else np.zeros(shape, np.float32)


def rms_level_dbfs(samples: F32) -> float:
    """Root mean square of float32 (N,) in dB below full scale; silence is -200."""
    import numpy as np

    power = float(np.mean(np.square(samples, dtype=np.float64))) if samples.shape[0] else 0.0
    return 10 * float(np.log10(max(power, 1e-20)))
