"""Areas under ROC curves, many at once: of clips that count several times each, as in resampling, or once.

Owns the arithmetic alone, and equals scikit-learn's roc_auc_score on clips that are repeated; ties count a half.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]


def area(scores: F64, normal: Mask, anomalous: Mask, max_fpr: float | None = None) -> float:
    """The area under the ROC curve of the chosen clips, (N,) each; see `partial_area`."""
    return float(weighted_area(scores, normal, anomalous, max_fpr, np.ones((1, scores.size)))[0])


def weighted_area(scores: F64, normal: Mask, anomalous: Mask, max_fpr: float | None, weights: F64) -> F64:
    """Areas, (B,), when clips count as often as each row of `weights`, (B, N), says."""
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))  # where a lower score begins
    ordered = weights[:, order]
    return partial_area(
        np.add.reduceat(ordered * normal[order], starts, axis=1),
        np.add.reduceat(ordered * anomalous[order], starts, axis=1),
        max_fpr,
    )


def partial_area(normal: F64, anomalous: F64, max_fpr: float | None) -> F64:
    """Areas under ROC curves, (B,), up to a false alarm rate; then standardised after McClish (1989), so that chance is 0.5.

    Args:
        normal: how many normal clips have each score, (B, scores), highest score first.
        anomalous: how many anomalous ones, of the same shape.
        max_fpr: None for the whole curve.
    """
    limit = 1.0 if max_fpr is None else max_fpr
    alarms, hits = (
        np.cumsum(normal, axis=1),
        np.cumsum(anomalous, axis=1),
    )  # in clips, so that whole curves are summed exactly
    width = np.clip(limit * alarms[:, -1:] - (alarms - normal), 0.0, normal)  # what of each step lies left of the limit
    rise = np.divide(width, normal, out=np.zeros_like(width), where=normal > 0) * anomalous
    share = np.sum(width * (hits - anomalous + rise / 2), axis=1) / (alarms[:, -1] * hits[:, -1])
    if max_fpr is None:
        return np.asarray(share, np.float64)
    least = limit**2 / 2
    return np.asarray(0.5 * (1 + (share - least) / (limit - least)), np.float64)
