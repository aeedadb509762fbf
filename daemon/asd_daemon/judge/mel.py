"""Waveform → log-mel: the one implementation, for the edge and for training.

Kaldi's filter bank as EAT was trained on it (FIELD: EAT, arXiv 2401.03497; Kaldi `compute-fbank-feats`): 25 ms frames every 10 ms,
DC removed per frame, pre-emphasis 0.97, symmetric Hann window, 512-point FFT, power, 128 HTK mel bands from 20 Hz to Nyquist,
natural logarithm. NumPy only; every frame of a clip goes through one FFT and one matrix product.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from asd_daemon.errors import RecordingError
from asd_daemon.waveform import SAMPLE_RATE_HZ

FRAME_SAMPLES = 400  # 25 ms
HOP_SAMPLES = 160  # 10 ms
FFT_SAMPLES = 512  # next power of two
MEL_BINS = 128
LOW_HZ = 20.0
HIGH_HZ = SAMPLE_RATE_HZ / 2
PREEMPHASIS = 0.97
ENERGY_FLOOR = float(np.finfo(np.float32).eps)  # Kaldi's floor before the logarithm: ln → -15.942

EAT_FRAMES = 1024  # 64 patches of 16 frames; a 10 s clip has 998 frames
EAT_MEAN = -4.268  # AudioSet statistics that the released EAT weights expect
EAT_STD = 4.569


class FeatureSpec(BaseModel):
    """What a model expects of its input; stored in a bundle and compared with this program's own before use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_rate_hz: int = SAMPLE_RATE_HZ
    frame_samples: int = FRAME_SAMPLES
    hop_samples: int = HOP_SAMPLES
    fft_samples: int = FFT_SAMPLES
    mel_bins: int = MEL_BINS
    low_hz: float = LOW_HZ
    high_hz: float = HIGH_HZ
    preemphasis: float = PREEMPHASIS
    window: str = "hanning"
    frames: int = EAT_FRAMES
    mean: float = EAT_MEAN
    std: float = EAT_STD


FEATURE = FeatureSpec()


def log_mel(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-mel spectrogram of a clip of any length, its mean removed first.

    Args:
        waveform: float32 mono in [-1, 1] at 16 kHz, shape (N,) with N ≥ 400 samples.

    Returns:
        float32, shape (T, 128), T = 1 + (N - 400) // 160 (998 for 10 s); natural logarithm of power.

    Raises:
        RecordingError: shorter than one frame of 25 ms.
    """
    if waveform.ndim != 1 or waveform.shape[0] < FRAME_SAMPLES:
        raise RecordingError(
            f"a log-mel needs one channel of at least {FRAME_SAMPLES} samples (25 ms), got shape {waveform.shape}"
        )
    centred = waveform.astype(np.float32, copy=False) - waveform.mean(dtype=np.float64).astype(np.float32)
    frames = sliding_window_view(centred, FRAME_SAMPLES)[::HOP_SAMPLES]  # (T, 400), a view
    frames = frames - frames.mean(axis=1, keepdims=True)  # DC per frame
    emphasised = np.zeros((frames.shape[0], FFT_SAMPLES), np.float32)
    body = emphasised[:, :FRAME_SAMPLES]
    np.multiply(frames[:, :-1], -PREEMPHASIS, out=body[:, 1:])
    body[:, 1:] += frames[:, 1:]
    body[:, 0] = (1 - PREEMPHASIS) * frames[:, 0]  # Kaldi repeats the first sample to its left
    body *= _window()
    spectrum = np.fft.rfft(emphasised, axis=1)[:, :-1]  # (T, 256): Kaldi's bands end below the Nyquist bin
    power = spectrum.real**2
    power += spectrum.imag**2
    energy = power @ _mel_filters()  # (T, 128)
    np.maximum(energy, ENERGY_FLOOR, out=energy)
    return np.log(energy, out=energy)


def eat_input(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Fit a log-mel to EAT's input: zero-pad or cut to 1024 frames, then (x - mean) / (2 · std).

    Args:
        features: float32 (T, 128) as `log_mel` gives it.

    Returns:
        float32 (1024, 128). The padding is raw zeros before normalisation, as in EAT's training.
    """
    fitted = np.zeros((EAT_FRAMES, MEL_BINS), np.float32)
    frames = min(features.shape[0], EAT_FRAMES)
    fitted[:frames] = features[:frames]
    fitted -= np.float32(EAT_MEAN)
    fitted /= np.float32(2 * EAT_STD)
    return fitted


@lru_cache(maxsize=1)
def _window() -> NDArray[np.float32]:
    return np.hanning(FRAME_SAMPLES).astype(np.float32)


def _mel(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return 1127.0 * np.log1p(np.asarray(hz) / 700.0)


@lru_cache(maxsize=1)
def _mel_filters() -> NDArray[np.float32]:
    """Triangles equally wide on the mel scale, evaluated at the FFT bins' mel values, as Kaldi does; shape (256, 128)."""
    edges = np.linspace(_mel(LOW_HZ), _mel(HIGH_HZ), MEL_BINS + 2)  # (130,)
    bins = _mel(np.arange(FFT_SAMPLES // 2) * (SAMPLE_RATE_HZ / FFT_SAMPLES))[:, None]  # (256, 1)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
