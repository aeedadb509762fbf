"""The states of a machine among its normal windows: off, by level alone, and those in which it runs, where they lie clearly apart.

States are few and coarse: one that is split without need is learned from fewer windows, so a split must show both ways, by the very scores
that the machine is judged by. What people have named is not asked. Owns how states are found; how one is learned is learning.py's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.bundle.manifest import MOST_STATES, OffLevel
from asd_daemon.judge.distances.fusion import Fusion
from asd_daemon.judge.features.steady_views import STEADY_VIEWS
from asd_daemon.judge.features.views import VIEW_NAMES
from asd_daemon.learn.learning import LEAST_DEVIATION, LEAST_WINDOWS
from asd_daemon.learn.normal_sound import NormalSound
from asd_daemon.learn.reference_sounds import reference_vectors
from asd_daemon.learn.view_families import movement_contrast, view_families

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
LEAST_OFF_WINDOWS = 3
OFF_DB = 12.0
"""So much quieter than at work, in the median, a machine is off …"""
OFF_GAP_DB = 6.0
"""… where hardly any window lies in a gap of so much between the two: those that hold the start or the stop do."""
GAP_SHARE = 0.1  # of the rarer of the two
LEAST_SHARE = 0.05
"""A state is at least this share of what was heard."""
APART = 2.0
"""Windows of another state lie so many times as far above the median as the highest tenth of a state's own held-out ones, both ways."""
LEAST_SPREAD = 0.1  # of scores: below, held-out windows say too little of how far they scatter
WITHIN_SHARE = 0.7  # of the scatter inside windows in the metric of clustering; the rest is isotropic


def off_level(levels_dbfs: NDArray[np.floating]) -> OffLevel | None:
    """Where a machine is off, from the levels (N,) of its windows; None where they show no such thing."""
    levels = np.sort(np.asarray(levels_dbfs, np.float64))
    best: tuple[float, float] | None = None
    for below in np.arange(np.floor(levels[0]), levels[-1], 0.5):
        quiet, loud = levels[levels <= below], levels[levels > below]
        if len(quiet) < LEAST_OFF_WINDOWS or len(loud) < LEAST_WINDOWS:
            continue
        if np.median(loud) - np.median(quiet) < OFF_DB:
            continue
        inside = np.abs(levels - below) < OFF_GAP_DB / 2
        share = float(inside.sum()) / min(len(quiet), len(loud))
        if share > GAP_SHARE:
            continue
        empty = float(np.abs(levels - below).min())  # the middle of the gap, where it is the same otherwise
        if best is None or (share, -empty) < best:
            best, found = (share, -empty), below
    return None if best is None else off_up_to(float(found), levels)


def off_up_to(below_dbfs: float, levels_dbfs: NDArray[np.floating]) -> OffLevel | None:
    """Off as what lies up to a level, among the levels (N,) of windows; None where none does, or no window lies above."""
    quiet = levels_dbfs[levels_dbfs <= below_dbfs]
    if not 0 < len(quiet) < len(levels_dbfs):
        return None
    usual, share = round(float(np.median(quiet)), 2), round(len(quiet) / len(levels_dbfs), 4)
    return OffLevel(below_dbfs=below_dbfs, usual_dbfs=usual, share=share)


def find_states(sound: NormalSound) -> I64:
    """Which state each window (N,) is of, numbered from 0, the one with most windows first; all 0 where there is one only."""
    least = max(LEAST_WINDOWS, int(np.ceil(LEAST_SHARE * sound.windows)))
    open_groups: list[I64] = [np.arange(sound.windows)]
    done: list[I64] = []
    while open_groups:
        rows = open_groups.pop()
        parts = None
        if len(done) + len(open_groups) + 2 <= MOST_STATES:
            parts = _split(sound.subset(rows), least)
        if parts is None:
            done.append(rows)
        else:
            open_groups += [rows[part] for part in parts]
    numbers = np.zeros(sound.windows, np.int64)
    for number, rows in enumerate(sorted(done, key=len, reverse=True)):
        numbers[rows] = number
    return numbers


def _split(sound: NormalSound, least: int) -> tuple[I64, I64] | None:
    """Two groups that lie apart, as positions; None where there are none."""
    views = [view for view in STEADY_VIEWS if view in sound.vectors and sound.vectors[view].shape[1] > 1]
    if sound.windows < 2 * least or not views:
        return None
    rows = np.concatenate([_by_inner_scatter(sound.vectors[view]) for view in views], axis=1)
    is_second = two_clusters(rows)
    first, second = np.flatnonzero(~is_second), np.flatnonzero(is_second)
    if min(len(first), len(second)) < least:
        return None
    return (first, second) if _apart(sound, first, second) and _apart(sound, second, first) else None


def _by_inner_scatter(vectors: F32) -> F64:
    """A view (N, 1 + P, D) of whole windows in units of how much pieces of one window differ: (N, D), of mean square 1 a number.

    What differs between windows must count here, so it can't be what is whitened by.
    """
    pieces = (vectors[:, 1:] - vectors[:, 1:].mean(axis=1, keepdims=True, dtype=np.float64)).reshape(
        -1, vectors.shape[2]
    )
    scatter = pieces.T @ pieces / max(1, len(pieces))
    variance = float(np.trace(scatter)) / len(scatter) or 1.0
    values, axes = np.linalg.eigh(WITHIN_SHARE * scatter + (1 - WITHIN_SHARE) * variance * np.eye(len(scatter)))
    centred = vectors[:, 0] - vectors[:, 0].mean(axis=0, dtype=np.float64)
    return np.asarray(centred @ (axes / np.sqrt(values)) / np.sqrt(len(scatter)), np.float64)


def two_clusters(rows: F64) -> NDArray[np.bool_]:
    """Ward's two clusters of rows (N, D): which of them each row is in (N,).

    Joined from below by the least growth of the sum of squares (Lance and Williams' recurrence), N ≥ 2.
    """
    count = rows.shape[0]
    squares = (rows**2).sum(axis=1)
    growth = np.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0) / 2
    np.fill_diagonal(growth, np.inf)
    sizes, cluster = np.ones(count), np.arange(count)
    for _ in range(count - 2):
        first, second = divmod(int(np.argmin(growth)), count)
        if first > second:
            first, second = second, first
        total = sizes[first] + sizes[second] + sizes
        joined = (
            (sizes[first] + sizes) * growth[first]
            + (sizes[second] + sizes) * growth[second]
            - sizes * growth[first, second]
        ) / total
        growth[first], growth[:, first] = joined, joined
        growth[second], growth[:, second] = np.inf, np.inf
        growth[first, first] = np.inf
        sizes[first] += sizes[second]
        sizes[second] = 0
        cluster[cluster == second] = first
    return np.asarray(cluster != cluster[0])


def _apart(sound: NormalSound, own: I64, other: I64) -> bool:
    """Whether windows of another group are far off for whoever knows one group only."""
    group = sound.subset(own)
    own_views = {view: vectors[:, 0] for view, vectors in group.vectors.items()}
    views = [v for v in VIEW_NAMES if v in own_views and own_views[v].std(axis=0).max() > LEAST_DEVIATION]
    if not views:
        return False
    families = view_families(views, movement_contrast(group.vectors, reference_vectors()))
    fusion, held_out = Fusion.fit_held_out(families, group.vectors, group.domains)
    scores = fusion.score({view: vectors[other, 0] for view, vectors in sound.vectors.items()})
    middle, high = np.percentile(held_out, (50, 90))
    return bool(
        np.median(scores) - middle >= APART * (high - middle + LEAST_SPREAD) and np.percentile(scores, 10) > high
    )
