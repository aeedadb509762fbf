"""Normal clips of a machine → bank, hnswlib graph with its recall against exact search, and the calibrated tail of normal scores.

Embeddings come from the very session that listens on the edge, so that a bank and a window differ by nothing but the sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import ExportError
from asd_daemon.judge.bundle import MachineEntry
from asd_daemon.judge.calibration import Calibration, GammaFit, Quantile
from asd_daemon.judge.index import ExactIndex, HnswIndex, leave_one_out

F32 = NDArray[np.float32]

# From likely to once in years of 10 s windows
TAIL = (0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 5e-3, 3e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4, 1e-5, 1e-6)
SEARCH_WIDTHS = (32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class Recall:
    """How often the graph's nearest neighbour is the exact one."""

    ef: int
    recall: float


def calibrate(scores: F32) -> Calibration:
    """Fit the gamma distribution to leave-one-out scores of normal clips and tabulate its tail.

    Maximum likelihood with location 0, as the challenge's baseline fits its scores (Harada et al., EUSIPCO 2023).

    Args:
        scores: float32 (N,), N ≥ 2, not negative.

    Raises:
        ExportError: fewer than two scores, or all of them zero (the clips are copies of one another).
    """
    from scipy.stats import gamma

    if scores.shape[0] < 2:
        raise ExportError(f"a threshold needs at least two normal clips, got {scores.shape[0]}")
    if not (scores > 0).any():
        raise ExportError(
            "every normal clip is a copy of another: their distances are all 0, no threshold can be fitted"
        )
    floor = (
        float(np.median(scores[scores > 0])) * 1e-3
    )  # a duplicated clip scores 0, whose logarithm the fit can't take
    shape, _, scale = gamma.fit(np.maximum(scores.astype(np.float64), floor), floc=0)
    tail = tuple(Quantile(exceedance=p, score=float(gamma.isf(p, shape, scale=scale))) for p in TAIL)
    return Calibration(
        clips=int(scores.shape[0]), gamma=GammaFit(shape=float(shape), location=0.0, scale=float(scale)), tail=tail
    )


def write_machine(folder: Path, relative: str, bank: F32, queries: F32) -> tuple[MachineEntry, Calibration]:
    """Write bank.npy, index.hnsw and calibration.json of one machine.

    Args:
        folder: where the three files go.
        relative: that folder's path inside the bundle.
        bank: float32 (N, D), rows of unit length: all normal training clips.
        queries: float32 (Q, D): further clips on which the search must find the exact neighbour; Q may be 0.

    Raises:
        ExportError: fewer than two clips, or clips that are all the same.
    """
    folder.mkdir(parents=True)
    np.save(folder / "bank.npy", bank, allow_pickle=False)
    calibration = calibrate(leave_one_out(bank))
    (folder / "calibration.json").write_text(calibration.model_dump_json(indent=1) + "\n")
    graph = HnswIndex.build(bank)
    graph.save(folder / "index.hnsw")
    recall = measure_recall(graph, bank, np.concatenate([bank, queries]))
    entry = MachineEntry(
        folder=relative,
        vectors=bank.shape[0],
        search="hnsw" if recall.recall == 1.0 else "exact",
        ef=recall.ef,
        recall=recall.recall,
        separated=False,
    )
    return entry, calibration


def measure_recall(graph: HnswIndex, bank: F32, queries: F32) -> Recall:
    """The smallest search width with which the graph's distances are the exact ones, or the widest and what it reaches.

    Distances are compared, not positions: of two equal vectors either is right.
    """
    exact, _ = ExactIndex(bank).nearest(queries)
    result = Recall(SEARCH_WIDTHS[0], 0.0)
    for ef in SEARCH_WIDTHS:
        graph.set_ef(ef)
        found, _ = graph.nearest(queries)
        result = Recall(ef, float(np.mean(found <= exact + 1e-5)))
        if result.recall == 1.0:
            break
    return result
