"""The gamma threshold against closed forms and large samples, and F1 against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import digamma
from scipy.stats import gamma
from sklearn.metrics import precision_recall_fscore_support

from asd_daemon.errors import DataSetError
from asd_trainer.evaluate.threshold import decision_quality, decision_threshold, fit_gamma


def test_decision_threshold_is_that_of_the_challenges_baseline_where_the_likelihood_has_a_maximum() -> None:
    rng = np.random.default_rng(0)
    for shape, location, scale in ((9.0, 4.0, 0.8), (4.0, 0.0, 1.5), (20.0, -3.0, 0.5)):
        scores = location + rng.gamma(shape, scale, size=1000)
        expected = gamma.ppf(0.9, *gamma.fit(scores))
        assert decision_threshold(scores) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_decision_threshold_of_scores_of_any_size_grows_with_them(size: float) -> None:
    rng = np.random.default_rng(6)
    for shape in (0.4, 0.8, 3.0, 12.0):
        scores = 0.3 + rng.gamma(shape, 0.2, size=104)
        assert decision_threshold(size * scores) == pytest.approx(size * decision_threshold(scores), rel=1e-3)


def test_fit_gamma_without_a_maximum_in_the_location_solves_the_likelihood_equation_of_the_shape() -> None:
    scores = 0.001 + np.random.default_rng(0).gamma(0.4, 0.02, size=200)
    fit = fit_gamma(scores)
    gap = np.log(scores.mean()) - np.log(scores).mean()
    shape = brentq(lambda k: np.log(k) - digamma(k) - gap, 0.1, 100)
    assert fit.location == 0
    assert fit.shape == pytest.approx(shape, rel=1e-6)
    assert fit.scale == pytest.approx(scores.mean() / shape, rel=1e-6)


def test_decision_threshold_of_many_gamma_scores_is_exceeded_by_a_tenth() -> None:
    rng = np.random.default_rng(1)
    threshold = decision_threshold(rng.gamma(4.0, 0.05, size=20_000))
    assert np.mean(rng.gamma(4.0, 0.05, size=200_000) > threshold) == pytest.approx(0.1, abs=0.005)


def test_decision_threshold_with_copies_among_the_clips_stays_near_the_others() -> None:
    scores = np.random.default_rng(2).gamma(40.0, 0.005, size=990)
    plain = decision_threshold(scores)
    assert decision_threshold(np.append(scores, [0.0, 0.0])) == pytest.approx(plain, rel=0.15)


def test_decision_threshold_of_negative_scores_moves_with_them() -> None:
    scores = np.random.default_rng(3).normal(size=500)
    assert decision_threshold(scores - 5) == pytest.approx(decision_threshold(scores) - 5, abs=0.02)
    assert np.mean(scores > decision_threshold(scores)) == pytest.approx(0.1, abs=0.05)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([0.3], "at least 2 normal clips, got 1"),
        ([0.1, np.nan], "score 1 .* not finite"),
        ([0.2] * 5, "all 5 normal clips score 0.2"),
    ],
)
def test_fit_gamma_of_scores_that_allow_none_is_refused(scores: list[float], message: str) -> None:
    with pytest.raises(DataSetError, match=message):
        fit_gamma(np.array(scores))


def test_decision_quality_of_random_decisions_equals_scikit_learns() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        truth, decided = rng.random((2, 30)) < rng.random()
        expected = precision_recall_fscore_support(truth, decided, average="binary", zero_division=0)
        quality = decision_quality(truth, decided)
        assert (quality.precision, quality.recall, quality.f1) == pytest.approx(expected[:3])


def test_decision_quality_without_any_anomaly_or_decision_is_zero() -> None:
    none, all_of_them = np.zeros(4, bool), np.ones(4, bool)
    assert (
        decision_quality(none, none).f1
        == decision_quality(none, all_of_them).f1
        == decision_quality(all_of_them, none).f1
        == 0
    )
