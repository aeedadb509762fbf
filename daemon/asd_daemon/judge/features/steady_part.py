"""What of a window sounds all the time, and a window's log-mels at one level of it.

Background noise comes and goes and only adds power, so the least power of a band over time is the machine that runs steadily (minimum
statistics: Martin, IEEE Trans. Speech and Audio Processing 9(5), 2001). What is left over moves: strokes, clicks, and the hall's noise.
NumPy only; it knows no view and no score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from asd_daemon.judge.features.common_band import COMMON_BAND_HZ, common_mel
from asd_daemon.judge.features.log_mel import log_mel
from asd_daemon.waveform import SAMPLE_RATE_HZ

F32 = NDArray[np.float32]
TINY = 1e-9
FRAME_SAMPLES, HOP_SAMPLES = 512, 256
SMOOTHING_FRAMES = 5
STEADY_BIAS = 2.0  # the least of smoothed powers lies below their mean even where the sound is steady
STEADY_RMS = 0.1  # that every window's steady part is brought to
LEAST_STEADY_SHARE = 0.02  # of the window's RMS: what counts as steady where almost nothing is
LEVEL_SAMPLES = 4096
LOG_FLOOR = np.float32(np.log(1e-5))
DEAF_BAND = (
    3  # lies between two FFT bins and never leaves the floor of the logarithm, so it would show the recording's gain
)


@dataclass(frozen=True)
class LevelledLogMels:
    """Log-mels of a window and of its steady part, both scaled alike."""

    window: F32
    """(T, 128)."""
    steady: F32
    """(T, 128), of the steady part alone."""

    @classmethod
    def of(cls, waveform: F32) -> LevelledLogMels:
        """From a window (N,) at 16 kHz, scaled so that its steady part has one RMS: recordings differ in gain.

        The RMS, not the mean of the log-mel: that mean counts empty bands as much as the machine's, and follows the noise in them.
        """
        centred = np.asarray(waveform - waveform.mean(dtype=np.float64), np.float32)
        steady = steady_part(centred)
        gain = np.float32(STEADY_RMS / max(_rms(steady), LEAST_STEADY_SHARE * _rms(centred), TINY))
        return cls(_audible_log_mel(centred * gain), _audible_log_mel(steady * gain))

    def between(self, first: int, last: int) -> LevelledLogMels:
        """Some frames of it."""
        return LevelledLogMels(self.window[first:last], self.steady[first:last])


def steady_part(waveform: F32) -> F32:
    """What of a window (N,) sounds all the time: a Wiener mask of each band's least power over its power; (N,)."""
    window = np.sqrt(np.hanning(FRAME_SAMPLES + 1)[:-1]).astype(
        np.float32
    )  # squares add up to one at half a frame's hop
    pad = FRAME_SAMPLES
    frames = sliding_window_view(np.pad(waveform, (pad, 2 * pad)), FRAME_SAMPLES)[::HOP_SAMPLES]
    spectrum = np.fft.rfft(frames * window, axis=1)  # (T, F)
    power = spectrum.real**2 + spectrum.imag**2
    total = np.cumsum(np.pad(power, ((1, 0), (0, 0))), axis=0)
    smooth = (total[SMOOTHING_FRAMES:] - total[:-SMOOTHING_FRAMES]) / SMOOTHING_FRAMES
    inside = smooth[2 * pad // HOP_SAMPLES : -4 * pad // HOP_SAMPLES]  # frames that hold no padding
    least = STEADY_BIAS * inside.min(axis=0) if inside.shape[0] else np.zeros(power.shape[1])
    edge = SMOOTHING_FRAMES // 2
    smooth = np.pad(smooth, ((edge, edge), (0, 0)), mode="edge")[: power.shape[0]]
    mask = np.minimum(1, np.sqrt(least / np.maximum(smooth, TINY * TINY)))
    pieces = np.fft.irfft(spectrum * mask, FRAME_SAMPLES, axis=1) * window
    out = np.zeros(HOP_SAMPLES * (frames.shape[0] + 1), np.float64)
    blocks = out.reshape(-1, HOP_SAMPLES)
    blocks[:-1] += pieces[:, :HOP_SAMPLES]
    blocks[1:] += pieces[:, HOP_SAMPLES:]
    return np.asarray(out[pad : pad + waveform.shape[0]], np.float32)


def _audible_log_mel(waveform: F32) -> F32:
    mel = common_mel(log_mel(waveform))
    mel[:, DEAF_BAND] = mel[:, DEAF_BAND + 1]
    return np.maximum(mel, LOG_FLOOR, out=mel)


def _rms(samples: F32) -> float:
    """Root mean square of what lies in the common band: how sound was brought to 16 kHz must not move the level."""
    whole = samples.shape[0] // LEVEL_SAMPLES * LEVEL_SAMPLES
    pieces = samples[:whole].reshape(-1, LEVEL_SAMPLES) if whole else samples[None]
    spectrum = np.fft.rfft(pieces, axis=1)
    inside = spectrum[:, : int(COMMON_BAND_HZ * pieces.shape[1] / SAMPLE_RATE_HZ) + 1]
    power = 2 * float(np.sum(inside.real**2 + inside.imag**2, dtype=np.float64)) / pieces.shape[1] ** 2
    return float(np.sqrt(power / pieces.shape[0]))
