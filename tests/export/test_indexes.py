"""Bank, graph and calibration of one machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asd_daemon.errors import DataSetError
from asd_daemon.judge.distances.nearest_neighbours import ExactIndex, HnswIndex
from asd_daemon.judge.thresholds.calibration import Calibration, calibrate
from asd_daemon.learn.machine_files import LEAST_GRAPH_VECTORS, Bank, measure_recall, write_machine


def unit_rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


def test_write_machine_graph_finds_the_exact_neighbour(tmp_path: Path) -> None:
    bank, queries = unit_rows(400, 24), unit_rows(50, 24, seed=1)
    entry, calibration = write_machine(tmp_path / "m", "machines/m", Bank(bank, queries=queries, least_graph=2))
    assert entry.search == "hnsw"
    assert entry.recall == 1.0
    np.testing.assert_array_equal(np.load(tmp_path / "m/bank.npy"), bank)
    assert Calibration.model_validate_json((tmp_path / "m/calibration.json").read_bytes()) == calibration
    graph = HnswIndex.load(tmp_path / "m/index.hnsw", size=400, dim=24, ef=entry.ef)
    np.testing.assert_allclose(graph.nearest(queries)[0], ExactIndex(bank).nearest(queries)[0], atol=1e-5)


def test_write_machine_small_bank_is_searched_exactly(tmp_path: Path) -> None:
    entry, _ = write_machine(tmp_path / "m", "machines/m", Bank(unit_rows(400, 24)))
    assert LEAST_GRAPH_VECTORS > 400
    assert entry.search == "exact"
    assert not (tmp_path / "m/index.hnsw").exists()


def test_measure_recall_graph_too_sparse_says_what_it_reaches() -> None:
    bank = unit_rows(3000, 64)
    sparse = HnswIndex.build(bank, links=2, ef_construction=2)
    ef, recall = measure_recall(sparse, bank, unit_rows(200, 64, seed=1))
    assert ef == 1024
    assert recall < 1.0


def test_write_machine_one_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="at least two"):
        write_machine(tmp_path / "m", "machines/m", Bank(unit_rows(1, 8)))


def test_calibrate_copies_of_one_clip_are_refused() -> None:
    with pytest.raises(DataSetError, match="copy of another"):
        calibrate(np.zeros(10, np.float32))
