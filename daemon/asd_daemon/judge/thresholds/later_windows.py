"""What the windows of the weeks after enrolment will score: predictive quantiles that lean on other machines where few windows are known.

Twenty windows can't tell how far their scores spread, nor that what is heard on another day lies farther off than they do from each other.
Scores of fused views have the same scale on every machine, so both are known beforehand from machines whose later windows were scored.
A normal distribution of unknown spread with a conjugate prior: its predictive distribution is Student's t (Gelman et al., Bayesian Data
Analysis, section 3.3). Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
NEAR_COPIES = (
    3.0  # spreads below the median: a window that scores less is nearly a copy, and says nothing of the spread
)
MOST_ALIKE = 0.9  # correlation of neighbours; beyond it hardly anything would be left


@dataclass(frozen=True)
class LaterWindows:
    """How windows of another day score on machines that are known: against the held-out ones of enrolment."""

    shift: float
    """How far their mean lies above the mean of the held-out ones."""
    spread: float
    """Their standard deviation."""
    worth: float
    """As many windows of a machine's own count as much as this does."""

    def quantiles(self, scores: F64, exceedances: Sequence[float]) -> F64:
        """What later windows exceed with these probabilities (T,), each in (0, 1).

        Args:
            scores: (N,), N ≥ 2, held-out scores of a machine's windows in the order in which they were heard.
            exceedances: the probabilities.
        """
        middle = float(np.median(scores))
        robust = max(1.4826 * float(np.median(np.abs(scores - middle))), self.spread)
        own = np.maximum(scores, middle - NEAR_COPIES * robust)
        known = effective_size(own)
        freedom = self.worth + known - 1
        variance = (self.worth * self.spread**2 + (known - 1) * float(own.var(ddof=1))) / freedom
        scale = np.sqrt(variance * (1 + 1 / known))
        return np.array([own.mean() + self.shift + scale * student_quantile(p, freedom) for p in exceedances])


OTHER_MACHINES = LaterWindows(shift=0.19, spread=0.215, worth=60.0)
"""Medians over seven kinds of real machines (benchmarks/provisional.py); leaving one out moves them by 0.01."""


def effective_size(scores: F64) -> float:
    """How many independent scores are worth as much as these (N,), N ≥ 2, that follow each other: N (1 - r) / (1 + r), at least 1.

    r is the correlation of neighbours, where it is positive (Bayley and Hammersley 1946).
    """
    around = scores - scores.mean()
    total = float(around @ around)
    alike = float(around[1:] @ around[:-1]) / total if total > 0 else 0.0
    alike = min(max(alike, 0.0), MOST_ALIKE)
    return float(max(scores.shape[0] * (1 - alike) / (1 + alike), 1.0))


def student_quantile(exceedance: float, freedom: float) -> float:
    """What Student's t of so many degrees of freedom exceeds with a probability: expansion in 1 / freedom (Abramowitz and Stegun 26.7.5).

    Good to 1e-3 from 15 degrees on for probabilities above 1e-4, and from 60 on for all above 1e-6.

    Raises:
        ValueError: a probability outside (0, 1), or freedom that is not positive.
    """
    if not 0 < exceedance < 1 or freedom <= 0:
        raise ValueError(f"no quantile {exceedance} of {freedom} degrees of freedom")
    z = -NormalDist().inv_cdf(exceedance)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / freedom ** (n + 1) for n, term in enumerate(terms)))
