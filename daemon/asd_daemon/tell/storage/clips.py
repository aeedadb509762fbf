"""Sound around an alert, kept as FLAC within a budget; nothing else ever writes sound that was heard.

Clips are written in a thread of its own: first under another name, renamed when they are on the disk. Old clips go when they are older
than the budget's days, by a clock that can be trusted, larger together than its megabytes, or when the disk has less than 5 % left; if
that does not help there is no clip, and a trouble that is told. What goes is logged. An alert never waits for its clip.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asd_daemon.private_files import make_private_file, make_private_folder
from asd_daemon.tell.storage.plausible_clock import PlausibleClock
from asd_daemon.waveform import SAMPLE_RATE_HZ
from asd_daemon.wording import counted

_LOG = logging.getLogger(__name__)
I16 = NDArray[np.int16]

LEAST_FREE = 0.05
"""Fraction of the disk that clips never take."""
_DAY_S = 86_400.0
_TIDY_EVERY_S = 3600.0
NORMAL = "-normal"
"""What the names of normal windows end with."""
SUFFIX, _UNFINISHED = ".flac", ".part"
_BYTES_PER_SAMPLE = 2  # FLAC never needs much more than the samples themselves


@dataclass(frozen=True)
class ClipBudget:
    """How much may be kept."""

    most_bytes: float
    """All clips of all machines together."""
    most_days: float


@dataclass(frozen=True)
class _Clip:
    path: Path
    samples: I16
    most_normal: int | None = None
    """Of a normal window: how many of its machine are kept."""

    def outdated(self) -> list[Path]:
        """Earlier normal windows that make room for this one."""
        if self.most_normal is None:
            return []
        return sorted(self.path.parent.glob(f"*{NORMAL}{SUFFIX}"))[: -self.most_normal]


class ClipStore:
    """The folder of clips, one below it for each machine, and the thread that writes.

    Args:
        folder: where the machines' folders lie.
        budget: how much may be kept.
        now_s: Unix time.
        clock: whether ages hold; by default asked of `now_s` alone.
    """

    def __init__(
        self,
        folder: Path,
        budget: ClipBudget,
        *,
        now_s: Callable[[], float] = time.time,
        clock: PlausibleClock | None = None,
    ) -> None:
        self.folder, self._budget = folder, budget
        self._clock = clock or PlausibleClock(now_s)
        self._made: dict[Path, float] = {}  # when, by the steady clock
        self._objection: str | None = None
        self._work: queue.Queue[_Clip | None] = queue.Queue(maxsize=4)
        self._thread = threading.Thread(target=self._run, name="tell-clips", daemon=True)
        self._write_error: str | None = None
        self.written = self.failed = 0

    @property
    def write_error(self) -> str | None:
        """Why the last clip could not be written, in words; None where it could."""
        return self._write_error

    def named(self, path: Path) -> str:
        """A clip as alerts name it: below the state folder."""
        return f"{self.folder.name}/{path.relative_to(self.folder).as_posix()}"

    def start(self) -> None:
        """Begin to write, and to delete what is too old."""
        self._thread.start()

    def put(self, path: Path, samples: I16, most_normal: int | None = None) -> None:
        """Write a clip soon; int16 (N,). Of a normal window: so many of its machine are kept."""
        try:
            self._work.put_nowait(_Clip(path, samples, most_normal))
        except queue.Full:
            self._fail(f"{path}: the disk is too slow")

    def close(self, timeout_s: float) -> None:
        """Wait for the clips that are being written."""
        try:
            self._work.put(None, timeout=timeout_s)
        except queue.Full:
            return
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        clip: _Clip | Literal["none came"] | None = "none came"
        while clip is not None:
            try:
                if isinstance(clip, _Clip):
                    self._write(clip)
                    self._made[clip.path] = self._clock.steady_s()
                    self._delete(clip.outdated(), "newer normal windows are kept")
                    self.written += 1
                    self._write_error = None
                else:
                    self._tidy()
            except OSError as e:
                self._fail(getattr(e, "strerror", None) or str(e))
            try:
                clip = self._work.get(timeout=_TIDY_EVERY_S)
            except queue.Empty:
                clip = "none came"

    def _fail(self, write_error: str) -> None:
        self.failed += 1
        if self._write_error is None:
            _LOG.error("no clip: %s", write_error)
        self._write_error = f"no clip: {write_error}"

    def _write(self, clip: _Clip) -> None:
        make_private_folder(clip.path.parent)
        self._make_room(len(clip.samples) * _BYTES_PER_SAMPLE)
        unfinished = clip.path.with_name(clip.path.name + _UNFINISHED)
        try:
            make_private_file(unfinished)
            _write_flac(unfinished, clip.samples)
            descriptor = os.open(unfinished, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(unfinished, clip.path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def _kept(self) -> list[tuple[float, int, Path]]:
        """When each clip was made, its size in bytes and where it lies; the oldest first, then those whose time can't be right, then
        those that were made by this process.
        """
        found = [(f.stat().st_mtime, f.stat().st_size, f) for f in self.folder.glob(f"*/*{SUFFIX}")]
        return sorted(found, key=lambda each: (each[2] in self._made, not self._clock.is_dated(each[0]), each[0]))

    def _tidy(self) -> None:
        """Delete what is too old, where the clock can be trusted, and what a run that was killed has left half written."""
        age_s = self._budget.most_days * _DAY_S
        objection = self._clock.objection(age_s)
        if objection is not None and objection != self._objection:
            _LOG.warning("no clip is deleted for its age: %s", objection)
        self._objection = objection
        now_s = self._clock.now_s()
        self._date_own(now_s)
        if objection is None:
            self._date_anew(now_s)
            old = [p for made_s, _, p in self._kept() if now_s - made_s > age_s and p not in self._made]
            self._delete(old, f"older than {self._budget.most_days:g} days")
        for left in self.folder.glob(f"*/*{SUFFIX}{_UNFINISHED}"):
            if now_s - left.stat().st_mtime > _TIDY_EVERY_S:  # a younger one may be another process's, which writes now
                left.unlink(missing_ok=True)

    def _date_own(self, now_s: float) -> None:
        """What this process made keeps its age when the clock is set, also for the process after it."""
        for path, made_s in self._made.items():
            at_s = now_s - (self._clock.steady_s() - made_s)
            if path.exists() and abs(path.stat().st_mtime - at_s) > _TIDY_EVERY_S:
                os.utime(path, (at_s, at_s))

    def _date_anew(self, now_s: float) -> None:
        """Clips made while the clock was wrong are as old as the day on which that was seen; their order stays."""
        undated = [path for made_s, _, path in self._kept() if not self._clock.is_dated(made_s)]
        for number, path in enumerate(undated):
            at_s = now_s + 0.001 * (number - len(undated))
            os.utime(path, (at_s, at_s))

    def _delete(self, paths: Sequence[Path], why: str) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
        if paths:
            names = ", ".join(f"{p.parent.name}/{p.name}" for p in paths[:3]) + (", …" if len(paths) > 3 else "")
            _LOG.info("deleted, %s: %s, %s", why, counted(len(paths), "clip"), names)

    def _make_room(self, needed_bytes: int) -> None:
        """Delete the oldest clips until there is room for another.

        Raises:
            OSError: there is none even so.
        """
        self._tidy()
        kept = self._kept()
        total = sum(size for _, size, _ in kept) + needed_bytes
        for _, size, path in kept:
            if total <= self._budget.most_bytes and not self._is_short_of_space(needed_bytes):
                break
            self._delete([path], "to make room for another")
            total -= size
        if total > self._budget.most_bytes:
            raise OSError(0, f"the budget of {self._budget.most_bytes / 1e6:g} MB is less than one clip")
        if self._is_short_of_space(needed_bytes):
            raise OSError(0, f"the disk has less than {LEAST_FREE:.0%} left")

    def _is_short_of_space(self, needed_bytes: int) -> bool:
        disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize - needed_bytes < LEAST_FREE * disk.f_blocks * disk.f_frsize


def _write_flac(file: Path, samples: I16) -> None:
    """Write int16 (N,).

    Raises:
        OSError: libsndfile can't.
    """
    import soundfile

    try:
        soundfile.write(str(file), samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    except soundfile.LibsndfileError as e:
        raise OSError(str(e)) from e
