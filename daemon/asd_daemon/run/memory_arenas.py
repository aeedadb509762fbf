"""How many heaps the C library keeps for the threads of this process.

glibc gives threads heaps of their own, eight for each processor, and what is freed in one is of no use to the others: with two threads
a machine most of the memory of many machines would be such remains. Our threads take turns at Python anyway.
"""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # malloc.h
_ARENAS = 2


def limit_memory_arenas() -> None:
    """Let all threads share two heaps; to be called before there are any. Where the C library knows no such thing, nothing happens."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_ARENA_MAX, _ARENAS)
