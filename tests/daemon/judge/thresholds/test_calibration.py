"""The tail of normal scores and the threshold for a budget of false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import binom, gamma

from asd_daemon.errors import DataSetError
from asd_daemon.judge.bundle.bundle import default_bundle, load_bundle
from asd_daemon.judge.thresholds.calibration import (
    WEEK_S,
    Calibration,
    GammaFit,
    Quantile,
    calibrate,
    calibrate_fused,
    provisional_exceedance,
    window_exceedance,
)
from asd_daemon.judge.thresholds.later_windows import LaterWindows


@pytest.mark.parametrize(("open_after", "of"), [(1, 1), (2, 3), (3, 5), (5, 5)])
@pytest.mark.parametrize("budget", [0.01, 1.0, 100.0])
def test_window_exceedance_inverts_the_binomial_tail(open_after: int, of: int, budget: float) -> None:
    p = window_exceedance(budget, open_after, of, hop_s=10.0)
    assert binom.sf(open_after - 1, of, p) * WEEK_S / 10 == pytest.approx(budget, rel=1e-6)


def test_window_exceedance_wrong_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="4 of 3"):
        window_exceedance(1, 4, 3, 10)


def test_threshold_of_likely_scores_follows_the_gamma_distribution() -> None:
    rng = np.random.default_rng(0)
    scores = rng.gamma(4.0, 0.01, size=5000).astype(np.float32)
    calibration = calibrate(scores)
    assert calibration.gamma.shape == pytest.approx(4.0, rel=0.1)
    for p in (0.5, 0.25):
        expected = gamma.isf(p, calibration.gamma.shape, scale=calibration.gamma.scale)
        assert calibration.threshold(p) == pytest.approx(expected, rel=0.02)
    assert calibration.centre == pytest.approx(float(np.median(scores)), rel=0.03)


def test_threshold_of_rare_scores_of_very_many_windows_is_the_true_one() -> None:
    scores = np.random.default_rng(0).gamma(4.0, 0.01, size=5000)
    for p in (0.1, 0.0023, 5e-4):
        assert calibrate(scores).threshold(p) == pytest.approx(gamma.isf(p, 4.0, scale=0.01), rel=0.1)


@pytest.mark.parametrize("count", [28, 120])
def test_threshold_of_few_windows_is_wider_than_the_true_quantile_mostly(count: int) -> None:
    exceedance, rng = 0.0023, np.random.default_rng(6)
    true = gamma.isf(exceedance, 30, scale=1 / 30)
    found = [calibrate(rng.gamma(30, 1 / 30, count)).threshold(exceedance) for _ in range(25)]
    assert np.mean(np.array(found) > true) > 0.6
    assert np.median(found) - 1 < 2.5 * (true - 1)


@pytest.mark.parametrize("count", [2, 3, 4, 16])
def test_few_scores_have_a_table_too(count: int) -> None:
    calibration = calibrate(np.random.default_rng(1).gamma(30, 1 / 30, count))
    assert calibration.threshold(0.5) < calibration.threshold(0.0023)
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


def test_fingerprint_tells_enrolments_apart() -> None:
    scores = np.random.default_rng(1).gamma(30, 1 / 30, 40)
    assert calibrate(scores).fingerprint == calibrate(scores).fingerprint != calibrate(scores[1:]).fingerprint


def test_tables_of_bundles_that_were_made_before_are_still_read() -> None:
    """The form of the file is the same; only what its table says has changed."""
    bundle = load_bundle(default_bundle())
    for machine in bundle.machines:
        calibration = bundle.calibration(machine)
        assert calibration.centre < calibration.threshold(0.0023)


def test_threshold_outside_the_table_uses_its_end() -> None:
    calibration = Calibration(
        clips=9,
        gamma=GammaFit(shape=1, location=0, scale=1),
        tail=(Quantile(exceedance=0.5, score=1), Quantile(exceedance=0.1, score=2)),
    )
    assert calibration.threshold(0.9) == 1
    assert calibration.threshold(1e-9) == 2


def test_calibration_disordered_tail_is_refused() -> None:
    with pytest.raises(ValidationError, match="exceedance must fall"):
        Calibration(
            clips=9,
            gamma=GammaFit(shape=1, location=0, scale=1),
            tail=(Quantile(exceedance=0.1, score=1), Quantile(exceedance=0.5, score=2)),
        )


def test_calibrate_duplicated_clips_still_fits() -> None:
    scores = np.concatenate([np.zeros(3), np.random.default_rng(0).gamma(3, 0.02, size=50)]).astype(np.float32)
    assert 0 < calibrate(scores).threshold(0.1) < 1


def test_a_provisional_threshold_may_spend_a_weeks_budget_in_a_day() -> None:
    p = provisional_exceedance(1, 2, 3, hop_s=10.0)
    assert binom.sf(1, 3, p) * WEEK_S / 10 == pytest.approx(7, rel=1e-6)


@pytest.mark.parametrize("count", [2, 3, 16, 120])
def test_fused_scores_have_a_table_whose_centre_is_their_median(count: int) -> None:
    scores = np.random.default_rng(1).normal(1, 0.2, count)
    calibration = calibrate_fused(scores)
    assert calibration.centre == pytest.approx(np.median(scores))
    assert calibration.centre < calibration.threshold(0.0062) < calibration.threshold(0.0023) < 2.2
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


def test_the_threshold_of_fused_scores_is_the_predictive_quantile_of_later_windows() -> None:
    known, scores = LaterWindows(shift=0.1, spread=0.3, worth=40), np.random.default_rng(2).normal(1, 0.2, 30)
    calibration = calibrate_fused(scores, known)
    for point in calibration.tail[1:]:
        assert point.score == pytest.approx(max(known.quantiles(scores, (point.exceedance,))[0], np.median(scores)))


@pytest.mark.parametrize("scores", [np.ones(1), np.zeros(10)])
def test_fused_scores_that_say_nothing_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(DataSetError):
        calibrate_fused(scores)
