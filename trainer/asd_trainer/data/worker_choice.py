"""The words of `--workers` → who works."""

from __future__ import annotations

import re

from asd_daemon.errors import UsageError
from asd_trainer.data.cluster import DaskWorkers, RayWorkers
from asd_trainer.data.workers import Processes, Threads, Workers


def chosen_workers(text: str | None) -> Workers:
    """Who is meant by `--workers`: a number of processes, `dask://HOST:PORT` or `ray://HOST:PORT`; threads where nothing is said.

    Raises:
        UsageError: none of these.
    """
    if text is None:
        return Threads()
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 1024:
        return Processes(int(text))
    found = re.fullmatch(r"(dask|ray)://([^/\s:]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", text)
    if found is None:
        raise UsageError(f"--workers {text}: give a number of processes, dask://HOST:PORT or ray://HOST:PORT")
    kind = DaskWorkers if found[1] == "dask" else RayWorkers
    return kind(text, f"{found[2]}:{found[3]}")
