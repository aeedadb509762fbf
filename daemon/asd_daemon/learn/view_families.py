"""Which family of views a machine is judged by: those of the steady part, or those of what moves.

In foreign noise the moving views hear the noise; of a machine of strokes in steady noise the steady views do. Which are right is told by
one number that needs no failure and no label: how far sounds of other machines lie from this machine's normal windows in the views of
movement, in units of how far its own windows lie apart when held out. If its movement tells it from others, its strokes are heard.
NumPy only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.distances.fusion import Candidate, Family
from asd_daemon.judge.distances.whitening import euclidean
from asd_daemon.judge.features.moving_views import MOVING_VIEWS
from asd_daemon.judge.features.steady_views import STEADY_VIEWS

F32 = NDArray[np.float32]
CONTRAST_VIEWS = ("moving-rhythm",)
STEADY_CONTRAST, MOVING_CONTRAST = 2.0, 3.0
"""At and below the first, the moving family is believed least; at and above the second, most."""
LEAST_SHARE, MOST_SHARE = 0.1, 0.98
FOLDS = 8
LEAST_VARIANCE = 0.05  # of the mean over components, so that one which never changes does not decide
LEAST_SPREAD = 1e-3  # of logarithms of distances
TINY = 1e-9


def movement_contrast(normal: Mapping[str, F32], others: Mapping[str, F32]) -> float | None:
    """How far sounds of other machines lie from a machine's normal windows in the views of movement; None without such views.

    Args:
        normal: view → (N, 1 + P, D), normal windows, N ≥ 4.
        others: view → (K, D), sounds of other machines; simulated ones do.
    """
    found = [contrast(normal[view][:, 0], others[view]) for view in CONTRAST_VIEWS if view in normal]
    return float(np.mean(found)) if found else None


def view_families(views: Collection[str], movement: float | None) -> tuple[Family, ...]:
    """The families that a machine is judged by, of the views that there are.

    Each view of a family counts alike. Where only one family has views, or none is known by name, they are one family.

    Raises:
        ValueError: no view.
    """
    steady, moving = ([view for view in views if view in own] for own in (STEADY_VIEWS, MOVING_VIEWS))
    if not (steady and moving):
        return (Family(dict.fromkeys(map(Candidate, steady or moving or views), 1.0)),)
    share = moving_share(movement)
    return (
        Family(dict.fromkeys(map(Candidate, steady), 1.0), 1 - share),
        Family(dict.fromkeys(map(Candidate, moving), 1.0), share),
    )


def moving_share(movement: float | None) -> float:
    """How far the moving family is believed, from LEAST_SHARE to MOST_SHARE; the rest is the steady family's."""
    if movement is None:
        return LEAST_SHARE
    rising = np.clip((movement - STEADY_CONTRAST) / (MOVING_CONTRAST - STEADY_CONTRAST), 0, 1)
    return float(LEAST_SHARE + (MOST_SHARE - LEAST_SHARE) * rising)


def contrast(normal: F32, others: F32) -> float:
    """How far other machines' sounds (K, D) lie from normal windows (N, D), N ≥ 4, in spreads of those held out; the median.

    Of each sound counts the logarithm of its distance to the nearest window.
    """
    n = normal.shape[0]
    held_out = np.empty(n)
    folds = np.arange(n) % min(FOLDS, n // 2)
    for fold in np.unique(folds):
        out = folds == fold
        held_out[out] = _log_nearest(normal[out], normal[~out])
    spread = max(float(held_out.std()), LEAST_SPREAD)
    return float(np.median(_log_nearest(others, normal)) - np.median(held_out)) / spread


def _log_nearest(queries: F32, bank: F32) -> NDArray[np.float64]:
    """Natural logarithm of the distance (Q,) to the nearest row of a bank, each component in its own deviation there."""
    variance = bank.var(axis=0, dtype=np.float64)
    scale = 1 / np.sqrt(variance + LEAST_VARIANCE * variance.mean() + TINY * TINY)
    distances = euclidean(np.asarray(queries * scale, np.float32), np.asarray(bank * scale, np.float32))
    return np.asarray(np.log(np.maximum(distances.min(axis=1), TINY)), np.float64)
