"""How high the tail of a few peaks goes: predictive quantiles of the generalised Pareto distribution, without scipy.

Excesses over a high base level follow it whatever the scores themselves do (Pickands 1975). A fitted quantile is exceeded more often than
it says, for the fit is not known exactly; averaged over what the excesses leave possible (Coles and Tawn 1996) it keeps its word.
Pure arithmetic in double precision.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

# Prior of the shape: most noise has a tail near the exponential one; excesses of a few hundred hours outweigh it
SHAPE_MEAN, SHAPE_DEVIATION = 0.05, 0.2
SHAPES = np.linspace(-0.5, 0.9, 36)  # none of them is 0
LOG_SCALES = np.linspace(-1.5, 1.0, 41)  # relative to the mean excess
_BEYOND = 1e-300
_FARTHEST = 1e12  # mean excesses


def excess_quantile(excesses: F64, probability: float, censored: F64 | None = None) -> float:
    """What the next excess over a base level exceeds with this probability, all that is not known of the tail included.

    The generalised Pareto distribution averaged over its posterior on a grid of shape and scale (flat in log scale, the shape's prior
    normal): the expected exceedance is `probability`, where a fitted quantile would be exceeded more often.

    Args:
        excesses: (N,), not negative, N ≥ 1 together with `censored`.
        probability: in (0, 1).
        censored: (C,), excesses of which only a lower bound is known.

    Raises:
        ValueError: no excesses, one that is not finite or is negative, or a probability outside (0, 1).
    """
    cut = np.empty(0) if censored is None else np.maximum(np.asarray(censored, np.float64), 0)
    known = np.asarray(excesses, np.float64)
    if known.size + cut.size == 0 or not 0 < probability < 1:
        raise ValueError(f"no quantile {probability} of {known.size} excesses and {cut.size} lower bounds")
    if not (np.isfinite(known).all() and np.isfinite(cut).all()) or (known < 0).any():
        raise ValueError("excesses must be finite and not negative")
    unit = max(float(np.concatenate((known, cut)).mean()), 1e-12)
    scales = np.exp(LOG_SCALES)
    weights = _posterior(known / unit, cut / unit, scales)
    low, high = 0.0, 1.0
    while _survival(high, weights, scales) > probability and high < _FARTHEST:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _survival(middle, weights, scales) > probability else (low, middle)
    return high * unit


def _log_room(x: F64, scales: F64) -> F64:
    """log(1 + ξ x / σ) of x (N,): (S, K, N) over shapes × scales; hopeless where x lies above the end that a negative shape has."""
    return np.asarray(np.log(np.maximum(1 + SHAPES[:, None, None] * x / scales[:, None], _BEYOND)), np.float64)


def _posterior(known: F64, cut: F64, scales: F64) -> F64:
    """Weights (S, K), sum 1, of shapes × scales."""
    density = -((1 / SHAPES + 1)[:, None] * _log_room(known, scales).sum(axis=2)) - known.size * np.log(scales)
    survival = -(1 / SHAPES)[:, None] * _log_room(cut, scales).sum(axis=2)
    total = density + survival - 0.5 * (((SHAPES - SHAPE_MEAN) / SHAPE_DEVIATION) ** 2)[:, None]
    weights = np.exp(total - total.max())
    return np.asarray(weights / weights.sum(), np.float64)


def _survival(x: float, weights: F64, scales: F64) -> float:
    log_room = _log_room(np.array([x]), scales)[..., 0]
    return float((weights * np.exp(-log_room / SHAPES[:, None])).sum())
