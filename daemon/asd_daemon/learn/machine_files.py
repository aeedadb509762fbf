"""The files of a learned machine: banks, fitted views, index, calibration, and how far the index can be trusted."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_daemon.judge.bundle.bundle import BANK, CALIBRATION, FUSION, INDEX, SEPARATED, MachineEntry
from asd_daemon.judge.bundle.manifest import MachineStates, NearestEntry, StateEntry
from asd_daemon.judge.bundle.nearest_files import widened
from asd_daemon.judge.distances.fusion_file import write_fusion
from asd_daemon.judge.distances.nearest_neighbours import ExactIndex, HnswIndex, leave_one_out
from asd_daemon.judge.scoring.nearest_neighbour import HEARD
from asd_daemon.judge.scoring.nearest_neighbour import SEPARATED as SEPARATED_SOUND
from asd_daemon.judge.thresholds.calibration import Calibration, calibrate
from asd_daemon.learn.learned_states import LearnedStates
from asd_daemon.learn.learning import LearnedMachine

F32 = NDArray[np.float32]

SEARCH_WIDTHS = (32, 64, 128, 256, 512, 1024)
LEAST_GRAPH_VECTORS = 10_000
"""From so many on a graph finds a neighbour sooner than one matrix product does (lab notebook, 2026-11-22, "Search at three sizes")."""
NEAREST_FOLDER = "nearest"


@dataclass(frozen=True)
class Bank:
    """Embeddings of a machine's normal sound, rows of unit length."""

    heard: F32
    """(N, D)."""
    separated: F32 | None = None
    """(N, D), of the same windows' separated sound; None: the machine does without."""
    queries: F32 | None = None
    """(Q, D), further windows on which a graph must find the exact neighbour; None: there are none."""
    least_graph: int = LEAST_GRAPH_VECTORS
    """From how many vectors on there is a graph."""
    bands: int = 1
    """Parts of an embedding that look for neighbours each by itself; a bank of several has no graph."""
    in_half: bool = False
    """Whether it is kept in half precision, which programs before bundles of schema 3 do not read."""


def write_nearest(folder: Path, relative: str, bank: Bank) -> tuple[NearestEntry, Calibration]:
    """Write what a nearest neighbour is looked for in.

    Args:
        folder: where it goes; made here where it is missing.
        relative: that folder's path inside the bundle.
        bank: embeddings.

    Raises:
        DataSetError: fewer than two windows, or windows that are all the same.
    """
    heard, separated = bank.heard, bank.separated
    if heard.shape[0] < 2:
        raise DataSetError(f"an index needs at least two normal clips, got {heard.shape[0]}")
    if bank.in_half:
        heard = widened(heard.astype(np.float16))
        separated = None if separated is None else widened(separated.astype(np.float16))
    alone = leave_one_out(heard, bank.bands)
    calibration = calibrate(alone if separated is None else alone + leave_one_out(separated, bank.bands))
    folder.mkdir(parents=True, exist_ok=True)
    kept = np.float16 if bank.in_half else np.float32
    for name, rows in ((BANK, bank.heard), (SEPARATED, bank.separated)):
        if rows is not None:
            np.save(folder / name, rows.astype(kept), allow_pickle=False)
    ef, recall = SEARCH_WIDTHS[0], 0.0
    if bank.bands == 1 and heard.shape[0] >= bank.least_graph and HnswIndex.available():
        graph = HnswIndex.build(heard)
        graph.save(folder / INDEX)
        queries = heard if bank.queries is None else np.concatenate([heard, bank.queries])
        ef, recall = measure_recall(graph, heard, queries)
    (folder / CALIBRATION).write_text(calibration.model_dump_json(indent=1) + "\n")
    entry = NearestEntry(
        folder=relative,
        vectors=heard.shape[0],
        search="hnsw" if recall == 1.0 else "exact",
        ef=ef,
        recall=recall,
        separated=separated is not None,
    )
    return entry, calibration


def write_embeddings(folder: Path, vectors: Mapping[str, F32], models: str, bands: int) -> NearestEntry | None:
    """Write the banks of a machine's embeddings into its folder, copies of a window once; None where there are none.

    Args:
        folder: that of its learned state.
        vectors: view → (N, 1, D).
        models: SHA-256 of the models that made them, which names the folder: another bundle's never take their place half-way.
        bands: parts of an embedding that look for neighbours each by itself.

    Raises:
        OSError: the disk refuses.
        DataSetError: fewer than two windows, or all the same.
    """
    if HEARD not in vectors:
        return None
    heard = vectors[HEARD][:, 0]
    rows = np.sort(np.unique(heard, axis=0, return_index=True)[1])
    separated = vectors[SEPARATED_SOUND][rows, 0] if SEPARATED_SOUND in vectors else None
    bank = Bank(heard[rows], separated, bands=bands)
    name = f"{NEAREST_FOLDER}-{models[:8]}"
    shutil.rmtree(folder / name, ignore_errors=True)
    entry, _ = write_nearest(folder / name, f"{folder.name}/{name}", bank)
    return entry


def write_machine(
    folder: Path,
    relative: str,
    bank: Bank | None = None,
    *,
    learned: LearnedMachine | None = None,
    packed: bool = False,
) -> tuple[MachineEntry, Calibration]:
    """Write the files of one machine.

    Args:
        folder: where they go; made here.
        relative: that folder's path inside the bundle.
        bank: all normal clips' embeddings; None: fitted views do without.
        learned: fitted views; None: the nearest neighbour is the score.
        packed: write them so that programs before bundles of schema 3 do not read them.

    Returns:
        its entry, and the calibration of its score.

    Raises:
        DataSetError: as `write_nearest`.
        ValueError: neither a bank nor fitted views.
    """
    if learned is None:
        if bank is None:
            raise ValueError("a machine is known by a bank or by fitted views")
        nearest, calibration = write_nearest(folder, relative, bank)
        return MachineEntry(**nearest.model_dump()), calibration
    folder.mkdir(parents=True)
    write_fusion(learned.fusion, folder / FUSION, packed=packed)
    (folder / CALIBRATION).write_text(learned.calibration.model_dump_json(indent=1) + "\n")
    beside = None
    if bank is not None:
        beside, _ = write_nearest(folder / NEAREST_FOLDER, f"{relative}/{NEAREST_FOLDER}", bank)
    entry = MachineEntry(
        folder=relative,
        vectors=learned.held_out.shape[0],  # fused views hold their own references
        search="exact",
        ef=SEARCH_WIDTHS[0],
        recall=0.0,
        separated=False,
        views=learned.fusion.names(),
        nearest=beside,
    )
    return entry, learned.calibration


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
