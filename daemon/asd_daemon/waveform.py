"""What a sound is inside asd-edge: float32 mono in [-1, 1] at 16 kHz, judged in windows of 10 s.

Owns the rate, the window and the reading of sound files, for the daemon and the trainer alike. It knows no feature and no device.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from asd_daemon.errors import RecordingError

SAMPLE_RATE_HZ = 16_000
WINDOW_S = 10.0
WINDOW_SAMPLES = int(SAMPLE_RATE_HZ * WINDOW_S)  # 160 000

SOUND_SUFFIXES = (".wav", ".flac", ".ogg")


def read_waveform(path: Path, channel: int = 0) -> NDArray[np.float32]:
    """Read one channel of a sound file as a waveform of any length.

    The channel is chosen, never averaged: averaging microphones cancels what they hear out of phase. Other rates are
    resampled with soxr (HQ).

    Returns:
        float32, shape (samples,), at 16 kHz.

    Raises:
        RecordingError: the file is missing, unreadable, empty, has no such channel, or holds samples that are not finite.
    """
    try:
        samples, rate_hz = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, TypeError) as e:  # TypeError: a .raw file, which has no header
        raise RecordingError(f"{path}: can't be read as sound: {_unreadable(path, e)}") from e
    if samples.shape[0] == 0:
        raise RecordingError(f"{path}: holds no sound (0 samples)")
    if not 0 <= channel < samples.shape[1]:
        raise RecordingError(f"{path}: has {samples.shape[1]} channel(s), no channel {channel} (counted from 0)")
    mono = np.ascontiguousarray(samples[:, channel])
    if not np.isfinite(mono).all():
        bad = int(np.flatnonzero(~np.isfinite(mono))[0])
        raise RecordingError(f"{path}: sample {bad} is {mono[bad]}; a recording must hold finite numbers only")
    if rate_hz != SAMPLE_RATE_HZ:
        mono = soxr.resample(mono, rate_hz, SAMPLE_RATE_HZ, quality="HQ").astype(np.float32, copy=False)
        if mono.shape[0] == 0:
            raise RecordingError(f"{path}: too short ({samples.shape[0]} samples at {rate_hz} Hz)")
    return mono


def fit_length(waveform: NDArray[np.float32], samples: int = WINDOW_SAMPLES) -> NDArray[np.float32]:
    """Pad with zeros at the end, or truncate, to a number of samples (paper, section 2.4)."""
    if waveform.shape[0] >= samples:
        return waveform[:samples]
    return np.pad(waveform, (0, samples - waveform.shape[0]))


def _unreadable(path: Path, error: Exception) -> str:
    if path.is_dir():
        return "it is a folder"
    if not path.exists():
        return "there is no such file"
    if not os.access(path, os.R_OK):
        return "no right to read it"
    return str(error).removeprefix(f"Error opening {str(path)!r}: ").rstrip(".")
