"""The paper's back end: cosine distance to the nearest normal neighbour, of the heard sound plus of the separated one (section 2.3, k = 1).

Owns the sum of the distances, and whether a machine can be judged so at all. The banks are `judge/bundle/nearest_files`' business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import SettingsError
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.distances.nearest_neighbours import DistanceToNormal
from asd_daemon.judge.scoring.scoring_choice import Scoring

F32 = NDArray[np.float32]
HEARD, SEPARATED = "heard", "separated"
"""Views that are embeddings: of the window as it was heard, and of the machine's part of it."""


@dataclass(frozen=True)
class NearestNeighbour:
    """One machine's back end."""

    heard: DistanceToNormal
    separated: DistanceToNormal | None

    @classmethod
    def open(cls, bundle: Bundle, machine: str) -> NearestNeighbour:
        """From a machine's banks.

        Raises:
            BundleError: there is none, or a file can't be used.
        """
        files = bundle.nearest(machine)
        return cls(files.index(), files.separated_index())

    @property
    def views(self) -> tuple[str, ...]:
        """The embeddings that it needs."""
        return (HEARD,) if self.separated is None else (HEARD, SEPARATED)

    def distances(self, vectors: Mapping[str, F32]) -> tuple[float, float | None]:
        """1 - cosine of a window's embeddings, view → (1, D), and their nearest normal neighbours: heard, separated."""
        separated = None if self.separated is None else _distance(self.separated, vectors[SEPARATED])
        return _distance(self.heard, vectors[HEARD]), separated


def _distance(index: DistanceToNormal, embedding: F32) -> float:
    return float(index.distance(embedding)[0])


def back_end_views(bundle: Bundle) -> tuple[str, ...]:
    """The embeddings that a bundle's models make of a window; none where it has no embedder."""
    manifest = bundle.manifest
    if manifest.embedder is None:
        return ()
    return (HEARD,) if manifest.separator is None else (HEARD, SEPARATED)


def check_scoring(bundle: Bundle, machine: str, scoring: Scoring) -> None:
    """Refuse to judge a machine by embeddings that nobody can make.

    Args:
        bundle: with what was learned on this box.
        machine: its name in the bundle.
        scoring: as it is configured.

    Raises:
        SettingsError: the bundle has no embedder, or it knows the machine without a bank; says which bundle, and what to do.
        UnknownMachineError: nobody knows the machine.
    """
    if scoring == "auto":
        return
    name = f"{bundle.path} ({bundle.name} {bundle.version})"
    if bundle.manifest.embedder is None:
        raise SettingsError(
            f"machines.{machine}.scoring: {scoring}: bundle {name} has no embedder, so that no distance can be measured; take a bundle of"
            " a trained run (`asd-export RUN BUNDLE`), or `scoring: auto`"
        )
    if bundle.machine(machine).nearest_neighbour is None:
        raise SettingsError(
            f"machines.{machine}.scoring: {scoring}: bundle {name} knows {machine} by views alone and has no bank of its embeddings;"
            f" export the bundle anew, learn the machine here (`asd-daemon enroll --machine {machine}`), or `scoring: auto`"
        )
