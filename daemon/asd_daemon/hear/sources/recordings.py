"""Recordings as a source: one file, or each file of a folder in the order of their names.

Owns their order and pace. A file that can't be read is refused by name, and the next one is played.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import RecordingError, SourceError
from asd_daemon.hear.source import Block, SourceEvent, SourceHealth, UnreadableRecording
from asd_daemon.hear.source_spec import SourceSpec
from asd_daemon.sound_file import SOUND_SUFFIXES, printable, sound_files
from asd_daemon.waveform import SAMPLE_RATE_HZ, read_blocks, read_both

F32 = NDArray[np.float32]
_BLOCK_SAMPLES = SAMPLE_RATE_HZ  # 1 s


class PlaybackClock:
    """Holds sound back so that it comes `speed` times faster than real time."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._start_s: float | None = None
        self._played = 0
        self._stop = threading.Event()

    def wait(self, samples: int) -> bool:
        """Wait until these samples would have been heard to their end; False when stopped."""
        if self._start_s is None:
            self._start_s = time.monotonic()
        self._played += samples
        due_s = self._start_s + self._played / SAMPLE_RATE_HZ / self._speed
        return not self._stop.wait(max(0.0, due_s - time.monotonic()))

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more shall be heard."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End all waiting, now and later."""
        self._stop.set()


class RecordingsSource:
    """Plays files one after the other."""

    live = False
    source_health = SourceHealth()

    def __init__(self, paths: Sequence[Path], channel: int, speed: float, far: int | None = None) -> None:
        self._paths, self._channel, self._far = paths, channel, far
        self._clock = PlaybackClock(speed)

    def events(self) -> Iterator[SourceEvent]:
        """Each recording in blocks of up to a second."""
        for path in self._paths:
            for heard in _played(path, self._channel, self._far):
                if isinstance(heard, Block) and not self._clock.wait(heard.samples.shape[0]):
                    return
                yield heard

    def close(self) -> None:
        """Stop playing."""
        self._clock.stop()


def _played(path: Path, channel: int, far: int | None) -> Iterator[Block | UnreadableRecording]:
    """One recording in blocks of a second, read while it is played; where it can't be read on, it ends there and is refused by name."""
    held: list[F32] = []
    block: F32 | None = None
    try:
        for piece in read_blocks(path, channel) if far is None else read_both(path, channel, far):
            held.append(piece)
            joined = np.concatenate(held)
            whole = joined.shape[0] - joined.shape[0] % _BLOCK_SAMPLES
            for start in range(0, whole, _BLOCK_SAMPLES):
                if block is not None:
                    yield _block(block)
                block = joined[start : start + _BLOCK_SAMPLES].copy()
            held = [joined[whole:].copy()]
    except RecordingError as e:
        if block is not None:  # what is there of a damaged one, without the end of a whole one
            yield _block(block)
        yield UnreadableRecording(path, str(e))
        return
    rest = np.concatenate(held)
    if block is not None:
        yield _block(block, last=rest.shape[0] == 0)
    if rest.shape[0]:
        yield _block(rest, last=True)


def _block(samples: F32, *, last: bool = False) -> Block:
    """Samples (N,), or (N, 2) of a near and a far microphone, as a source says them."""
    if samples.ndim == 1:
        return Block(samples, last=last)
    return Block(np.ascontiguousarray(samples[:, 0]), last=last, far=np.ascontiguousarray(samples[:, 1]))


def open_recordings(spec: SourceSpec) -> RecordingsSource:
    """One file or a folder of files.

    Raises:
        UsageError: a channel or speed out of range.
        RecordingError: the one file can't be read.
        SourceError: no such folder, or no sound file in it.
    """
    path = Path(spec.target).expanduser()
    channel, far = spec.channel() or 0, spec.channel("far")
    if spec.kind == "file":
        for each in (channel, *(() if far is None else (far,))):
            next(read_blocks(path, each))  # refuse it now, if its beginning can't be read
        paths = [path]
    else:
        if not path.is_dir():
            raise SourceError(f"source {spec}: there is no folder {printable(path)}")
        paths = sound_files(path)
        if not paths:
            raise SourceError(f"source {spec}: no sound file ({', '.join(SOUND_SUFFIXES[:6])}, …) in {printable(path)}")
    return RecordingsSource(paths, channel, spec.speed(float("inf")), far)
