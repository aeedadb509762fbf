"""A hall: how sound comes from a place in it to a microphone in it, directly and by way of its walls, also from something that moves.

Image sources of a box (Allen and Berkley, JASA 65(4), 1979), a few reflections deep. It knows no machine and no noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from asd_daemon.hear.simulator.mechanics import CHUNK_SAMPLES, F32, F64
from asd_daemon.waveform import SAMPLE_RATE_HZ

SOUND_M_S = 343.0
LEAST_DISTANCE_M = 0.1
_STEPS = 4  # of a second in which something that moves stands still, each faded into the next
_STEP_SAMPLES = CHUNK_SAMPLES // _STEPS
_TAPS = 4096  # 256 ms: 88 m of way
_FFT_SAMPLES = 8192  # a step and its tail
_SINC_TAPS = 16  # of the delay by a part of a sample

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Hall:
    """A box of walls."""

    size_m: Point = (24.0, 14.0, 7.0)
    reflection: float = 0.7
    """What of a wave's amplitude a wall throws back, 0 to below 1."""
    order: int = 3
    """How many walls a wave may meet on its way."""

    def impulse_response(self, source_m: Point, microphone_m: Point) -> F32:
        """From a place to a microphone: taps (4096,) at 16 kHz; sound at 1 m has amplitude 1, later echoes than 256 ms are left out."""
        flips, shifts, strength = self._images
        places = flips * np.asarray(source_m) + shifts
        distance_m = np.maximum(LEAST_DISTANCE_M, np.linalg.norm(places - np.asarray(microphone_m), axis=1))
        delay = distance_m / SOUND_M_S * SAMPLE_RATE_HZ + _SINC_TAPS // 2
        heard = delay < _TAPS - _SINC_TAPS
        delay, amplitude = delay[heard], (strength / distance_m)[heard]
        whole = np.floor(delay).astype(np.int64)
        offsets = np.arange(_SINC_TAPS) - (_SINC_TAPS // 2 - 1)
        late = offsets - (delay - whole)[:, None]  # (I, 16)
        shape = np.sinc(late) * np.cos(np.pi * late / (_SINC_TAPS + 2)) ** 2
        taps = np.bincount((whole[:, None] + offsets).ravel(), (amplitude[:, None] * shape).ravel(), minlength=_TAPS)
        return taps.astype(np.float32)

    @cached_property
    def _images(self) -> tuple[F64, F64, F64]:
        """Of every image: the sign (I, 3) and the shift (I, 3) of the source's coordinates, and what its walls leave (I,)."""
        reach = range(-self.order, self.order + 1)
        found = []
        for number in product(reach, repeat=3):
            walls = sum(abs(n) for n in number)
            if walls <= self.order:
                flip = [1.0 if n % 2 == 0 else -1.0 for n in number]
                shift = [float(n + (n % 2)) * size for n, size in zip(number, self.size_m, strict=True)]
                found.append((flip, shift, self.reflection**walls))
        flips, shifts, strength = zip(*found, strict=True)
        return np.array(flips), np.array(shifts), np.array(strength)


@dataclass(frozen=True)
class Way:
    """Where something is: it goes from one place to another and back; or stays, where both are one."""

    start_m: Point
    end_m: Point
    speed_m_s: float = 0.0

    @classmethod
    def still(cls, at_m: Point) -> Way:
        """Something that stays where it is."""
        return cls(at_m, at_m)

    @property
    def moves(self) -> bool:
        """Whether it is ever somewhere else."""
        return self.speed_m_s > 0 and self.start_m != self.end_m

    def at(self, second: float) -> Point:
        """Where it is so many seconds after its start."""
        start, end = np.asarray(self.start_m), np.asarray(self.end_m)
        length_m = float(np.linalg.norm(end - start))
        if not self.moves:
            return self.start_m
        turn = self.speed_m_s * second / length_m % 2.0
        x, y, z = (float(value) for value in start + (end - start) * min(turn, 2.0 - turn))
        return x, y, z


class HallPath:
    """Sound on its way to a microphone, second by second, without seams: what moves is faded from place to place, four a second."""

    def __init__(self, hall: Hall, way: Way, microphone_m: Point, gain: float = 1.0) -> None:
        self._hall, self._way, self._microphone_m, self._gain = hall, way, microphone_m, gain
        self._tail: F32 = np.zeros(_FFT_SAMPLES - _STEP_SAMPLES, np.float32)
        self._step = 0
        self._response = self._response_at(0.0)
        rise = (np.arange(_STEP_SAMPLES, dtype=np.float32) + 0.5) / _STEP_SAMPLES
        self._fades = (1 - rise, rise)

    def __call__(self, chunk: F32) -> F32:
        """The next second, float32 (16 000,), as the microphone hears it."""
        return np.concatenate([self._stepped(step) for step in chunk.reshape(_STEPS, _STEP_SAMPLES)])

    def _stepped(self, samples: F32) -> F32:
        self._step += 1
        if self._way.moves:
            before, self._response = self._response, self._response_at(self._step / _STEPS)
            fall, rise = (np.fft.rfft(samples * fade, _FFT_SAMPLES) for fade in self._fades)
            spectrum = fall * before + rise * self._response
        else:
            spectrum = np.fft.rfft(samples, _FFT_SAMPLES) * self._response
        whole = np.fft.irfft(spectrum, _FFT_SAMPLES).astype(np.float32)
        whole[: self._tail.shape[0]] += self._tail
        self._tail = whole[_STEP_SAMPLES:].copy()
        return whole[:_STEP_SAMPLES]

    def _response_at(self, second: float) -> NDArray[np.complex128]:
        taps = self._hall.impulse_response(self._way.at(second), self._microphone_m)
        return self._gain * np.fft.rfft(taps, _FFT_SAMPLES)
