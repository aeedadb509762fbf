"""Who reads clips and computes their features: threads of this process, processes of this machine, or a cluster.

Owns that the result is the same whoever works: in the order of the clips, and bit for bit where the
processors are alike. What dies is replaced and its clips are done again. `cluster` knows dask
and ray.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import StageError
from asd_trainer.data.clip import Clip

F32 = NDArray[np.float32]
Work = Callable[[Clip, int], F32]
"""A clip and a channel → what is wanted of it; a function of a module, by whose name others call it."""

PIECE = 4
"""Clips that a worker gets at once: 2 MB of log-mels."""
AHEAD = 32
"""Clips that threads read ahead."""
PIECES_AHEAD = 4
"""Pieces that wait for each worker of another process."""
LIVES = 3
"""So often workers may die one after the other before it is taken for the clips' fault."""


class Workers(Protocol):
    """Who works."""

    def start(self) -> None:
        """Be ready to work; a later call does nothing.

        Raises:
            StageError: nobody is there, or not of this version; a package is missing.
        """

    def each(self, work: Work, clips: Sequence[Clip], channel: int) -> Iterator[F32]:
        """Work on clips, in their order.

        Raises:
            RecordingError: a clip can't be read; names it.
            StageError: workers die again and again, or are out of reach.
        """

    def close(self) -> None:
        """Let go of all."""


class Threads:
    """As many threads as there are cores."""

    def start(self) -> None:
        """Nothing to do."""

    def each(self, work: Work, clips: Sequence[Clip], channel: int) -> Iterator[F32]:
        """Work on clips, in their order."""
        with ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="clips") as pool:
            pending: list[Future[F32]] = []
            for clip in clips:
                pending.append(pool.submit(work, clip, channel))
                if len(pending) == AHEAD:
                    yield pending.pop(0).result()
            for future in pending:
                yield future.result()

    def close(self) -> None:
        """Nothing to do."""


class Processes:
    """Processes of this machine, each with one thread."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._pool: ProcessPoolExecutor | None = None

    def start(self) -> None:
        """Begin them; they take a second or two until they work."""
        if self._pool is None:
            spawned = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
            self._pool = ProcessPoolExecutor(self._number, mp_context=spawned, initializer=_begin)

    def each(self, work: Work, clips: Sequence[Clip], channel: int) -> Iterator[F32]:
        """Work on clips, in their order; pieces of a process that died are done by another one."""
        lost = 0
        done = 0
        while done < len(clips):
            try:
                for rows in self._worked(work, clips[done:], channel):
                    yield from rows
                    done += len(rows)
                    lost = 0
            except BrokenProcessPool as e:
                self.close()
                lost += 1
                if lost == LIVES:
                    raise StageError(
                        f"--workers {self._number}: a process died {LIVES} times at {clips[done].path} or one of the clips after it; "
                        "is the memory enough?"
                    ) from e

    def _worked(self, work: Work, clips: Sequence[Clip], channel: int) -> Iterator[list[F32]]:
        self.start()
        assert self._pool is not None  # noqa: S101 - for the reader of types
        pending: list[Future[list[F32]]] = []
        for piece in pieces_of(clips):
            pending.append(self._pool.submit(worked, work, piece, channel))
            if len(pending) == PIECES_AHEAD * self._number:
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()

    def close(self) -> None:
        """End them; what they were at is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def pieces_of(clips: Sequence[Clip]) -> Iterator[Sequence[Clip]]:
    """Clips in pieces for workers."""
    return (clips[first : first + PIECE] for first in range(0, len(clips), PIECE))


def worked(work: Work, clips: Sequence[Clip], channel: int) -> list[F32]:
    """What a worker does with a piece."""
    return [work(clip, channel) for clip in clips]


def _begin() -> None:
    """In a new process: one thread for its arithmetic, no word of Ctrl-C, which the first process hears, and no life after that one."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # no stubs

    threadpool_limits(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, name="follow", daemon=True).start()


_AT_WORK: list[Workers] = [Threads()]


def workers() -> Workers:
    """Who works now."""
    return _AT_WORK[-1]


@contextmanager
def at_work(chosen: Workers) -> Iterator[Workers]:
    """Inside, these work, for all threads of the process."""
    _AT_WORK.append(chosen)
    try:
        yield chosen
    finally:
        _AT_WORK.remove(chosen)
        chosen.close()
