"""Predictive quantiles of later windows, which lean on other machines where few are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, t

from asd_daemon.judge.thresholds.later_windows import LaterWindows, effective_size, student_quantile

KNOWN = LaterWindows(shift=0.2, spread=0.2, worth=60)


@pytest.mark.parametrize("freedom", [15.0, 60.0, 75.5, 400.0])
@pytest.mark.parametrize("exceedance", [0.5, 0.3, 0.0062, 2e-4])
def test_student_quantile_is_scipys(freedom: float, exceedance: float) -> None:
    assert student_quantile(exceedance, freedom) == pytest.approx(t.isf(exceedance, freedom), abs=1e-3)


def test_student_quantile_of_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="no quantile 1"):
        student_quantile(1, 10)


def test_few_windows_are_taken_to_spread_as_those_of_other_machines_do() -> None:
    scores = np.random.default_rng(0).normal(1, 0.02, 16)
    found = KNOWN.quantiles(scores, (0.5, 0.01))
    assert found[0] == pytest.approx(scores.mean() + 0.2)
    assert found[1] - found[0] == pytest.approx(norm.isf(0.01) * 0.2, rel=0.2)


def test_many_windows_are_taken_by_what_they_do_themselves() -> None:
    scores = np.random.default_rng(0).normal(1, 0.5, 5000)
    low, high = KNOWN.quantiles(scores, (0.5, 0.01))
    assert high - low == pytest.approx(norm.isf(0.01) * 0.5, rel=0.05)


def test_one_window_that_lies_far_off_widens_and_does_not_deafen() -> None:
    usual = np.random.default_rng(0).normal(1, 0.2, 22)
    odd = np.append(usual[1:], 2.6)
    within, beyond = (KNOWN.quantiles(scores, (0.0023,))[0] for scores in (usual, odd))
    assert within + 0.05 < beyond < 2.4


def test_copies_say_nothing_of_the_spread() -> None:
    usual = np.random.default_rng(0).normal(1, 0.2, 22)
    copied = np.append(usual, np.zeros(3))
    assert KNOWN.quantiles(copied, (0.0023,))[0] < KNOWN.quantiles(usual, (0.0023,))[0] + 0.2


def test_windows_that_follow_each_other_count_for_fewer() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=20_000)
    alike = np.empty(20_000)
    alike[0] = noise[0]
    for n in range(1, 20_000):  # an autoregression, whose neighbours correlate by 0.6
        alike[n] = 0.6 * alike[n - 1] + noise[n]
    assert effective_size(noise) == pytest.approx(20_000, rel=0.03)
    assert effective_size(alike) == pytest.approx(20_000 * 0.4 / 1.6, rel=0.05)
    assert effective_size(np.ones(9)) == 9
    assert effective_size(np.array([1.0, 2.0])) >= 1


@pytest.mark.parametrize("count", [16, 28, 120])
def test_the_predictive_quantile_keeps_its_word_on_machines_as_they_are_known(count: int) -> None:
    """Spreads drawn around the known one, later windows shifted: as many lie above as asked for."""
    rng, exceedance, above = np.random.default_rng(3), 0.01, []
    for _ in range(400):
        spread = KNOWN.spread * np.sqrt(KNOWN.worth / rng.chisquare(KNOWN.worth))
        limit = KNOWN.quantiles(rng.normal(1, spread, count), (exceedance,))[0]
        above.append(norm.sf(limit, 1 + KNOWN.shift, spread))
    assert np.mean(above) == pytest.approx(exceedance, rel=0.25)
