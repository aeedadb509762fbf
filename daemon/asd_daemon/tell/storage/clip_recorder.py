"""One machine's last seconds in memory, and the clips that are cut from them.

When an alert opens, what is held and the seconds after it become one clip; now and then a normal window becomes one too, so that people
have something to compare with.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.tell.storage.clips import NORMAL, SUFFIX, ClipStore
from asd_daemon.waveform import SAMPLE_RATE_HZ

F32 = NDArray[np.float32]
I16 = NDArray[np.int16]
_NORMAL_EVERY_S = 3600.0
_RENEWED_EVERY_S = 6 * 3600.0
"""Once all are there; one an hour for ever would be most of what a day writes to a card."""


@dataclass
class _UnfinishedClip:
    path: Path
    parts: list[I16]
    missing_samples: int


@dataclass(frozen=True)
class ClipSpan:
    """How much of the sound around the opening of an alert."""

    before_s: float
    """Before the end of the window that opened it; that window and those before it that counted are among it."""
    after_s: float


@dataclass
class ClipRecorder:
    """One machine's last seconds in memory, and the clip that is being made; from one thread."""

    store: ClipStore
    machine: str
    span: ClipSpan
    most_normal: int = 0
    """So many normal windows are kept."""
    clock_s: Callable[[], float] = time.monotonic
    _normal_s: float = float("-inf")
    _ring: I16 = field(init=False, repr=False)
    """One piece of memory for as long as the machine is listened to: many small ones would lie between what others free."""
    _end: int = 0
    """Where the next sample goes."""
    _held_samples: int = 0
    _unfinished: _UnfinishedClip | None = None
    _listed: tuple[int, int] = (-1, 0)
    """When the folder had changed last as its normal windows were counted, in Unix ns, and how many there were."""

    def __post_init__(self) -> None:
        """Make room for the last seconds."""
        self._ring = np.zeros(round(self.span.before_s * SAMPLE_RATE_HZ), np.int16)

    @property
    def held_s(self) -> float:
        """How many seconds a clip that begins now has before the present."""
        return self._held_samples / SAMPLE_RATE_HZ

    def keep_normal(self, samples: F32, at: datetime) -> None:
        """Write a normal window, float32 (N,) that ended at `at`, if none was for an hour, or for six where all are there."""
        since_s = self.clock_s() - self._normal_s
        if not self.most_normal or since_s < _NORMAL_EVERY_S:
            return
        folder = self.store.folder / self.machine
        if since_s < _RENEWED_EVERY_S and self._normal_clips(folder) >= self.most_normal:
            return
        self._normal_s = self.clock_s()
        path = folder / f"{_stamp(at)}{NORMAL}{SUFFIX}"
        self.store.put(path, _int16(samples), self.most_normal)

    def _normal_clips(self, folder: Path) -> int:
        """How many normal windows are kept; the folder is listed only where something in it has changed."""
        try:
            changed_ns = folder.stat().st_mtime_ns
        except FileNotFoundError:
            return 0
        if self._listed[0] != changed_ns:
            self._listed = (changed_ns, sum(1 for _ in folder.glob(f"*{NORMAL}{SUFFIX}")))
        return self._listed[1]

    def feed(self, samples: F32) -> None:
        """Take in what was heard since the last time, float32 (N,) in [-1, 1]."""
        if not samples.shape[0]:
            return
        part = _int16(samples)
        self._hold(part)
        if self._unfinished is not None:
            self._unfinished.parts.append(part[: self._unfinished.missing_samples])
            self._unfinished.missing_samples -= len(part)
            if self._unfinished.missing_samples <= 0:
                self.finish()

    def path_of(self, event_id: str, at: datetime) -> Path:
        """Where the clip of an alert lies that began at `at`, complete or not."""
        return self.store.folder / self.machine / f"{_stamp(at)}-{event_id}{SUFFIX}"

    def begin(self, event_id: str, at: datetime) -> Path:
        """Begin a clip of what is held and what follows; where it will be once it is complete."""
        self.finish()
        path = self.path_of(event_id, at)
        held = np.roll(self._ring, -self._end)[len(self._ring) - self._held_samples :]
        self._unfinished = _UnfinishedClip(path, [held], round(self.span.after_s * SAMPLE_RATE_HZ))
        if self._unfinished.missing_samples <= 0:
            self.finish()
        return path

    def finish(self) -> None:
        """Hand over what there is of the clip that is being made."""
        if self._unfinished is not None:
            self.store.put(self._unfinished.path, np.concatenate(self._unfinished.parts))
            self._unfinished = None

    def _hold(self, part: I16) -> None:
        """Write over what is oldest."""
        last = part[max(0, len(part) - len(self._ring)) :]
        before_wrap = min(len(last), len(self._ring) - self._end)
        self._ring[self._end : self._end + before_wrap] = last[:before_wrap]
        self._ring[: len(last) - before_wrap] = last[before_wrap:]
        self._end = (self._end + len(last)) % max(1, len(self._ring))
        self._held_samples = min(len(self._ring), self._held_samples + len(last))


def _int16(samples: F32) -> I16:
    return (np.clip(np.nan_to_num(samples), -1, 1) * 32767).round().astype(np.int16)


def _stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
