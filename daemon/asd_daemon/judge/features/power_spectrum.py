"""Frames of sound → power spectrum, rounded as Kaldi rounds it.

Owns the steps between a waveform and the mel filters: framing, DC, pre-emphasis, window, FFT, power. It knows no mel and no logarithm.

Why an FFT of our own: where a frame holds a loud tone, its far bins hold little but rounding noise of the single-precision FFT, and
the logarithm shows that noise. A more exact FFT differs there from Kaldi's: by 0.05 on the log scale for a full-scale chirp, by more
than 1e-3 for one recording in ten. So every addition here happens in the order of the reference (kaldi-native-fbank 1.22.5 for x86-64,
whose FFT is KISS FFT's radix-4 decimation in time of 256 complex points): the spectra agree to the bit. NumPy rounds after each
operation on every processor, so the features of one recording do not depend on the board either.

Frames lie along the last axis, so that one NumPy call does one step of the algorithm for a whole block of frames. The calls and
their operands are listed once (`_Workspace.steps`) and replayed for each block; nothing is allocated while a block is analysed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

FRAME_SAMPLES = 400  # 25 ms at 16 kHz
HOP_SAMPLES = 160  # 10 ms
FFT_SAMPLES = 512  # next power of two
POINTS = FFT_SAMPLES // 2  # even and odd samples form the real and imaginary parts of 256 complex points
RADIX = 4  # 4⁴ = 256: four stages
QUARTER = POINTS // RADIX
PREEMPHASIS = 0.97
POWER_SCALE = (
    4.0  # the halving in the split of even and odd samples is left to the mel filters: power comes out times four
)

BLOCK_FRAMES = (
    112  # nine blocks hold the 998 frames of a window; rows of 448 bytes keep AVX-512 stores inside cache lines
)
CACHE_LINE_BYTES = 64

F32 = NDArray[np.float32]
Step = tuple[np.ufunc, Any, Any, F32]  # out = ufunc(a, b)

add, subtract, multiply = np.add, np.subtract, np.multiply


def frame_count(samples: int) -> int:
    """Whole frames in a waveform of that many samples; what is left at the end is dropped (Kaldi's snip_edges)."""
    return 1 + (samples - FRAME_SAMPLES) // HOP_SAMPLES


def power_spectra(waveform: F32, offset: np.float32) -> Iterator[tuple[slice, F32]]:
    """Power spectra of all frames of a waveform, block by block.

    Args:
        waveform: float32, shape (N,) with N ≥ 400 samples.
        offset: subtracted from every sample first.

    Yields:
        The frames of the block, as a slice, and their power float32 (255, frames) times `POWER_SCALE` for FFT bins 1 to 255: no mel
        band reaches DC or Nyquist. The array is overwritten by the next block.
    """
    frames = frame_count(waveform.shape[0])
    with _workspace() as work:
        for first in range(0, frames, BLOCK_FRAMES):
            work.load(waveform[first * HOP_SAMPLES :], offset)
            for ufunc, a, b, out in work.steps:
                ufunc(a, b, out)
            count = min(BLOCK_FRAMES, frames - first)
            yield slice(first, first + count), work.power[:, :count]


class _Workspace:
    """The arrays of one block of frames, and the list of steps that takes `frames` and `mean` to `power`.

    Buffers serve several steps in turn: what fits into the second-level cache is worked on twice as fast.
    """

    def __init__(self) -> None:
        self.hops = _aligned(HOP_SAMPLES, BLOCK_FRAMES + 2)  # a frame is 2.5 hops long
        self.frames = _aligned(FRAME_SAMPLES, BLOCK_FRAMES)
        self.mean = _aligned(BLOCK_FRAMES)
        self.power = _aligned(POINTS - 1, BLOCK_FRAMES)  # row k - 1: FFT bin k
        self._ping = _aligned(2 * POINTS, BLOCK_FRAMES)
        self._pong = _aligned(2 * POINTS, BLOCK_FRAMES)
        self._products = _aligned(3, 2, QUARTER * BLOCK_FRAMES)
        self._difference = _aligned(2, QUARTER * BLOCK_FRAMES)
        self._sum = _aligned(2, QUARTER * BLOCK_FRAMES)
        self._points = self._pong.reshape(2, POINTS, BLOCK_FRAMES)  # before and after the FFT, real and imaginary
        self.steps = self._windowing() + self._fft() + self._power()

    def load(self, waveform: F32, offset: np.float32) -> None:
        """Fill `frames` and `mean` from the beginning of a waveform; zeros after its end."""
        chunk = waveform[: self.hops.size]
        in_time = self._ping.reshape(-1)[: self.hops.size]
        subtract(chunk, offset, in_time[: chunk.shape[0]])
        in_time[chunk.shape[0] :] = 0
        self.hops[...] = in_time.reshape(-1, HOP_SAMPLES).T
        for part in range(0, FRAME_SAMPLES, HOP_SAMPLES):  # sample n of frame t is hops[n % 160, t + n // 160]
            rows = self.frames[part : part + HOP_SAMPLES]
            shift = part // HOP_SAMPLES
            rows[...] = self.hops[: rows.shape[0], shift : shift + BLOCK_FRAMES]
        np.add.reduce(self.frames, axis=0, out=self.mean)  # row after row, in the order of time as in Kaldi
        self.mean /= np.float32(FRAME_SAMPLES)
        self._points[:, FRAME_SAMPLES // 2 :] = 0

    def _windowing(self) -> list[Step]:
        """DC, pre-emphasis and window; even samples of a frame become the real, odd ones the imaginary parts of `_points`."""
        frames, weighted = self.frames, self._ping[:FRAME_SAMPLES]
        window = _aligned_copy(np.repeat(_hann()[:, None], BLOCK_FRAMES, axis=1))
        coefficient = np.float32(PREEMPHASIS)
        used = FRAME_SAMPLES // 2
        return [
            (subtract, frames, self.mean, frames),
            (multiply, frames[:-1], coefficient, weighted[1:]),
            (multiply, frames[0], coefficient, weighted[0]),  # Kaldi repeats the first sample to its left
            (subtract, frames, weighted, frames),
            (multiply, frames[0::2], window[0::2], self._points[0, :used]),
            (multiply, frames[1::2], window[1::2], self._points[1, :used]),
        ]

    def _fft(self) -> list[Step]:
        """Complex FFT of `_points` in place, by way of `_ping`."""
        ping, pong = (buffer.reshape(RADIX, 2, -1) for buffer in (self._ping, self._pong))
        points = self._points.reshape(2, RADIX, -1).transpose(1, 0, 2)  # (4, 2, 64·frames)
        last = self._points.reshape(2, RADIX, QUARTER, BLOCK_FRAMES).transpose(1, 0, 2, 3)
        return [
            *self._first_stage(points, _stage_output(ping, 1)),
            *self._stage(ping, _stage_output(pong, 4), 4),
            *self._stage(pong, _stage_output(ping, 16), 16),
            *self._stage(ping, last, 64),
        ]

    def _first_stage(self, x: F32, out: F32) -> list[Step]:
        """Radix-4 butterflies without twiddle factors; x (4, 2, 64·frames), out as `_stage_output` gives it."""
        difference, total, shape = self._difference, self._sum, out.shape[1:]
        x1, x3, rotated, scratch = x[1], x[3], self._products[0, 0], self._products[0, 1]
        return [
            (subtract, x[0], x[2], difference),
            (add, x[0], x[2], x[0]),
            (subtract, x1[0], x3[0], rotated),
            (add, x1, x3, total),
            *_even_outputs(x[0], total, out),
            (add, difference[0], x1[1], scratch),
            (subtract, scratch.reshape(shape[1:]), x3[1].reshape(shape[1:]), out[1, 0]),
            (add, difference[0], x3[1], scratch),
            (subtract, scratch.reshape(shape[1:]), x1[1].reshape(shape[1:]), out[3, 0]),
            *_odd_imaginary_outputs(difference[1], rotated, out),
        ]

    def _stage(self, x: F32, out: F32, done: int) -> list[Step]:
        """Radix-4 butterflies with twiddle factors; x (4, 2, 64·frames) is consumed, `done` points are transformed already.

        The reference adds the two products of a real part to a sum one by one, not their difference; the order below is its order.
        """
        cosines, sines = _twiddles(done)
        x0, by_cosine, by_sine = x[0], x[1:], self._products
        real1, (imag1, imag2, imag3) = by_cosine[0, 0], by_sine[:, 0]
        rr2, ii2, rr3, ii3 = by_cosine[1, 0], by_sine[1, 1], by_cosine[2, 0], by_sine[2, 1]
        difference, total, shape = self._difference, self._sum, out.shape[2:]
        return [
            (multiply, x[1:], sines, by_sine),
            (multiply, x[1:], cosines, by_cosine),
            (subtract, real1, by_sine[0, 1], real1),
            (add, by_sine[:, 0], by_cosine[:, 1], by_sine[:, 0]),
            (add, x0[0], ii2, difference[0]),
            (subtract, difference[0], rr2, difference[0]),
            (subtract, x0[1], imag2, difference[1]),
            (add, x0[0], rr2, x0[0]),
            (subtract, x0[0], ii2, x0[0]),
            (add, x0[1], imag2, x0[1]),
            (subtract, real1, ii3, total[0]),
            (add, total[0], rr3, total[0]),
            (add, imag3, imag1, total[1]),
            (subtract, real1, rr3, real1),
            (add, real1, ii3, real1),
            *_even_outputs(x0, total, out),
            (add, difference[0], imag1, rr2),
            (subtract, rr2.reshape(shape), imag3.reshape(shape), out[1, 0]),
            (add, difference[0], imag3, difference[0]),
            (subtract, difference[0].reshape(shape), imag1.reshape(shape), out[3, 0]),
            *_odd_imaginary_outputs(difference[1], real1, out),
        ]

    def _power(self) -> list[Step]:
        """Split `_points` into the FFT of the real frame, bins k and 256 - k together, and square."""
        real, imag = self._points
        up, down = slice(1, POINTS // 2 + 1), slice(POINTS - 1, POINTS // 2 - 1, -1)  # k = 1 … 128 and 256 - k
        angle = -np.pi * (np.arange(1, POINTS // 2 + 1) / POINTS + 0.5)
        cosine, sine = (
            _aligned_copy(np.repeat(v[:, None], BLOCK_FRAMES, axis=1)) for v in (np.cos(angle), np.sin(angle))
        )
        even_r, even_i, odd_r, odd_i = self._ping.reshape(4, POINTS // 2, BLOCK_FRAMES)
        rr, ii, turned_i = self._products.reshape(3, POINTS // 2, BLOCK_FRAMES)
        mirror = self._sum.reshape(POINTS // 2, BLOCK_FRAMES)
        low, high = self.power[: POINTS // 2], self.power[POINTS - 2 : POINTS // 2 - 2 : -1]
        return [
            (add, real[up], real[down], even_r),
            (subtract, imag[up], imag[down], even_i),
            (subtract, real[up], real[down], odd_r),
            (add, imag[up], imag[down], odd_i),
            (multiply, odd_r, cosine, rr),
            (multiply, odd_i, sine, ii),
            (multiply, odd_r, sine, odd_r),
            (multiply, odd_i, cosine, odd_i),
            (add, odd_r, odd_i, turned_i),
            (add, even_r, ii, mirror),
            (subtract, mirror, rr, mirror),
            (multiply, mirror, mirror, mirror),
            (subtract, turned_i, even_i, odd_r),
            (multiply, odd_r, odd_r, odd_r),
            (add, even_r, rr, even_r),
            (subtract, even_r, ii, even_r),
            (multiply, even_r, even_r, even_r),
            (add, even_i, turned_i, even_i),
            (multiply, even_i, even_i, even_i),
            (add, even_r, even_i, low),
            (add, mirror, odd_r, high),  # bin 128 is its own mirror; the reference keeps this one
        ]


def _stage_output(x: F32, done: int) -> NDArray[Any]:
    """Where a stage writes its four outputs, seen so that x (4, 2, 64·frames) is the next stage's input.

    Axes: output, real | imaginary, points done so far, next stage's input, points still to do · frames.
    """
    rest = QUARTER // done // RADIX * BLOCK_FRAMES
    return x.reshape(RADIX, 2, RADIX, done, rest).transpose(2, 1, 3, 0, 4)


def _even_outputs(first: F32, total: F32, out: F32) -> list[Step]:
    shape = out.shape[1:]
    first, total = first.reshape(shape), total.reshape(shape)
    return [(add, first, total, out[0]), (subtract, first, total, out[2])]


def _odd_imaginary_outputs(difference: F32, rotated: F32, out: F32) -> list[Step]:
    shape = out.shape[2:]
    difference, rotated = difference.reshape(shape), rotated.reshape(shape)
    return [(subtract, difference, rotated, out[1, 1]), (add, difference, rotated, out[3, 1])]


def _twiddles(done: int) -> tuple[F32, F32]:
    """Cosines and sines of a stage, (3, 1, 64·frames) each, rounded once from double precision."""
    turns = np.outer([1, 2, 3], np.arange(done)) / (RADIX * done)  # (3, done)
    table = [
        np.repeat(f(-2 * np.pi * turns), QUARTER // done * BLOCK_FRAMES, axis=1)[:, None] for f in (np.cos, np.sin)
    ]
    return _aligned_copy(table[0]), _aligned_copy(table[1])


def _hann() -> NDArray[np.float64]:
    """Symmetric Hann window, Kaldi's "hanning"."""
    angle = 2 * np.pi / (FRAME_SAMPLES - 1) * np.arange(FRAME_SAMPLES, dtype=np.float64)
    window: NDArray[np.float64] = 0.5 - 0.5 * np.cos(angle)
    return window


def _aligned(*shape: int) -> F32:
    """An empty array that begins at a cache line: stores that straddle two lines cost twice."""
    size, line = int(np.prod(shape)), CACHE_LINE_BYTES // 4
    memory = np.empty(size + line, np.float32)
    start = -(memory.ctypes.data // 4) % line
    return memory[start : start + size].reshape(shape)


def _aligned_copy(values: NDArray[np.float64]) -> F32:
    copy = _aligned(*values.shape)
    copy[...] = values
    return copy


_idle: list[_Workspace] = []  # append and pop are atomic


@contextlib.contextmanager
def _workspace() -> Iterator[_Workspace]:
    """Arrays that no other thread uses meanwhile (2 MB): there are as many as clips were ever analysed at once, however many threads."""
    try:
        work = _idle.pop()
    except IndexError:
        work = _Workspace()
    try:
        yield work
    finally:
        _idle.append(work)
