"""Which views a machine is judged by, chosen from its normal sound alone.

Owns the choice by pseudo-anomalies: normal windows changed as failing machines change (pseudo_anomalies.py), scored by views that have
not seen them. It fits nothing that is kept. NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.distances.fusion import Candidate, FittedView
from asd_daemon.judge.features.views import F32

I64 = NDArray[np.int64]
PICKS = 6
SHARPNESS = 4
LEAST_WEIGHT = 0.02  # a view of less is not worth its time
DECIMALS = 3  # of a pseudo-AUC: less is chance


def select_views(
    candidates: Sequence[Candidate],
    normal: Mapping[str, F32],
    changed: Mapping[str, F32],
    domains: I64,
) -> tuple[dict[Candidate, float], float]:
    """Choose views and weights from normal windows alone.

    One half of the weights goes to candidates added one after another, with repetition, while the mean AUC over the kinds of change grows
    (ensemble selection: Caruana et al., ICML 2004); it finds views that complete each other, but follows chance. The other half goes to
    all by how far their own AUC lies above chance, to the power `SHARPNESS`. A window and its changed copies are scored by views fitted
    without it.

    Args:
        candidates: what there is to choose from.
        normal: view → (N, 1 + P, D), normal windows.
        changed: view → (F, N, D), the same windows after each of F changes.
        domains: (N,).

    Returns:
        candidate → weight (sum 1), and the mean pseudo-AUC of the choice.

    Raises:
        ValueError: no candidates, or what `FittedView.fit` refuses.
    """
    if not candidates:
        raise ValueError("there are no views to choose from")
    held_out = [_held_out(c, normal[c.view], changed[c.view], domains) for c in candidates]
    own_aucs = np.array([_pseudo_auc(scores) for scores in held_out])
    merit = np.maximum(own_aucs - 0.5, 0) ** SHARPNESS
    greedy = _greedy(held_out)
    weights = greedy if not merit.sum() else (greedy + merit / merit.sum()) / 2
    weights[weights < LEAST_WEIGHT] = 0
    weights /= weights.sum()
    value = _pseudo_auc(np.asarray(np.tensordot(weights, np.stack(held_out), 1), np.float32))
    return {c: float(w) for c, w in zip(candidates, weights, strict=True) if w > 0}, value


def _greedy(held_out: Sequence[F32]) -> NDArray[np.float64]:
    """Weights by ensemble selection; all to the first where nothing beats chance."""
    weights = np.zeros(len(held_out))
    best, total = 0.5, np.zeros_like(held_out[0])
    for _ in range(PICKS):
        values = [round(_pseudo_auc(total + scores), DECIMALS) for scores in held_out]
        if max(values) <= best:
            break
        best = max(values)
        weights[values.index(best)] += 1
        total = total + held_out[values.index(best)]
    if not weights.any():
        weights[0] = 1
    return np.asarray(weights / weights.sum(), np.float64)


def _held_out(candidate: Candidate, normal: F32, changed: F32, domains: I64) -> F32:
    """Scores (1 + F, N) of windows and their changed copies, by views fitted without them."""
    n = normal.shape[0]
    scores = np.empty((1 + changed.shape[0], n), np.float32)
    folds = min(4, n // 4)
    for fold in range(folds):
        out = np.arange(n) % folds == fold
        fitted = FittedView.fit(candidate, normal[~out], domains[~out])
        scores[0, out] = fitted.score(normal[out, 0])
        for kind, vectors in enumerate(changed, start=1):
            scores[kind, out] = fitted.score(vectors[out])
    return scores


def _pseudo_auc(scores: F32) -> float:
    """Mean over kinds of the chance that a changed window scores above a normal one."""
    normal = np.sort(scores[0])
    below = np.searchsorted(normal, scores[1:], "left") + np.searchsorted(normal, scores[1:], "right")
    return float(below.mean() / (2 * normal.shape[0]))
