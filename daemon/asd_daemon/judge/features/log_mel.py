"""Waveform → log-mel: the one implementation, for the edge and for training.

Owns the mel filters, the logarithm and EAT's input; `spectrum` owns what comes before. Kaldi's filter bank as EAT was trained on it
(EAT, arXiv 2401.03497; Kaldi's compute-fbank-feats): 25 ms frames every 10 ms, DC removed per frame, pre-emphasis 0.97, symmetric
Hann window, 512-point FFT, power, 128 HTK mel bands from 20 Hz to Nyquist, natural logarithm. NumPy only, no loop over frames.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from asd_daemon.errors import RecordingError
from asd_daemon.judge.features.power_spectrum import (
    FFT_SAMPLES,
    FRAME_SAMPLES,
    HOP_SAMPLES,
    POWER_SCALE,
    PREEMPHASIS,
    frame_count,
    power_spectra,
)
from asd_daemon.waveform import SAMPLE_RATE_HZ

MEL_BINS = 128
BAND_GROUP = 32  # bands that share a matrix product: the filters are narrow, most of one large matrix would be zeros
LOW_HZ = 20.0
HIGH_HZ = SAMPLE_RATE_HZ / 2
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
    waveform = waveform.astype(np.float32, copy=False)
    features = np.empty((frame_count(waveform.shape[0]), MEL_BINS), np.float32)
    for frames, power in power_spectra(waveform, waveform.mean()):
        energy = features[frames]
        for bins, bands, filters in _mel_filters():
            np.matmul(power[bins].T, filters, out=energy[:, bands])
        np.maximum(energy, np.float32(ENERGY_FLOOR), out=energy)
        np.log(energy, out=energy)
    return features


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
def _mel_filters() -> tuple[tuple[slice, slice, NDArray[np.float32]], ...]:
    """The filters in groups of neighbouring bands: rows of the power that they need, bands, matrix (rows, bands)."""
    weights = filter_weights() / np.float32(POWER_SCALE)
    groups = []
    for first in range(0, MEL_BINS, BAND_GROUP):
        bands = slice(first, first + BAND_GROUP)
        needed = np.flatnonzero(weights[:, bands].any(axis=1))
        bins = slice(int(needed[0]), int(needed[-1]) + 1)
        groups.append((bins, bands, np.ascontiguousarray(weights[bins, bands])))
    return tuple(groups)


def filter_weights() -> NDArray[np.float32]:
    """Triangles equally wide on the mel scale, evaluated at the mel values of FFT bins 1 to 255; float32 (255, 128).

    In single precision like Kaldi's: where one bin at the foot of a triangle is all that a band has, the rounding of its weight shows.
    One band at 65 Hz lies between two bins and stays at the floor.
    """
    low, high = _mel(np.array([LOW_HZ, HIGH_HZ], np.float32))
    step = (high - low) / np.float32(MEL_BINS + 1)
    band = np.arange(MEL_BINS, dtype=np.float32)
    left, centre, right = (low + (band + np.float32(i)) * step for i in range(3))
    bin_hz = np.arange(1, FFT_SAMPLES // 2, dtype=np.float32) * np.float32(SAMPLE_RATE_HZ / FFT_SAMPLES)
    mel = _mel(bin_hz)[:, None]  # (255, 1)
    weights = np.where(mel <= centre, (mel - left) / (centre - left), (right - mel) / (right - centre))
    return np.where((mel > left) & (mel < right), weights, np.float32(0))


def _mel(hz: NDArray[np.float32]) -> NDArray[np.float32]:
    ratio = np.float32(1) + hz / np.float32(700)
    return np.float32(1127) * np.log(ratio.astype(np.float64)).astype(np.float32)
