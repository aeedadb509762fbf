"""What holds for every test: how many threads compute, and which examples property tests draw."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import HealthCheck, settings

# The same examples every time, however long each takes: what the gate says follows from the code, not from chance or from other work
settings.register_profile("gate", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gate")

# One, where nobody says otherwise. Before numpy and torch are imported, who ask once; threads of theirs that share a core with other work
# wait for each other in busy loops, which made a test of half a second take a quarter of a minute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
_THREADS = int(os.environ["OMP_NUM_THREADS"])


@pytest.fixture(autouse=True)
def threads_of_torch() -> None:
    """A command sets the threads of its process, which is that of all tests: each begins with as many as the first."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != _THREADS:
        torch.set_num_threads(_THREADS)
