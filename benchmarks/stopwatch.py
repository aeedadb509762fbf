"""Rows of the tables, and how a time is taken."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    what: str
    figure: str
    remark: str = ""


def median_ms(work: Callable[[], object], runs: int = 41, clock: Callable[[], float] = time.process_time) -> float:
    """Median time of `work` in milliseconds after three runs that are not counted: of the processor unless `clock` says otherwise."""
    for _ in range(3):
        work()
    times = []
    for _ in range(runs):
        start = clock()
        work()
        times.append(clock() - start)
    return float(np.median(times)) * 1000


def ms_row(what: str, ms: float, remark: str = "") -> Row:
    return Row(what, f"{ms:.2f} ms", remark)


def held(value: float, limit: float, words: str) -> str:
    """The figure's limit, and whether it is held."""
    return f"{'held' if value <= limit else '**missed**'}: {words}"


def table(heading: str, rows: list[Row]) -> list[str]:
    """Markdown."""
    lines = [f"| {row.what} | {row.figure} | {row.remark} |" for row in rows]
    return [f"## {heading}", "", "| what | figure | |", "|---|---:|---|", *lines, ""]
