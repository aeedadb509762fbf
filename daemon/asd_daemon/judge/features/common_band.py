"""The band that every recording and every microphone has, whatever rate it came at: what lies above it is not judged.

What a spectrum shows just below 8 kHz is how the sound was brought to 16 kHz, not the machine: resamplers roll off from 7 to 7.3 kHz on,
sound cards and lossy codecs likewise, and sound recorded at 16 kHz does not. In the logarithm that is up to 4 nepers, more than any
fault makes. The bands above therefore repeat the last one below: no band is dead, none shows the recording's
gain alone. Every view must be given log-mels that went through here.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.features.log_mel import HIGH_HZ, LOW_HZ, MEL_BINS

F32 = NDArray[np.float32]

COMMON_BAND_HZ = 6900.0
"""Up to here soxr, SciPy, a Fourier interpolation and MP3 of 128 kbit/s (mono) agree within 2 % of a threshold."""


def _mel(hz: float) -> float:
    return 1127 * math.log1p(hz / 700)


def _common_bands() -> int:
    """How many of the mel bands end at COMMON_BAND_HZ or below."""
    step = (_mel(HIGH_HZ) - _mel(LOW_HZ)) / (MEL_BINS + 1)
    return int((_mel(COMMON_BAND_HZ) - _mel(LOW_HZ)) / step) - 1  # band n ends at step n + 2


COMMON_BANDS = _common_bands()  # 121


def common_mel(features: F32) -> F32:
    """A log-mel (…, 128) whose bands above COMMON_BAND_HZ say what the last one below says; a copy."""
    judged = features.copy()
    judged[..., COMMON_BANDS:] = features[..., COMMON_BANDS - 1 : COMMON_BANDS]
    return judged
