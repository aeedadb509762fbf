"""Starts the process that fetches, and hears what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asd_daemon.rollout.fetching import FetchJob

WITHIN_S = 6 * 3600.0
"""A process that takes longer is ended; the next one goes on where it was."""
_MODULE = "asd_daemon.rollout.fetching"


def child_environment() -> dict[str, str]:
    """The environment of a process of this package: it finds the package and keeps to one thread."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Fetcher:
    """One process at a time.

    Args:
        within_s: a process that takes longer is ended.
    """

    def __init__(self, within_s: float = WITHIN_S) -> None:
        self._within_s, self._lock = within_s, threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._result: dict[str, Any] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether one is at it."""
        return self._thread is not None

    def start(self, job: FetchJob, heard: Callable[[dict[str, Any]], None]) -> None:
        """Begin.

        Args:
            job: what shall be fetched.
            heard: told each line but the result, from another thread.
        """
        self._result = None
        self._thread = threading.Thread(target=self._run, args=(job, heard), name="fetch-bundle", daemon=True)
        self._thread.start()

    def result(self) -> dict[str, Any] | None:
        """What came of it, once; None while it is at it or nothing was begun."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread.join()
        self._thread = None
        return self._result or {"state": "failed", "reason": "the process that fetches ended early"}

    def close(self) -> None:
        """End what runs."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
        if self._thread is not None:
            self._thread.join(1.0)

    def _run(self, job: FetchJob, heard: Callable[[dict[str, Any]], None]) -> None:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", _MODULE],
                env=child_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        except OSError as e:
            self._result = {
                "state": "failed",
                "reason": f"the process that fetches can't be started: {e.strerror or e}",
            }
            return
        with self._lock:
            self._process = process
        timer = threading.Timer(self._within_s, process.kill)
        timer.daemon = True
        timer.start()
        try:
            with process:
                assert process.stdin is not None  # noqa: S101  # both are pipes
                assert process.stdout is not None  # noqa: S101
                try:
                    process.stdin.write(job.model_dump_json() + "\n")
                    process.stdin.flush()
                    for line in process.stdout:
                        self._hear(line, heard)
                except (BrokenPipeError, ValueError):
                    process.kill()
        finally:
            timer.cancel()
            with self._lock:
                self._process = None

    def _hear(self, line: str, heard: Callable[[dict[str, Any]], None]) -> None:
        words = json.loads(line)
        if "result" in words:
            self._result = words["result"]
        else:
            heard(words)
