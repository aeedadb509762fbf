"""The states of one machine: whether it is off, and in which of the states in which it runs a window is most normal.

A machine that is off is told by its level alone: what a hall sounds like at night says nothing of the machine. The states in which it runs
have fitted views each, so that one which varies much does not blind the others to what is small; a window is judged by the state in which
it scores lowest. Owns that choice. How states are found is learn/states.py's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.bundle.bundle import MAX_FUSION_BYTES, Bundle
from asd_daemon.judge.bundle.manifest import FUSION, OffLevel
from asd_daemon.judge.distances.fusion import Fusion
from asd_daemon.judge.distances.fusion_file import read_fusion
from asd_daemon.judge.distances.taught_references import with_references
from asd_daemon.waveform import rms_level_dbfs

F32 = NDArray[np.float32]
MOST_BELOW_DB = 20.0
"""So far below the usual level of a machine that is off nobody knows whether the microphone still hears."""


@dataclass(frozen=True)
class StateScore:
    """What a window scores, and in which state."""

    score: float
    name: str
    views: tuple[tuple[str, float], ...]


class RunningStates:
    """The states in which a machine runs, at least one.

    Args:
        fusions: name → fitted views.
    """

    def __init__(self, fusions: Mapping[str, Fusion]) -> None:
        self.fusions = dict(fusions)
        names = (view for fusion in self.fusions.values() for view in fusion.names())
        self.views: tuple[str, ...] = tuple(dict.fromkeys(names))

    @classmethod
    def open(cls, bundle: Bundle, machine: str) -> RunningStates | None:
        """Those that were learned; None where the machine has one normal only.

        Raises:
            BundleError: a file is not what its entry says.
        """
        states = bundle.machine(machine).states
        if states is None or not states.running:
            return None
        home = bundle.folder(machine).parent
        return cls(
            {
                state.name: read_fusion(home / state.folder / FUSION, state.views, MAX_FUSION_BYTES)
                for state in states.running
            }
        )

    def with_references(self, accepted: Sequence[Mapping[str, F32]]) -> RunningStates:
        """The same, each of which takes these windows for normal too, view → (K, D) for each event.

        Raises:
            ValueError: they are of other views.
        """
        fusions = dict(self.fusions)
        for vectors in accepted:
            fusions = {name: with_references(fusion, vectors) for name, fusion in fusions.items()}
        return RunningStates(fusions)

    def judge(self, vectors: Mapping[str, F32]) -> StateScore:
        """Score the vectors (1, D) of one window by the state in which it is most normal."""
        return min(
            (self._judged(name, fusion, vectors) for name, fusion in self.fusions.items()), key=lambda s: s.score
        )

    def scores(self, vectors: Mapping[str, F32]) -> F32:
        """Scores (Q, S) of windows, view → (Q, D), in each of the states."""
        return np.stack([fusion.score(vectors) for fusion in self.fusions.values()], axis=1)

    @staticmethod
    def _judged(name: str, fusion: Fusion, vectors: Mapping[str, F32]) -> StateScore:
        own = fusion.view_scores(vectors)
        views = tuple((view, float(s[0])) for view, s in zip(fusion.names(), own, strict=True))
        return StateScore(float(fusion.combine(own)[0]), name, views)


def is_off(off: OffLevel | None, waveform: F32) -> bool:
    """Whether a machine is off in a window (N,) that holds sound."""
    if off is None:
        return False
    return off.usual_dbfs - MOST_BELOW_DB <= rms_level_dbfs(waveform) <= off.below_dbfs
