"""Feeds the virtual microphone in real time, as air would: sound that is played, and soft noise in between.

It never blocks on a reader that is missing or stalled; what nobody takes is gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rig.waiting import PATIENT_S

I16 = NDArray[np.int16]
_STEP_S = 0.05


class Feeder:
    """`with Feeder(fifo, rate) as feeder: feeder.play(samples)`."""

    def __init__(self, fifo: Path, rate_hz: int = 16_000, *, seed: int = 0, idle_peak: int = 40) -> None:
        self._fifo, self._rate_hz = fifo, rate_hz
        self._step = round(rate_hz * _STEP_S)
        idle = np.random.default_rng(seed).integers(-idle_peak, idle_peak, 10 * rate_hz)
        self._idle = idle.astype("<i2")
        self._lock = threading.Lock()
        self._queue: I16 = np.empty(0, np.int16)
        self._played = threading.Event()
        self._stop = threading.Event()
        self._starved = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self._fd: int | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(PATIENT_S)
        self._close()

    def play(self, samples: I16) -> None:
        """Put sound after what is being played."""
        with self._lock:
            self._queue = np.concatenate([self._queue, samples.astype("<i2")])
            self._played.clear()

    def interrupt(self, samples: I16) -> None:
        """Play this at once, instead of what is left."""
        with self._lock:
            self._queue = samples.astype("<i2")
            self._played.clear()

    def wait_played(self) -> None:
        """Wait until all that was put in is out."""
        assert self._played.wait(PATIENT_S), "the feeder is stuck"

    def starve(self, starved: bool = True) -> None:
        """Deliver nothing, as a microphone that hangs; False to go on."""
        if starved:
            self._starved.set()
        else:
            self._starved.clear()

    def _next(self, count: int) -> bytes:
        with self._lock:
            block, self._queue = self._queue[:count], self._queue[count:]
            if not self._queue.shape[0]:
                self._played.set()
        missing = count - block.shape[0]
        return np.concatenate([block, np.take(self._idle, np.arange(missing), mode="wrap")]).astype("<i2").tobytes()

    def _run(self) -> None:
        start_s, fed = time.monotonic(), 0
        while not self._stop.is_set():
            if not self._starved.is_set():
                self._write(self._next(self._step))
            fed += self._step
            self._stop.wait(max(0.0, start_s + fed / self._rate_hz - time.monotonic()))

    def _write(self, data: bytes) -> None:
        try:
            if self._fd is None:
                self._fd = os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK)
            os.write(self._fd, data)
        except OSError as e:  # ENOENT, ENXIO: unplugged; EPIPE: the reader died; EAGAIN: nobody records
            if e.errno != errno.EAGAIN:
                self._close()

    def _close(self) -> None:
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = None


def as_s16(samples: NDArray[np.float32]) -> I16:
    """Float sound in [-1, 1] → 16 bit."""
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")
