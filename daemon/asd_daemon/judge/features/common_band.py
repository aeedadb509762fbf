"""The band that every recording and every microphone has, whatever rate it came at: what lies above it is not judged.

What a spectrum shows just below 8 kHz is how the sound was brought to 16 kHz, not the machine: resamplers roll off from 7 to 7.3 kHz on,
sound cards and lossy codecs likewise, and sound recorded at 16 kHz does not. In the logarithm that is up to 4 nepers, more than any
fault makes. The bands above are therefore replaced by the mirror image of those below: no band is dead, none shows the recording's
gain alone, and models that expect 128 bands get 128. Every view and every model must be given spectra that went through here.
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
    """A log-mel (…, 128) whose bands above COMMON_BAND_HZ are the mirror image of those below; a copy."""
    return _mirrored(features, COMMON_BANDS)


def common_bins(spectrum: F32, bin_hz: float, first_hz: float = 0.0) -> F32:
    """The same for a spectrum (…, F) of equally wide bins, magnitudes or powers.

    Args:
        spectrum: its last axis is frequency.
        bin_hz: from bin to bin.
        first_hz: frequency of the first bin.
    """
    return _mirrored(spectrum, min(spectrum.shape[-1], int((COMMON_BAND_HZ - first_hz) / bin_hz) + 1))


def _mirrored(spectrum: F32, kept: int) -> F32:
    above = spectrum.shape[-1] - kept
    judged = spectrum.copy()
    judged[..., kept:] = spectrum[..., kept - above : kept][..., ::-1]
    return judged
