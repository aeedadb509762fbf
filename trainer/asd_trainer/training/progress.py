"""How long work goes on: a bar on a terminal, log lines with the time that is left everywhere else.

Owns the drawing and the wording. It counts what it is told and knows nothing of the work.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

log = logging.getLogger(__name__)

LOG_INTERVAL_S = 15.0

Advance = Callable[[int, Mapping[str, float]], None]
"""Called with how much is done in all, and figures to show beside it."""


@contextmanager
def counted_steps(name: str, total: int, done: int = 0, *, shown: bool = True) -> Iterator[Advance]:
    """Progress of `total` steps of which `done` were done before; nothing is drawn unless `shown`."""
    if not shown:
        yield lambda _done, _figures: None
    elif sys.stderr.isatty():
        with _bar(name, total, done) as advance:
            yield advance
    else:
        yield LoggedProgress(name, total, done, time.monotonic)


@contextmanager
def counted(name: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Progress of work that tells (done, total) itself, the first time before it begins."""
    with ExitStack() as stack:
        opened: list[Advance] = []

        def tell(done: int, total: int) -> None:
            if not opened:
                opened.append(stack.enter_context(counted_steps(f"{name} ({unit})", total, done)))
            opened[0](done, {})

        yield tell


class LoggedProgress:
    """A log line every `LOG_INTERVAL_S`, and one at the end; the first after a tenth of it, so that the time is known early."""

    def __init__(self, name: str, total: int, done: int, clock: Callable[[], float]) -> None:
        self._name, self._total, self._first, self._clock = name, total, done, clock
        self._started = clock()
        self._due = self._started + LOG_INTERVAL_S / 10

    def __call__(self, done: int, figures: Mapping[str, float]) -> None:
        """So much is done in all."""
        now = self._clock()
        if done <= self._first or (now < self._due and done != self._total):
            return
        self._due = now + LOG_INTERVAL_S
        left_s = (now - self._started) / (done - self._first) * (self._total - done)
        said = "".join(f", {text}" for text in [_shown(figures)] if text)
        log.info("%s: %d of %d%s, %s to go", self._name, done, self._total, said, time_in_words(left_s))


@contextmanager
def _bar(name: str, total: int, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    left = (TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[figures]}"))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), *left)
    with Progress(*columns, console=Console(stderr=True)) as bar:
        row = bar.add_task(name, total=total, completed=done, figures="")
        yield lambda now_done, figures: bar.update(row, completed=now_done, figures=_shown(figures))


def _shown(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {figures[name]:.3g}" for name in figures if name != "gradient_norm")


def time_in_words(seconds: float) -> str:
    """A span of time as people say it: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
