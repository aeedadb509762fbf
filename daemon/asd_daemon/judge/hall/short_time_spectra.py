"""Sound ↔ overlapping short-time spectra that add up to it again. It knows no microphone and no machine."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

F32 = NDArray[np.float32]
C64 = NDArray[np.complex64]

FRAME_SAMPLES = 2048  # 128 ms: longer than a hall's first reflections
HOP_SAMPLES = FRAME_SAMPLES // 2
BINS = FRAME_SAMPLES // 2 + 1
_WINDOW = np.sqrt(np.hanning(FRAME_SAMPLES + 1)[:-1]).astype(np.float32)  # squares add up to one at half a frame's hop


def spectra_of(sound: F32) -> C64:
    """Float32 (N,) → complex64 (T, BINS), T = ceil(N / 1024) + 1."""
    frames = -(-sound.shape[0] // HOP_SAMPLES) + 1
    padded = np.zeros((frames + 1) * HOP_SAMPLES, np.float32)
    padded[HOP_SAMPLES : HOP_SAMPLES + sound.shape[0]] = sound
    cut = sliding_window_view(padded, FRAME_SAMPLES)[::HOP_SAMPLES]
    return np.fft.rfft(cut * _WINDOW, axis=1).astype(np.complex64, copy=False)


def sound_of(spectra: C64, samples: int) -> F32:
    """Complex64 (T, BINS) → float32 (samples,), what `spectra_of` was given."""
    pieces = np.fft.irfft(spectra, FRAME_SAMPLES, axis=1).astype(np.float32, copy=False) * _WINDOW
    blocks = np.zeros((pieces.shape[0] + 1, HOP_SAMPLES), np.float32)
    blocks[:-1] += pieces[:, :HOP_SAMPLES]
    blocks[1:] += pieces[:, HOP_SAMPLES:]
    return blocks.reshape(-1)[HOP_SAMPLES : HOP_SAMPLES + samples]


def delayed(spectra: C64) -> C64:
    """The same, each frame in the place of the one after it."""
    late = np.empty_like(spectra)
    late[0] = 0
    late[1:] = spectra[:-1]
    return late


def power_of(spectra: C64) -> F32:
    """|x|², in the shape of x."""
    return np.square(spectra.real) + np.square(spectra.imag)
