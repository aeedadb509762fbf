"""Neighbour search against scikit-learn, and hnswlib against exact search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from asd_daemon.errors import BundleError
from asd_daemon.judge.distances.nearest_neighbours import (
    BandIndex,
    ExactIndex,
    HnswIndex,
    NeighbourIndex,
    leave_one_out,
)


def unit_rows(rng: np.random.Generator, n: int, d: int) -> NDArray[np.float32]:
    x = rng.normal(size=(n, d)).astype(np.float32)
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("queries", [1, 700])
def test_exact_index_random_vectors_equals_scikit_learn(k: int, queries: int) -> None:
    rng = np.random.default_rng(1)
    bank, asked = unit_rows(rng, 300, 24), unit_rows(rng, queries, 24)
    distances, positions = ExactIndex(bank).nearest(asked, k)
    reference = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(bank)
    expected, expected_positions = reference.kneighbors(asked)
    np.testing.assert_allclose(distances, expected, atol=2e-6)
    np.testing.assert_array_equal(positions, expected_positions)
    assert distances.dtype == np.float32
    assert positions.dtype == np.int64


def test_hnsw_index_clustered_vectors_finds_the_exact_neighbour(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    centres = unit_rows(rng, 10, 32)
    bank = centres[rng.integers(10, size=2000)] + 0.1 * rng.normal(size=(2000, 32)).astype(np.float32)
    bank = (bank / np.linalg.norm(bank, axis=1, keepdims=True)).astype(np.float32)
    built = HnswIndex.build(bank)
    built.save(tmp_path / "index.hnsw")
    loaded = HnswIndex.load(tmp_path / "index.hnsw", size=2000, dim=32, ef=128)
    exact, _ = ExactIndex(bank).nearest(bank[:200], 5)
    found, _ = loaded.nearest(bank[:200], 5)
    assert np.mean(np.abs(found - exact) < 1e-5) > 0.99
    np.testing.assert_allclose(found[:, 0], 0, atol=1e-6)


def test_hnsw_index_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.hnsw").write_bytes(b"not an index at all, only text" * 20)
    with pytest.raises(BundleError, match=r"index\.hnsw"):
        HnswIndex.load(tmp_path / "index.hnsw", size=10, dim=4, ef=10)


def test_hnsw_index_of_another_size_is_refused(tmp_path: Path) -> None:
    bank = unit_rows(np.random.default_rng(3), 20, 4)
    HnswIndex.build(bank).save(tmp_path / "index.hnsw")
    with pytest.raises(BundleError, match="holds 20 vectors, the manifest says 21"):
        HnswIndex.load(tmp_path / "index.hnsw", size=21, dim=4, ef=10)


def test_leave_one_out_random_vectors_equals_second_neighbour() -> None:
    bank = unit_rows(np.random.default_rng(4), 600, 8)
    expected = NearestNeighbors(n_neighbors=2, metric="cosine", algorithm="brute").fit(bank).kneighbors(bank)[0][:, 1]
    np.testing.assert_allclose(leave_one_out(bank), expected, atol=2e-6)


def test_bands_random_vectors_equal_the_mean_of_scikit_learn_in_each_band() -> None:
    rng = np.random.default_rng(8)
    bank, asked = unit_rows(rng, 300, 24), unit_rows(rng, 40, 24)
    parts = list(zip(np.split(bank, 4, axis=1), np.split(asked, 4, axis=1), strict=True))
    near = [NearestNeighbors(n_neighbors=2, metric="cosine", algorithm="brute").fit(own) for own, _ in parts]
    expected = np.mean([fit.kneighbors(ask)[0][:, 0] for fit, (_, ask) in zip(near, parts, strict=True)], axis=0)
    np.testing.assert_allclose(BandIndex(bank, 4).distance(asked), expected, atol=2e-6)
    alone = np.mean([fit.kneighbors(own)[0][:, 1] for fit, (own, _) in zip(near, parts, strict=True)], axis=0)
    np.testing.assert_allclose(leave_one_out(bank, 4), alone, atol=2e-6)
    assert (BandIndex(bank, 4).distance(asked) < ExactIndex(bank).distance(asked)).mean() > 0.9
    with pytest.raises(ValueError, match=r"\(Q, 24\)"):
        BandIndex(bank, 4).distance(asked[:, :23])


def test_leave_one_out_duplicated_vector_scores_zero() -> None:
    bank = unit_rows(np.random.default_rng(5), 5, 8)
    np.testing.assert_allclose(leave_one_out(np.concatenate([bank, bank])), 0, atol=1e-6)


@pytest.mark.parametrize("make", [ExactIndex, HnswIndex.build])
def test_nearest_wrong_shape_or_k_is_refused(make: type[ExactIndex]) -> None:
    index: NeighbourIndex = make(unit_rows(np.random.default_rng(6), 5, 8))
    with pytest.raises(ValueError, match=r"\(Q, 8\)"):
        index.nearest(np.zeros((1, 7), np.float32))
    with pytest.raises(ValueError, match="1 to 5"):
        index.nearest(np.zeros((1, 8), np.float32), k=6)
