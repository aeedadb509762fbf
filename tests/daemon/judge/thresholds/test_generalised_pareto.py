"""Quantiles of the generalised Pareto distribution, against scipy's and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import genpareto

from asd_daemon.judge.thresholds.generalised_pareto import excess_quantile


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.25])
def test_many_excesses_give_the_quantile_of_their_distribution(shape: float) -> None:
    excesses = genpareto.rvs(shape, scale=0.3, size=4000, random_state=1)
    assert excess_quantile(excesses, 0.01) == pytest.approx(genpareto.ppf(0.99, shape, scale=0.3), rel=0.1)


def test_agrees_with_maximum_likelihood_of_scipy_on_many_excesses() -> None:
    excesses = genpareto.rvs(0.1, scale=2.0, size=3000, random_state=2)
    fitted_shape, _, fitted_scale = genpareto.fit(excesses, floc=0)
    expected = genpareto.ppf(0.98, fitted_shape, scale=fitted_scale)
    assert excess_quantile(excesses, 0.02) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(("count", "probability"), [(25, 0.1), (25, 0.02), (120, 0.02)])
def test_is_exceeded_as_often_as_it_says_over_the_shapes_that_noise_has(count: int, probability: float) -> None:
    """The mean true exceedance is the asked one, where the best fit's is up to three times as high."""
    rng = np.random.default_rng(3)
    found, fitted = [], []
    for _ in range(80):
        shape = rng.normal(0.05, 0.2)
        excesses = genpareto.rvs(shape, size=count, random_state=rng)
        found.append(genpareto.sf(excess_quantile(excesses, probability), shape))
        b0 = excesses.mean()  # probability-weighted moments (Hosking and Wallis 1987)
        b1 = float((np.sort(excesses) * (count - np.arange(1, count + 1)) / (count - 1)).mean())
        k, scale = b0 / (b0 - 2 * b1) - 2, 2 * b0 * b1 / (b0 - 2 * b1)
        fitted.append(genpareto.sf(genpareto.ppf(1 - probability, -k, scale=scale), shape))
    assert np.mean(found) == pytest.approx(probability, rel=0.35)
    assert np.mean(found) < np.mean(fitted)


def test_scales_with_its_excesses() -> None:
    excesses = genpareto.rvs(0.1, size=80, random_state=4)
    assert excess_quantile(1e-4 * excesses, 0.05) == pytest.approx(1e-4 * excess_quantile(excesses, 0.05), rel=1e-6)


def test_a_lower_bound_raises_the_quantile_and_one_far_below_does_not() -> None:
    excesses = genpareto.rvs(0.0, size=80, random_state=5)
    plain = excess_quantile(excesses, 0.01)
    assert excess_quantile(excesses, 0.01, np.full(3, 5.0)) > 1.1 * plain
    assert excess_quantile(excesses, 0.01, np.full(3, 0.0)) == pytest.approx(plain, rel=0.02)


def test_equal_excesses_and_a_single_one_give_a_finite_answer() -> None:
    assert np.isfinite(excess_quantile(np.full(30, 0.2), 0.01))
    assert np.isfinite(excess_quantile(np.zeros(30), 0.01))
    assert excess_quantile(np.array([0.2]), 0.01) > 0.2


@pytest.mark.parametrize("excesses", [[], [np.nan], [-1.0], [np.inf]])
def test_refuses_what_are_no_excesses(excesses: list[float]) -> None:
    with pytest.raises(ValueError, match="excesses"):
        excess_quantile(np.array(excesses), 0.1)


@pytest.mark.parametrize("probability", [0.0, 1.0, -1.0])
def test_refuses_what_is_no_probability(probability: float) -> None:
    with pytest.raises(ValueError, match="quantile"):
        excess_quantile(np.ones(5), probability)
