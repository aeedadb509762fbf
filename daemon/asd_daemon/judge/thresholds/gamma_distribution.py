"""The gamma distribution without scipy: fitted to scores by maximum likelihood, and its tail turned into scores.

Pure arithmetic in double precision, for a few hundred scores once a machine is learned. It knows no machine.
"""

from __future__ import annotations

from math import exp, lgamma, log

import numpy as np
from numpy.typing import NDArray

_MOST_STEPS = 100_000
_PRECISION = 1e-14
_NO_SPREAD = 1e-12  # of log mean - mean log: below it the scores are one number, and any large shape fits
_LARGEST_SHAPE = 1e8


def digamma(x: float) -> float:
    """ψ(x) for x > 0: recurrence up to 10, then the asymptotic series (Abramowitz and Stegun 6.3.5, 6.3.18)."""
    total = 0.0
    while x < 10:
        total -= 1 / x
        x += 1
    y = 1 / (x * x)
    series = y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y / 132))))
    return total + log(x) - 0.5 / x - series


def trigamma(x: float) -> float:
    """ψ′(x) for x > 0: recurrence up to 10, then the asymptotic series (ibid. 6.4.6, 6.4.12)."""
    total = 0.0
    while x < 10:
        total += 1 / (x * x)
        x += 1
    y = 1 / (x * x)
    return total + (1 + (0.5 + (1 / 6 - y * (1 / 30 - y * (1 / 42 - y / 30))) / x) / x) / x


def fit_gamma(scores: NDArray[np.float64]) -> tuple[float, float]:
    """Shape and scale of the likeliest gamma distribution with location 0 (Minka, Estimating a Gamma distribution, 2002).

    Args:
        scores: (N,), all positive.

    Raises:
        ValueError: a score that is not positive and finite.
    """
    if scores.size == 0 or not np.isfinite(scores).all() or not (scores > 0).all():
        raise ValueError("a gamma distribution is fitted to positive finite scores")
    mean = float(scores.mean())
    spread = log(mean) - float(np.log(scores).mean())
    if spread < _NO_SPREAD:
        return _LARGEST_SHAPE, mean / _LARGEST_SHAPE
    shape = (3 - spread + ((spread - 3) ** 2 + 24 * spread) ** 0.5) / (12 * spread)
    for _ in range(100):  # Newton on 1/shape; four steps are usual
        error = log(shape) - digamma(shape) - spread
        fresh = 1 / (1 / shape + error / (shape * shape * (1 / shape - trigamma(shape))))
        if abs(fresh - shape) <= 1e-12 * shape:
            break
        shape = fresh
    return shape, mean / shape


def exceedance(x: float, shape: float) -> float:
    """The chance that a gamma variable of scale 1 lies above x ≥ 0: series below the mean, continued fraction above (Lentz)."""
    if x <= 0:
        return 1.0
    front = exp(shape * log(x) - x - lgamma(shape))
    if x < shape + 1:
        term = total = 1 / shape
        for n in range(1, _MOST_STEPS):
            term *= x / (shape + n)
            total += term
            if term < total * _PRECISION:
                break
        return max(0.0, 1 - front * total)
    b = x + 1 - shape
    c, d = 1e300, 1 / b
    fraction = d
    for n in range(1, _MOST_STEPS):
        a = -n * (n - shape)
        b += 2
        d = 1 / (a * d + b)
        c = b + a / c
        fraction *= c * d
        if abs(c * d - 1) < _PRECISION:
            break
    return front * fraction


def tail_score(probability: float, shape: float, scale: float) -> float:
    """The score that a gamma variable exceeds with this probability, by bisection.

    Raises:
        ValueError: a probability outside (0, 1).
    """
    if not 0 < probability < 1:
        raise ValueError(f"a probability lies between 0 and 1, got {probability}")
    low, high = 0.0, shape + 1
    while exceedance(high, shape) > probability:
        low, high = high, high + max(1.0, 2 * shape**0.5)
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if exceedance(middle, shape) > probability else (low, middle)
    return high * scale
