"""The bootstrap against scikit-learn with repeated clips, and against what is known of its spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from asd_trainer.data.clip import Clip
from asd_trainer.data.naming import Domain, Label
from asd_trainer.evaluate import bootstrap as resampling
from asd_trainer.evaluate.backend import ScoredClip
from asd_trainer.evaluate.bootstrap import interval, resampled_scores
from asd_trainer.evaluate.evaluation import machine_results, omega
from asd_trainer.evaluate.roc import weighted_area


def scored(
    rng: np.random.Generator,
    each: int,
    machines: Sequence[str] = ("fan",),
    year: int | None = 2025,
    levels: int = 10**6,
) -> list[ScoredClip]:
    domains: tuple[Domain, ...] = ("source", "target")
    labels: tuple[Label, ...] = ("normal", "anomaly")
    return [
        ScoredClip(
            Clip(Path(f"{machine}_{domain}_{label}_{n}.wav"), machine, "00", "test", domain, label, (), None, year),
            round(float(rng.normal() + 0.7 * (label == "anomaly")) * levels) / levels,
        )
        for machine in machines
        for domain in domains
        for label in labels
        for n in range(each)
    ]


@given(
    seed=st.integers(0, 2**32 - 1), levels=st.sampled_from([4, 30, 10**9]), max_fpr=st.sampled_from([None, 0.1, 0.37])
)
@settings(max_examples=60, deadline=None)
def test_area_of_drawn_clips_equals_scikit_learns_with_clips_repeated(
    seed: int, levels: int, max_fpr: float | None
) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, 60) / levels
    anomalous = np.arange(60) % 2 == 1
    weights = rng.integers(0, 3, (3, 60)).astype(np.float64)
    weights[:, :2] = 1  # one of each kind at least
    areas = weighted_area(scores, ~anomalous, anomalous, max_fpr, weights)
    for row, area in zip(weights.astype(int), areas, strict=True):
        expected = roc_auc_score(np.repeat(anomalous, row), np.repeat(scores, row), max_fpr=max_fpr)
        assert area == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("year", [None, 2021, 2025])
def test_one_draw_of_every_clip_once_gives_the_score_itself(year: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = scored(np.random.default_rng(0), 20, ("fan", "valve"), year, levels=8)
    monkeypatch.setattr(resampling, "_draw", lambda strata, count, rng, n: np.ones((n, count)))
    draws = resampled_scores([clips], np.random.default_rng(0), 3)
    assert draws == pytest.approx(omega(machine_results(clips)), abs=1e-12)


def test_draws_keep_the_size_of_each_domain_and_label() -> None:
    clips = [one.clip for one in scored(np.random.default_rng(0), 7)]
    strata = resampling._strata(clips)
    assert sorted(row for rows in strata for row in rows) == list(range(28))
    weights = resampling._draw(strata, 28, np.random.default_rng(1), 50)
    for rows in strata:
        assert len({(clips[row].domain, clips[row].label) for row in rows}) == 1
        assert (weights[:, rows].sum(axis=1) == 7).all()
    assert weights.std(axis=0).min() > 0.5  # about 1 - 1/7


def test_the_spread_of_a_machines_score_is_that_of_fresh_clips() -> None:
    """Ω of 7 machines of 200 clips at AUC 0.65 to 0.7 moves by about one point; fresh draws from the same distributions say how much."""
    machines = tuple("abcdefg")
    fresh = [omega(machine_results(scored(np.random.default_rng(seed), 50, machines))) for seed in range(60)]
    draws = resampled_scores([scored(np.random.default_rng(99), 50, machines)], np.random.default_rng(0), 600)[0]
    assert draws.std() == pytest.approx(np.std(fresh), rel=0.35)
    bounds = interval(draws)
    assert bounds.high - bounds.low == pytest.approx(2 * 1.96 * draws.std(), rel=0.1)


def test_draws_follow_from_the_seed_and_from_no_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = scored(np.random.default_rng(0), 10)
    first = resampled_scores([clips], np.random.default_rng(3), 40)
    np.testing.assert_array_equal(first, resampled_scores([clips], np.random.default_rng(3), 40))
    assert not np.array_equal(first, resampled_scores([clips], np.random.default_rng(4), 40))
    monkeypatch.setattr(resampling, "MOST_WEIGHTS", 40 * 7)
    blocked = resampled_scores([clips], np.random.default_rng(3), 400)
    assert blocked.shape == (1, 400)
    assert blocked.mean() == pytest.approx(first.mean(), abs=0.05)
