"""Sound as it comes, for who looks at a machine just now: its level and the columns of a spectrogram.

The hearing threads hand over blocks and never wait: of a machine that nobody looks at nothing is taken, and what is not fetched in time
is dropped.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asd_daemon.waveform import SAMPLE_RATE_HZ

F32 = NDArray[np.float32]
BANDS = 64  # rows of a spectrogram, equally wide on the mel scale
COLUMN_SAMPLES = 1024  # 64 ms, 15.6 columns a second
LOW_HZ, HIGH_HZ = 40.0, 8000.0
FLOOR_DB, CEILING_DB = -110.0, -10.0
"""Band levels that are black and white, in dB of a full-scale sine."""
_MOST_WAITING_SAMPLES = 60 * SAMPLE_RATE_HZ  # 3.8 MB, all machines together


@dataclass(frozen=True)
class SoundPiece:
    """Sound of one machine since the last time."""

    machine: str
    samples: F32
    """float32 (N,) in [-1, 1] at 16 kHz."""
    far: F32 | None = None
    """What the far microphone heard meanwhile, float32 (N,); None where there is none, or it is lost."""


class LiveSound:
    """What the hearing threads leave for whoever looks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: frozenset[str] = frozenset()
        self._pieces: deque[SoundPiece] = deque()
        self._waiting_samples = 0
        self._heard_s: dict[str, float] = {}

    def want(self, machines: Collection[str]) -> None:
        """Take the sound of these machines from now on, and of no other."""
        with self._lock:
            self._wanted = frozenset(machines)

    def hear(self, machine: str, samples: F32, far: F32 | None = None) -> None:
        """A block has come, float32 (N,), with what the far microphone heard meanwhile; from any thread, and quick."""
        self._heard_s[machine] = time.monotonic()
        if machine not in self._wanted:
            return
        with self._lock:
            if self._waiting_samples + len(samples) <= _MOST_WAITING_SAMPLES:
                self._pieces.append(SoundPiece(machine, samples, far))
                self._waiting_samples += len(samples)

    def heard_ago_s(self, machine: str) -> float | None:
        """How long ago the last block of a machine came; None where none has."""
        heard_s = self._heard_s.get(machine)
        return None if heard_s is None else time.monotonic() - heard_s

    def take(self) -> list[SoundPiece]:
        """All that waits."""
        with self._lock:
            pieces, self._pieces, self._waiting_samples = list(self._pieces), deque(), 0
        return pieces


class SpectrogramColumns:
    """Cuts one machine's sound into columns of a spectrogram; from one thread."""

    def __init__(self) -> None:
        self._rest = np.empty(0, np.float32)

    def feed(self, samples: F32) -> NDArray[np.uint8]:
        """Columns, uint8 (C, BANDS), that more sound completes: 0 at FLOOR_DB and below, 255 at CEILING_DB and above."""
        sound = np.concatenate((self._rest, samples))
        count = len(sound) // COLUMN_SAMPLES
        self._rest = sound[count * COLUMN_SAMPLES :]
        return columns(sound[: count * COLUMN_SAMPLES].reshape(count, COLUMN_SAMPLES))


def columns(frames: F32) -> NDArray[np.uint8]:
    """Columns, uint8 (C, BANDS), of frames, float32 (C, COLUMN_SAMPLES)."""
    spectra = np.fft.rfft(frames * _WINDOW, axis=1)  # (C, 513)
    power = np.square(np.abs(spectra) * (2 / _WINDOW.sum()))
    bins = np.diff(np.append(_FIRST_BINS, power.shape[1]))  # (BANDS,)
    db = 10 * np.log10(np.add.reduceat(power, _FIRST_BINS, axis=1) / bins + 1e-13)  # (C, BANDS)
    scaled = (db - FLOOR_DB) / (CEILING_DB - FLOOR_DB) * 255
    return np.asarray(np.clip(np.nan_to_num(scaled), 0, 255), np.uint8)


def _first_bins() -> NDArray[np.intp]:
    """The first bin of each band; the last band ends at Nyquist."""
    low, high = (1127 * np.log1p(hz / 700) for hz in (LOW_HZ, HIGH_HZ))
    edges_hz = 700 * np.expm1(np.linspace(low, high, BANDS + 1)[:-1] / 1127)
    bins = np.round(edges_hz * COLUMN_SAMPLES / SAMPLE_RATE_HZ).astype(np.intp)
    for band in range(1, BANDS):  # at low frequencies a band is narrower than a bin: each gets one of its own
        bins[band] = max(bins[band], bins[band - 1] + 1)
    return np.asarray(bins, np.intp)


_WINDOW = np.hanning(COLUMN_SAMPLES).astype(np.float32)
_FIRST_BINS = _first_bins()
