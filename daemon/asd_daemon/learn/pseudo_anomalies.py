"""Normal windows changed as failing machines change: what views are chosen by where no anomaly was ever recorded.

The change is made to what is steady in the window, which noise can't be: its share of the sound is found from the least power of every
band over time (minimum statistics: Martin, IEEE Trans. Speech and Audio Processing 9(5), 2001). Changing the noise that a machine is
buried in would reward views that hear the noise. NumPy only; it knows no view and no score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from asd_daemon.waveform import SAMPLE_RATE_HZ

F32 = NDArray[np.float32]
TINY = 1e-9
FRAME_SAMPLES, HOP_SAMPLES = 512, 256
SMOOTHING_FRAMES = 5
STEADY_BIAS = 2.0  # the least of smoothed powers lies below their mean even where the sound is steady


def pseudo_anomalies(waveform: F32, rng: np.random.Generator) -> dict[str, F32]:
    """A normal window (N,) at 16 kHz after each kind of change: kind → (N,), how strong is drawn from `rng`."""
    steady = steady_part(waveform)
    rest = waveform - steady
    changed = {kind: rest + change(steady, rng) for kind, change in CHANGES.items()}
    changed["muffled"] = _muffled(waveform, rng)  # blows are what is not steady
    return {kind: np.asarray(window, np.float32) for kind, window in changed.items()}


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
