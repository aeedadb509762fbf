"""Whitening: distances in units of how much normal vectors differ."""

from __future__ import annotations

import numpy as np
import pytest

from asd_daemon.errors import BundleError
from asd_daemon.judge.distances.whitening import Whitening, euclidean, principal_axes


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("shape", [(40, 6), (9, 30)], ids=["more windows than dimensions", "fewer"])
def test_whitening_distances_equal_those_of_the_shrunk_covariance(
    shape: tuple[int, int], rng: np.random.Generator
) -> None:
    whole = (rng.standard_normal(shape) @ rng.standard_normal((shape[1], shape[1]))).astype(np.float32)
    parts = whole[:, None] + rng.standard_normal((shape[0], 3, shape[1])).astype(np.float32)
    within = (parts - parts.mean(axis=1, keepdims=True)).reshape(-1, shape[1]).astype(np.float64)
    between = (whole - whole.mean(axis=0)).astype(np.float64)
    covariances = [x.T @ x for x in (within, between)]
    mixed = sum(c * shape[1] / np.trace(c) for c in covariances) / 2
    inverse = np.linalg.inv(0.6 * mixed + 0.4 * np.eye(shape[1]))
    queries = rng.standard_normal((5, shape[1])).astype(np.float32)
    steps = queries[:, None].astype(np.float64) - whole[None]
    expected = np.sqrt(np.einsum("qnd,de,qne->qn", steps, inverse, steps))
    whitening = Whitening.fit(whole, parts, shrinkage=0.4)
    np.testing.assert_allclose(euclidean(whitening.apply(queries), whitening.apply(whole)), expected, rtol=1e-3)


def test_whitening_of_windows_all_alike_leaves_finite_distances() -> None:
    whitening = Whitening.fit(np.ones((4, 3), np.float32), np.ones((4, 3, 3), np.float32))
    np.testing.assert_allclose(whitening.apply(np.zeros((1, 3), np.float32)), [[-1, -1, -1]])


def test_whitening_through_arrays_is_the_same(rng: np.random.Generator) -> None:
    whole = rng.standard_normal((8, 5)).astype(np.float32)
    whitening = Whitening.fit(whole)
    again = Whitening.from_arrays(whitening.arrays())
    np.testing.assert_array_equal(again.apply(whole), whitening.apply(whole))


def test_whitening_from_arrays_that_do_not_fit_raises_bundle_error(rng: np.random.Generator) -> None:
    arrays = Whitening.fit(rng.standard_normal((8, 5)).astype(np.float32)).arrays()
    with pytest.raises(BundleError, match="gain"):
        Whitening.from_arrays({k: v for k, v in arrays.items() if k != "gain"})
    with pytest.raises(BundleError, match="do not fit"):
        Whitening.from_arrays(arrays | {"mean": np.zeros(4)})


@pytest.mark.parametrize("shrinkage", [0.0, 1.1])
def test_whitening_with_impossible_shrinkage_raises_value_error(shrinkage: float) -> None:
    with pytest.raises(ValueError, match="shrinkage"):
        Whitening.fit(np.eye(3, dtype=np.float32), shrinkage=shrinkage)


@pytest.mark.parametrize("shape", [(32, 512), (200, 128)], ids=["fewer rows than components", "more"])
def test_principal_axes_of_ill_conditioned_rows_equal_the_singular_values(
    shape: tuple[int, int], rng: np.random.Generator
) -> None:
    """Rows over nine orders of magnitude, many of them all but equal: LAPACK's divide-and-conquer SVD has failed to converge on such."""
    rows = rng.standard_normal(shape) * np.geomspace(1, 1e-9, shape[1])
    rows[1::2] = rows[::2] * (1 + 1e-12)
    variance, axes = principal_axes(rows)
    singular = np.linalg.svd(rows, compute_uv=False)
    kept = singular**2 > 1e-8 * singular[0] ** 2
    np.testing.assert_allclose(np.sort(variance)[::-1][: kept.sum()], singular[kept] ** 2, rtol=1e-5)
    np.testing.assert_allclose(axes @ axes.T, np.eye(len(axes)), atol=1e-5)


def test_whitening_asks_for_no_singular_values(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """They need not converge on every processor, whatever the data."""
    monkeypatch.delattr(np.linalg, "svd")
    assert np.isfinite(Whitening.fit(rng.standard_normal((32, 128)).astype(np.float32)).axes).all()
