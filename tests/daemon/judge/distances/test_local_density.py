"""Normalisations of distances, against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest

from asd_daemon.errors import BundleError
from asd_daemon.judge.distances.local_density import NORMALISATIONS, LocalDensity
from asd_daemon.judge.distances.whitening import F32, euclidean


@pytest.fixture
def bank() -> F32:
    """Ten references close together and four far apart, as a second domain."""
    rng = np.random.default_rng(3)
    return np.concatenate([rng.standard_normal((10, 3)), 20 + 6 * rng.standard_normal((4, 3))]).astype(np.float32)


DOMAINS = np.array([0] * 10 + [1] * 4, np.int64)


def test_plain_score_is_the_nearest_distance(bank: F32) -> None:
    queries = euclidean(bank[:5] + 0.5, bank)
    np.testing.assert_array_equal(LocalDensity.fit("plain", euclidean(bank, bank)).score(queries), queries.min(axis=1))


def test_local_score_equals_the_formula(bank: F32) -> None:
    within = euclidean(bank, bank)
    spread = [np.sort(np.delete(within[n], n))[:2].mean() for n in range(14)]
    query = euclidean(bank.mean(axis=0, keepdims=True), bank)
    expected = min(query[0, n] / spread[n] for n in range(14))
    assert LocalDensity.fit("local", within, neighbours=2).score(query)[0] == pytest.approx(expected, rel=1e-5)


def test_variance_normalisation_varies_least_over_the_references(bank: F32) -> None:
    within = euclidean(bank, bank)
    offset = LocalDensity.fit("variance", within, neighbours=3).offset
    spread = np.array([np.sort(np.delete(within[n], n))[:3].mean() for n in range(14)])
    alpha = float((offset / spread).mean())
    others = within + np.diag(np.full(14, np.inf, np.float32))
    d, b = others.min(axis=1), spread[others.argmin(axis=1)]
    best = np.var(d - alpha * b)
    assert all(np.var(d - other * b) >= best * (1 - 1e-5) for other in np.linspace(alpha - 1, alpha + 1, 41))


def test_domain_score_of_a_typical_reference_is_one_in_both_domains(bank: F32) -> None:
    within = euclidean(bank, bank)
    left_out = LocalDensity.fit("domain", within, DOMAINS).leave_one_out(within)
    assert np.median(left_out[:10]) == pytest.approx(1, abs=1e-5)
    assert np.median(left_out[10:]) == pytest.approx(1, abs=1e-5)


def test_domain_of_one_reference_takes_the_scale_of_all(bank: F32) -> None:
    within = euclidean(bank, bank)
    lonely = DOMAINS * 0
    lonely[-1] = 1
    others = within + np.diag(np.full(14, np.inf, np.float32))
    assert LocalDensity.fit("domain", within, lonely).scale[-1] == pytest.approx(np.median(others.min(axis=1)))


@pytest.mark.parametrize("kind", NORMALISATIONS)
def test_identical_references_give_finite_scores(kind: str) -> None:
    same = np.zeros((4, 4), np.float32)
    density = LocalDensity.fit(kind, same, np.zeros(4, np.int64))  # type: ignore[arg-type]
    assert np.isfinite(density.score(np.ones((2, 4), np.float32))).all()


def test_through_arrays_is_the_same(bank: F32) -> None:
    within = euclidean(bank, bank)
    density = LocalDensity.fit("local", within)
    np.testing.assert_array_equal(LocalDensity.from_arrays(density.arrays()).score(within), density.score(within))


def test_broken_arrays_raise_bundle_error() -> None:
    good = {"offset": np.zeros(3), "scale": np.ones(3)}
    with pytest.raises(BundleError, match="scale"):
        LocalDensity.from_arrays({"offset": good["offset"]})
    with pytest.raises(BundleError, match="positive"):
        LocalDensity.from_arrays(good | {"scale": np.zeros(3)})


def test_unknown_kind_or_missing_domains_raise_value_error(bank: F32) -> None:
    within = euclidean(bank, bank)
    with pytest.raises(ValueError, match="kinds"):
        LocalDensity.fit("nothing", within)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="domain"):
        LocalDensity.fit("domain", within)
