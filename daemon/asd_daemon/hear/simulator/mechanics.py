"""The physical building blocks of simulated sound: shafts, harmonics, impacts, resonances, noise.

Everything runs in chunks of one second and carries its state (phase, filter tail, slow drift) from chunk to chunk, so that a sound
can go on for hours without a seam. This module knows no machine and no file. NumPy only: filters are FFT multiplications.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from asd_daemon.waveform import SAMPLE_RATE_HZ

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

CHUNK_SAMPLES = SAMPLE_RATE_HZ  # 1 s
FFT_SAMPLES = 20_480  # 2^12 · 5: a chunk and the longest tail
MAX_TAPS = FFT_SAMPLES - CHUNK_SAMPLES + 1  # 4 481 taps = 280 ms
CONTROLS = 50  # points of slow drift a chunk: one every 20 ms
_HOLD = CHUNK_SAMPLES // CONTROLS
_FADE_HZ = 400.0  # harmonics within this of half the sampling rate are fading out
_RAMP: F64 = np.arange(1, _HOLD + 1) / _HOLD


class SlowDrift:
    """Slow random drift (Ornstein–Uhlenbeck) of zero mean and unit variance, for speeds and levels."""

    def __init__(self, rng: np.random.Generator, constant_s: float) -> None:
        self._rng = rng
        self._keep = float(np.exp(-_HOLD / SAMPLE_RATE_HZ / constant_s))
        self._kick = float(np.sqrt(1 - self._keep**2))
        self._value = float(rng.standard_normal())

    def chunk(self) -> F64:
        """The next second, shape (CHUNK_SAMPLES,), straight lines between points 20 ms apart."""
        points = np.empty(CONTROLS + 1)
        points[0] = value = self._value
        for i, kick in enumerate(self._rng.standard_normal(CONTROLS), start=1):
            value = points[i] = self._keep * value + self._kick * float(kick)
        self._value = float(value)
        return (points[:-1, None] + np.diff(points)[:, None] * _RAMP).reshape(-1)


class Shaft:
    """Something that turns: integrates a rate into revolutions. float64 keeps phase exact to 1e-6 for months."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._revolutions = float(rng.random())

    def chunk(self, rate_hz: F64) -> F64:
        """Revolutions since the start after every sample of the next chunk, shape (CHUNK_SAMPLES,)."""
        revolutions = self._revolutions + np.cumsum(rate_hz) / SAMPLE_RATE_HZ
        self._revolutions = float(revolutions[-1])
        return revolutions


class Impacts:
    """Moments at which a count of events passes the next whole number, each interval off by a random slip."""

    def __init__(self, rng: np.random.Generator, slip: float = 0.0) -> None:
        self._rng = rng
        self._slip = slip
        self._next: float | None = None

    def chunk(self, count: F64) -> F64:
        """Positions in samples (fractional, in [0, CHUNK_SAMPLES)) of this chunk's events; count rises from sample to sample."""
        if self._next is None or self._next < count[0] - 2:  # first use, or idle while the shaft turned on
            self._next = float(np.floor(count[0]) + 1)
        room = int(count[-1] - self._next) + 1
        if count[-1] <= self._next:
            return np.empty(0)
        steps = np.maximum(0.3, 1 + self._slip * self._rng.standard_normal(2 * room + 4))
        events = self._next + np.concatenate(([0.0], np.cumsum(steps)))
        inside = events[events <= count[-1]]
        self._next = float(events[inside.shape[0]])
        positions: F64 = np.interp(inside, count, np.arange(CHUNK_SAMPLES, dtype=np.float64))
        return positions


def random_moments(rng: np.random.Generator, rate_hz: float) -> F64:
    """Positions in samples of a chunk's events that come by chance (Poisson)."""
    chunk_s = CHUNK_SAMPLES / SAMPLE_RATE_HZ
    return np.sort(rng.random(int(rng.poisson(rate_hz * chunk_s)))) * (CHUNK_SAMPLES - 1)


def impulses(positions: F64, amplitudes: F64 | F32 | float) -> F32:
    """A chunk of silence with impulses at fractional positions (shared by the two samples around each)."""
    whole = positions.astype(np.int64)
    part = positions - whole
    strength = np.broadcast_to(np.asarray(amplitudes, dtype=np.float64), positions.shape)
    train = np.bincount(whole, strength * (1 - part), minlength=CHUNK_SAMPLES + 1)
    train += np.bincount(whole + 1, strength * part, minlength=CHUNK_SAMPLES + 1)
    return train[:CHUNK_SAMPLES].astype(np.float32)


def harmonics(revolutions: F64, coefficients: NDArray[np.complex64]) -> F32:
    """Σ Re(c_k · e^{2πi·k·rev}), k = 1…K, by Horner's rule: one complex product a harmonic.

    Harmonics fade out towards half the sampling rate, as before a converter, instead of folding back.

    Args:
        revolutions: shape (CHUNK_SAMPLES,), of any size.
        coefficients: amplitude and phase of each harmonic, shape (K,).
    """
    rate_hz = float(revolutions[-1] - revolutions[0]) * SAMPLE_RATE_HZ / CHUNK_SAMPLES
    room_hz = SAMPLE_RATE_HZ / 2 - rate_hz * np.arange(1, coefficients.shape[0] + 1)
    coefficients = coefficients * np.clip(room_hz / _FADE_HZ, 0, 1).astype(np.float32)
    turn = np.exp(2j * np.pi * (revolutions - np.floor(revolutions))).astype(np.complex64)
    total = np.full(turn.shape, coefficients[-1], dtype=np.complex64)
    for coefficient in coefficients[-2::-1]:
        total *= turn
        total += coefficient
    total *= turn
    return np.ascontiguousarray(total.real)


def decaying_orders(
    rng: np.random.Generator, orders: int, slope_db: float, spread_db: float = 3.0
) -> NDArray[np.complex64]:
    """Coefficients for `harmonics`: orders that fall by slope_db each, scattered, random phases, unit RMS together."""
    levels_db = -slope_db * np.arange(orders) + spread_db * rng.standard_normal(orders)
    amplitudes = 10 ** (levels_db / 20)
    amplitudes /= np.sqrt((amplitudes**2).sum() / 2)
    phases = np.exp(2j * np.pi * rng.random(orders))
    return np.asarray(amplitudes * phases, dtype=np.complex64)


def pulse(revolutions: F64, width: float) -> F32:
    """1 once a revolution, near 0 elsewhere (von Mises); width is the fraction of a turn it stays above half."""
    sharpness = np.log(2) / (1 - np.cos(np.pi * width))
    cosine = np.cos(2 * np.pi * (revolutions - np.floor(revolutions))).astype(np.float32)
    return np.asarray(np.exp(np.float32(sharpness) * (cosine - 1)), dtype=np.float32)


def gain(level_db: float) -> np.float32:
    """Decibels → factor of amplitude."""
    return np.float32(10 ** (level_db / 20))


def unit_energy(taps: F64) -> F32:
    """Taps scaled so that white noise of unit RMS leaves them with unit RMS."""
    return np.asarray(taps / np.sqrt((taps**2).sum()), dtype=np.float32)


def modes(
    frequencies_hz: Sequence[float] | F64, decays_s: Sequence[float] | F64, levels_db: Sequence[float] | F64
) -> F32:
    """A struck body: decaying sinusoids, as taps of unit energy (at most 280 ms)."""
    length = int(min(MAX_TAPS, max(64, 7 * max(decays_s) * SAMPLE_RATE_HZ)))
    time_s = np.arange(length)[:, None] / SAMPLE_RATE_HZ
    frequency, decay, level = (np.asarray(values, dtype=np.float64) for values in (frequencies_hz, decays_s, levels_db))
    ringing = 10 ** (level / 20) * np.exp(-time_s / decay) * np.sin(2 * np.pi * frequency * time_s)
    return unit_energy(ringing.sum(axis=1))


def spectrum(points: Sequence[tuple[float, float]], taps: int = 1024) -> F32:
    """Linear-phase taps of unit energy whose response runs through (Hz, dB) points, straight in log frequency."""
    frequency_hz, level_db = np.asarray(points, dtype=np.float64).T
    grid_hz = np.maximum(1.0, np.fft.rfftfreq(taps, 1 / SAMPLE_RATE_HZ))
    wanted = 10 ** (np.interp(np.log(grid_hz), np.log(frequency_hz), level_db) / 20)
    return unit_energy(np.roll(np.fft.irfft(wanted, taps), taps // 2) * np.hanning(taps))


def path(rng: np.random.Generator, tilt_db: float = 0.0, echoes: int = 5) -> F32:
    """From machine to microphone: direct sound, early echoes within 15 ms, and a tilt over the band 100 Hz–8 kHz."""
    taps = np.zeros(256)
    taps[0] = 1.0
    delays = rng.integers(8, 240, echoes)
    np.add.at(taps, delays, rng.choice([-1.0, 1.0], echoes) * 10 ** (-rng.uniform(6, 16, echoes) / 20))
    if tilt_db:
        taps = np.convolve(taps, spectrum([(100, -tilt_db / 2), (8000, tilt_db / 2)], 256))
    return unit_energy(taps)


class Filter:
    """Convolution that goes on from chunk to chunk (overlap-add)."""

    def __init__(self, taps: F32) -> None:
        if taps.shape[0] > MAX_TAPS:
            raise ValueError(f"{taps.shape[0]} taps do not fit behind a chunk: at most {MAX_TAPS}")
        self._response = np.fft.rfft(taps, FFT_SAMPLES)
        self._tail: F32 = np.zeros(FFT_SAMPLES - CHUNK_SAMPLES, dtype=np.float32)

    def __call__(self, chunk: F32) -> F32:
        """The chunk, filtered, with what still rings from before."""
        whole = np.fft.irfft(np.fft.rfft(chunk, FFT_SAMPLES) * self._response, FFT_SAMPLES).astype(np.float32)
        whole[: self._tail.shape[0]] += self._tail
        self._tail = whole[CHUNK_SAMPLES:].copy()
        return whole[:CHUNK_SAMPLES]


class ColouredNoise:
    """Coloured noise of unit RMS without end."""

    def __init__(self, rng: np.random.Generator, taps: F32) -> None:
        self._rng = rng
        self._filter = Filter(taps)
        self._filter(self._rng.standard_normal(CHUNK_SAMPLES, dtype=np.float32))  # full strength from the first sample

    def chunk(self) -> F32:
        """The next second."""
        return self._filter(self._rng.standard_normal(CHUNK_SAMPLES, dtype=np.float32))


def limit(samples: F32) -> F32:
    """Bend peaks above 0.7 so that nothing reaches 1, as a microphone's amplifier does."""
    size = np.abs(samples)
    if float(size.max(initial=0.0)) <= 0.7:
        return samples
    bent = 0.7 + 0.29 * np.tanh((size - 0.7) / 0.29)
    return np.asarray(np.where(size > 0.7, np.sign(samples) * bent, samples), dtype=np.float32)
