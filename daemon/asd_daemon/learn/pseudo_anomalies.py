"""Normal windows changed as failing machines change: what separation is tried by where no anomaly was ever recorded.

The change is made to what is steady in the window, which noise can't be. Changing the noise that a machine is buried in would reward what
hears the noise. NumPy only; it knows no view and no score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.features.steady_part import steady_part
from asd_daemon.waveform import SAMPLE_RATE_HZ

F32 = NDArray[np.float32]
TINY = 1e-9


def pseudo_anomalies(waveform: F32, rng: np.random.Generator) -> dict[str, F32]:
    """A normal window (N,) at 16 kHz after each kind of change: kind → (N,), how strong is drawn from `rng`."""
    steady = steady_part(waveform)
    rest = waveform - steady
    changed = {kind: rest + change(steady, rng) for kind, change in CHANGES.items()}
    changed["muffled"] = _muffled(waveform, rng)  # blows are what is not steady
    return {kind: np.asarray(window, np.float32) for kind, window in changed.items()}


def _coloured(steady: F32, rng: np.random.Generator) -> F32:
    """A resonance more or less: 2 to 8 dB either way over half an octave, somewhere from 200 Hz to 6 kHz."""
    spectrum = np.fft.rfft(steady)
    hz = np.fft.rfftfreq(steady.shape[0], 1 / SAMPLE_RATE_HZ)
    octaves = np.log2(np.maximum(hz, 1) / (200 * 30 ** rng.random()))
    gain_db = rng.uniform(2, 8) * rng.choice([-1, 1]) * np.exp(-0.5 * (octaves / 0.25) ** 2)
    return np.asarray(np.fft.irfft(spectrum * 10 ** (gain_db / 20), steady.shape[0]), np.float32)


def _detuned(steady: F32, rng: np.random.Generator) -> F32:
    """Another speed: half a percent to 4 % faster or slower."""
    n = steady.shape[0]
    at = np.arange(n) * (1 + 0.005 * 8 ** rng.random() * rng.choice([-1, 1]))
    return np.asarray(np.interp(at % (n - 1), np.arange(n), steady), np.float32)


def _wobbling(steady: F32, rng: np.random.Generator) -> F32:
    """Out of balance: level up and down by a tenth to a half, 2 to 15 times a second."""
    seconds = np.arange(steady.shape[0]) / SAMPLE_RATE_HZ
    turns = rng.uniform(2, 15) * seconds + rng.random()
    return np.asarray(steady * (1 + 0.1 * 5 ** rng.random() * np.sin(2 * np.pi * turns)), np.float32)


def _knocking(steady: F32, rng: np.random.Generator) -> F32:
    """Short ringing blows, 1 to 6 a second, each up to twice as loud as the steady sound's loudest tenth."""
    n = steady.shape[0]
    seconds = np.arange(n) / SAMPLE_RATE_HZ
    phase = (seconds * rng.uniform(1, 6) + rng.random()) % 1
    blow = np.exp(-phase * 30) * np.sin(2 * np.pi * rng.uniform(500, 5000) * seconds)
    return np.asarray(steady + 0.5 * 4 ** rng.random() * np.percentile(np.abs(steady), 90) * blow, np.float32)


def _muffled(waveform: F32, rng: np.random.Generator) -> F32:
    """Blows that fail: 20 ms pieces louder than most are brought down to 1.2 to 2 times the median piece."""
    piece = SAMPLE_RATE_HZ // 50
    loudness = np.sqrt((waveform[: waveform.shape[0] // piece * piece].reshape(-1, piece) ** 2).mean(axis=1)) + TINY
    gain = np.minimum(1, rng.uniform(1.2, 2) * np.median(loudness) / loudness)
    centres = (np.arange(gain.shape[0]) + 0.5) * piece
    return np.asarray(waveform * np.interp(np.arange(waveform.shape[0]), centres, gain), np.float32)


CHANGES: Mapping[str, Callable[[F32, np.random.Generator], F32]] = {
    "coloured": _coloured,
    "detuned": _detuned,
    "wobbling": _wobbling,
    "knocking": _knocking,
}
"""Changes of the steady part, by name."""
KINDS = (*CHANGES, "muffled")
