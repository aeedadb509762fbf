"""The gamma distribution against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special
from scipy.stats import gamma

from asd_daemon.judge.thresholds.gamma_distribution import digamma, exceedance, fit_gamma, tail_score, trigamma


@pytest.mark.parametrize("x", [1e-3, 0.1, 0.5, 1.0, 3.7, 10.0, 1234.5])
def test_digamma_and_trigamma_equal_scipy(x: float) -> None:
    assert digamma(x) == pytest.approx(special.digamma(x), rel=1e-10, abs=1e-10)
    assert trigamma(x) == pytest.approx(special.polygamma(1, x), rel=1e-9)


@pytest.mark.parametrize("shape", [0.3, 1.0, 4.0, 60.0, 900.0, 20_000.0])
@pytest.mark.parametrize("count", [5, 22, 1000])
def test_fit_gamma_equals_scipy(shape: float, count: int) -> None:
    scores = np.random.default_rng(3).gamma(shape, 0.01, count)
    expected, _, scale = gamma.fit(scores, floc=0)
    assert fit_gamma(scores) == pytest.approx((expected, scale), rel=1e-5)


@pytest.mark.parametrize("shape", [0.3, 1.0, 4.0, 60.0, 900.0, 20_000.0])
@pytest.mark.parametrize("probability", [0.9, 0.5, 0.1, 1e-2, 1e-4, 1e-6])
def test_tail_score_equals_scipy(shape: float, probability: float) -> None:
    expected = gamma.isf(probability, shape, scale=0.02)
    assert tail_score(probability, shape, 0.02) == pytest.approx(expected, rel=1e-7)
    assert exceedance(expected / 0.02, shape) == pytest.approx(probability, rel=1e-6)


def test_fit_gamma_equal_scores_have_their_mean_and_no_spread() -> None:
    shape, scale = fit_gamma(np.full(9, 0.25))
    assert shape * scale == pytest.approx(0.25)
    assert tail_score(1e-6, shape, scale) == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("scores", [[], [0.0, 1.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_fit_gamma_scores_that_are_not_positive_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="positive finite"):
        fit_gamma(np.array(scores, np.float64))


def test_tail_score_certain_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        tail_score(1.0, 1.0, 1.0)
