"""How far the embedder is believed beside the views, found from normal windows alone; in doubt not at all.

Two rules that were there before must both agree. The embeddings must tell the machine from others, as the rhythm must for the moving
family (view_families.py): else they hear the noise. And changed copies of normal windows must stand out more with them than without, by
twice the standard error, as for the separated sound (separation_gain.py). An embedder costs more than all views together and, on real
machines that it never heard, small ones took away more than they gave (lab notebook, 2026-11-27). NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.distances.fusion import FOLDS, Candidate, Family, Fusion
from asd_daemon.judge.scoring.nearest_neighbour import HEARD, SEPARATED
from asd_daemon.learn.normal_sound import NormalSound
from asd_daemon.learn.separation_gain import GAIN_STANDARD_ERRORS
from asd_daemon.learn.view_families import MOVING_CONTRAST, contrast

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
LEAST_CHANGED = 16
"""Fewer windows with changed copies say too little of how far a gain scatters."""
SHARES = (0.05, 0.1, 0.2, 0.3)
"""Those that are tried."""


@dataclass(frozen=True)
class EmbeddingEvidence:
    """What normal sound says of a machine's embeddings."""

    share: float
    """How far they are believed beside the views; 0: they judge nothing."""
    gain: float
    """How much more of the normal windows a changed copy stands above with the best share, on average; in [-1, 1]."""
    standard_error: float
    """Of that gain, over the windows."""
    contrast: float
    """How far other machines' sounds lie from its own, in spreads of held-out normal windows."""


def with_embeddings(families: Sequence[Family], share: float, embeddings: Sequence[str]) -> tuple[Family, ...]:
    """Families of views and, with a share in (0, 1), that of the embeddings, by their cosine distance; as they were with 0."""
    if share == 0:
        return tuple(families)
    total = sum(family.share for family in families)
    own = Family(dict.fromkeys((Candidate(view, shrinkage=None) for view in embeddings), 1.0), share)
    return (*(replace(family, share=(1 - share) * family.share / total) for family in families), own)


def embedding_evidence(sound: NormalSound, families: Sequence[Family], others: F32) -> EmbeddingEvidence:
    """Whether a machine's embeddings earn a share beside its families of views.

    Args:
        sound: at least four normal windows, no copies of one another, with embeddings and changed copies.
        families: of its views.
        others: embeddings (K, D) of other machines' sounds.
    """
    embeddings = [view for view in (HEARD, SEPARATED) if view in sound.vectors]
    found = contrast(sound.vectors[HEARD][:, 0], others)
    trials = _apart_by_share(sound, with_embeddings(families, SHARES[0], embeddings))
    gains = {share: apart - trials[0.0] for share, apart in trials.items() if share > 0}
    best = max(gains, key=lambda share: gains[share].mean() - GAIN_STANDARD_ERRORS * _error(gains[share]))
    gain, error = float(gains[best].mean()), _error(gains[best])
    gain_is_known = sound.with_changed.shape[0] >= LEAST_CHANGED
    earned = gain_is_known and found >= MOVING_CONTRAST and gain > GAIN_STANDARD_ERRORS * error
    return EmbeddingEvidence(best if earned else 0.0, round(gain, 4), round(error, 4), round(found, 2))


def _error(gain: F64) -> float:
    return float(gain.std(ddof=1) / np.sqrt(gain.shape[0])) if gain.shape[0] > 1 else float("inf")


def _apart_by_share(sound: NormalSound, families: Sequence[Family]) -> dict[float, F64]:
    """Share → how many held-out normal windows the changed copies of each window score above, on average over the changes; (M,).

    Each window and its copies are scored by views that were fitted without it.
    """
    n, rows = sound.windows, sound.with_changed
    folds = np.arange(n) % min(FOLDS, n // 2)
    kinds = next(iter(sound.changed.values())).shape[0]
    normal = {share: np.empty(n) for share in (0.0, *SHARES)}
    changed = {share: np.empty((kinds, rows.shape[0])) for share in normal}
    for fold in np.unique(folds):
        out, at = folds == fold, np.flatnonzero(folds[rows] == fold)
        fusion = Fusion.fit(families, {v: x[~out] for v, x in sound.vectors.items()}, sound.domains[~out])
        own = fusion.view_scores({view: vectors[out, 0] for view, vectors in sound.vectors.items()})
        copies = [fusion.view_scores({v: x[kind, at] for v, x in sound.changed.items()}) for kind in range(kinds)]
        for share, scores in normal.items():
            shared = _with_share(fusion, share)
            count = len(shared.views)
            scores[out] = shared.combine(own[:count])
            for kind in range(kinds):
                changed[share][kind, at] = shared.combine(copies[kind][:count])
    return {
        share: np.asarray((changed[share][:, :, None] > normal[share]).mean(axis=(0, 2)), np.float64)
        for share in normal
    }


def _with_share(fusion: Fusion, share: float) -> Fusion:
    """The same fusion with another share of its last family, the embeddings'; with 0 it has none."""
    *others, _ = fusion.shares
    total = sum(others)
    if share > 0:
        return replace(fusion, shares=(*((1 - share) * one / total for one in others), share))
    count = fusion.families.index(len(others))
    return Fusion(fusion.views[:count], fusion.weights[:count], fusion.families[:count], tuple(others))
