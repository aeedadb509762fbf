"""The files of a learned machine: banks, fitted views, index, calibration, and how far the index can be trusted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_daemon.judge.bundle.bundle import BANK, CALIBRATION, FUSION, INDEX, SEPARATED, MachineEntry
from asd_daemon.judge.bundle.manifest import MachineStates, StateEntry
from asd_daemon.judge.distances.fusion import write_fusion
from asd_daemon.judge.distances.nearest_neighbours import ExactIndex, HnswIndex, leave_one_out
from asd_daemon.judge.thresholds.calibration import Calibration, calibrate
from asd_daemon.learn.learned_states import LearnedStates
from asd_daemon.learn.learning import LearnedMachine

F32 = NDArray[np.float32]

SEARCH_WIDTHS = (32, 64, 128, 256, 512, 1024)


def write_machine(
    folder: Path,
    relative: str,
    bank: F32 | None = None,
    queries: F32 | None = None,
    *,
    separated_bank: F32 | None = None,
    learned: LearnedMachine | None = None,
) -> tuple[MachineEntry, Calibration]:
    """Write the files of one machine.

    Args:
        folder: where they go; made here.
        relative: that folder's path inside the bundle.
        bank: float32 (N, D), rows of unit length: all normal clips as they were heard; None: fitted views do without.
        queries: float32 (Q, D): further clips on which the search must find the exact neighbour; None: there are none.
        separated_bank: (N, D), the same clips' separated sound; None: the machine does without.
        learned: fitted views; None: the nearest neighbour is the score.

    Raises:
        DataSetError: fewer than two clips, or clips that are all the same.
        ValueError: neither a bank nor fitted views.
    """
    if bank is None and learned is None:
        raise ValueError("a machine is known by a bank or by fitted views")
    if bank is not None and bank.shape[0] < 2:
        raise DataSetError(f"an index needs at least two normal clips, got {bank.shape[0]}")
    folder.mkdir(parents=True)
    if bank is not None:
        np.save(folder / BANK, bank, allow_pickle=False)
    if separated_bank is not None:
        np.save(folder / SEPARATED, separated_bank, allow_pickle=False)
    ef, recall = SEARCH_WIDTHS[0], 0.0
    if learned is not None:  # fused views hold their own references
        calibration, views, vectors = learned.calibration, learned.fusion.names(), learned.held_out.shape[0]
        write_fusion(learned.fusion, folder / FUSION)
    elif bank is not None:
        alone = leave_one_out(bank)
        calibration = calibrate(alone if separated_bank is None else alone + leave_one_out(separated_bank))
        views, vectors = None, bank.shape[0]
        if HnswIndex.available():
            graph = HnswIndex.build(bank)
            graph.save(folder / INDEX)
            ef, recall = measure_recall(graph, bank, bank if queries is None else np.concatenate([bank, queries]))
    (folder / CALIBRATION).write_text(calibration.model_dump_json(indent=1) + "\n")
    entry = MachineEntry(
        folder=relative,
        vectors=vectors,
        search="hnsw" if recall == 1.0 else "exact",
        ef=ef,
        recall=recall,
        separated=separated_bank is not None,
        views=views,
    )
    return entry, calibration


def write_states(folder: Path, found: LearnedStates) -> MachineStates | None:
    """Write the fitted views of each state; None where there is one normal and off is not known."""
    entries = []
    for number, state in enumerate(found.running, start=1):
        own = folder / f"state-{number}"
        own.mkdir()
        write_fusion(state.learned.fusion, own / FUSION)
        entries.append(
            StateEntry(
                name=state.name,
                folder=f"{folder.name}/{own.name}",
                views=state.learned.fusion.names(),
                windows=state.learned.held_out.shape[0],
                level_dbfs=state.level_dbfs,
            )
        )
    return MachineStates(off=found.off, running=tuple(entries)) if entries or found.off else None


def measure_recall(graph: HnswIndex, bank: F32, queries: F32) -> tuple[int, float]:
    """The smallest search width with which the graph's distances are the exact ones and 1, or the widest and what it reaches.

    Distances are compared, not positions: of two equal vectors either is right.
    """
    exact, _ = ExactIndex(bank).nearest(queries)
    ef, recall = SEARCH_WIDTHS[0], 0.0
    for ef in SEARCH_WIDTHS:
        graph.set_ef(ef)
        found, _ = graph.nearest(queries)
        recall = float(np.mean(found <= exact + 1e-5))
        if recall == 1.0:
            break
    return ef, recall
