"""How a test waits: for what must happen, with a bound that only a hang reaches, however busy the machine is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psutil

PATIENT_S = 120.0
"""Long enough for whatever takes seconds on a quiet machine. It makes no test slower: waiting ends when the awaited comes."""


def wait_until(happens: Callable[[], bool], what: str) -> None:
    """Look again and again until something has happened.

    Raises:
        AssertionError: it has not within `PATIENT_S`; says what.
    """
    deadline_s, tick = time.monotonic() + PATIENT_S, threading.Event()
    while not happens():
        assert time.monotonic() < deadline_s, f"{what}: not within {PATIENT_S:g} s"
        tick.wait(0.02)


def is_over(pid: int) -> bool:
    """Whether a process has ended; one that nobody has taken leave of yet has."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
