"""What every simulated machine is: a unit with its own geometry, a run with its own chances, and a state of health.

Owns seeds, severity and the base class; the sound of a kind of machine is made elsewhere (rotating.py, stroking.py, toys.py).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from asd_daemon.hear.simulator.mechanics import CHUNK_SAMPLES, F32, SlowDrift, gain


def stable_seed(*words: str | int) -> tuple[int, ...]:
    """Words → four 32-bit words of seed, the same in every process and on every machine (unlike Python's hash)."""
    digest = hashlib.sha256("\x1f".join(map(str, words)).encode()).digest()
    return tuple(int.from_bytes(digest[i : i + 4], "big") for i in range(0, 16, 4))


class NamedGenerators:
    """Independent random generators by name of part: what one part draws never shifts what another draws."""

    def __init__(self, seed: Sequence[int]) -> None:
        self._seed = tuple(seed)

    def of(self, part: str) -> np.random.Generator:
        """The generator of one part, from its start."""
        return np.random.default_rng([*self._seed, *stable_seed(part)])


class Condition:
    """How ill a machine is during one chunk: severity of each failure, moving evenly from its old to its new value."""

    def __init__(self, before: Mapping[str, float] | None = None, after: Mapping[str, float] | None = None) -> None:
        self._before = dict(before or {})
        self._after = dict(after or {})

    def of(self, failure: str) -> F32 | None:
        """Severity per sample, shape (CHUNK_SAMPLES,), in [0, 1]; None while the machine does not have this failure."""
        before, after = self._before.get(failure, 0.0), self._after.get(failure, 0.0)
        if before == after == 0.0:
            return None
        return np.linspace(before, after, CHUNK_SAMPLES, endpoint=False, dtype=np.float32)


class Machine(ABC):
    """One machine that runs: the unit's geometry, one setting of its attributes, and the state of this run."""

    attributes: ClassVar[Mapping[str, tuple[str, ...]]]
    """Operating attributes and their values as they stand in file names; the first value is the usual one."""
    failures: ClassVar[tuple[str, ...]]

    def __init__(self, unit: NamedGenerators, run: NamedGenerators, setting: Mapping[str, str]) -> None:
        self.rates_hz: dict[str, float] = {}
        """Nominal rates that the physics promises, by name."""
        self._unit, self._run, self._setting = unit, run, setting
        self._speed = SlowDrift(run.of("speed"), 4.0)
        self._offset = 1 + 0.004 * float(np.clip(run.of("offset").standard_normal(), -2.5, 2.5))
        self._build()

    @abstractmethod
    def _build(self) -> None:
        """Draw geometry from `_unit`, the run's own variety from `_run`."""

    @abstractmethod
    def chunk(self, condition: Condition) -> F32:
        """The next second of sound, shape (CHUNK_SAMPLES,), in the unit's own scale."""

    def _vary(self, part: str, level_db: float, spread_db: float = 1.0) -> np.float32:
        """Level of a part in this run: no two recordings of a healthy machine have quite the same balance."""
        return gain(level_db + spread_db * float(np.clip(self._run.of(f"level {part}").standard_normal(), -2.5, 2.5)))
