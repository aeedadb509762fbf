"""What people have said of windows that were heard: more references of normal sound, and how near a window lies to a named example.

Owns the arithmetic. Whitening, weights and thresholds stay what enrolment made them, so that a word can be taken back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from asd_daemon.judge.distances.fusion import FittedView, Fusion
from asd_daemon.judge.distances.local_density import TINY, LocalDensity
from asd_daemon.judge.distances.whitening import F32, euclidean


def with_references(fusion: Fusion, accepted: Mapping[str, F32]) -> Fusion:
    """A fusion that takes these windows, view → (K, D), for normal too; one event's at a time, for they are measured by each other.

    A few windows of another product lie farther from the next ones than a hundred of the usual one do. Distances to them are therefore
    measured by what they are from each other in the median, where that is more than the usual one; a single window has only the usual.

    Raises:
        ValueError: a view of the fusion is missing, or has another size.
    """
    return replace(fusion, views=tuple(_extended(view, _rows(view, accepted)) for view in fusion.views))


def likeness(fusion: Fusion, example: Mapping[str, F32], vectors: Mapping[str, F32]) -> F32:
    """Scores (Q,) of windows, view → (Q, D), were an example's windows (K, D) the machine's only normal ones: low where they are alike.

    Raises:
        ValueError: as `with_references`.
    """
    views = []
    for view in fusion.views:
        rows = _rows(view, example)
        views.append(replace(view, bank=rows, density=_density(view, rows)))
    return replace(fusion, views=tuple(views)).score(vectors)


def _rows(view: FittedView, vectors: Mapping[str, F32]) -> F32:
    """Windows (K, D) as the view's metric wants them."""
    own = vectors.get(view.view)
    if own is None or own.ndim != 2 or own.shape[1] != view.dimensions or not own.shape[0]:
        has = "none" if own is None else str(own.shape)
        raise ValueError(f"view {view.view}: windows of {view.dimensions} numbers are needed, there are {has}")
    return view.in_metric(own)


def _extended(view: FittedView, rows: F32) -> FittedView:
    own = _density(view, rows)
    density = LocalDensity(
        np.concatenate([view.density.offset, own.offset]), np.concatenate([view.density.scale, own.scale])
    )
    return replace(view, bank=np.concatenate([view.bank, rows]), density=density)


def _density(view: FittedView, rows: F32) -> LocalDensity:
    """One scale for references (K, D): what brings their distances from each other to the usual one, or that of usual windows."""
    scale = float(np.median(view.density.scale))
    if rows.shape[0] > 1:
        distances = euclidean(rows, rows).copy()
        np.fill_diagonal(distances, np.inf)
        usual = float(np.exp(view.centre)) if view.scale == "log" else view.centre
        scale = max(scale, float(np.median(distances.min(axis=1))) / max(usual, TINY))
    offset = np.zeros(rows.shape[0], np.float32)
    return LocalDensity(offset, np.full_like(offset, scale))
