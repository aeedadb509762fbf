"""Vectors of a healthy machine's windows → what it is judged by: views with their weights, index, calibration.

Owns learning a machine, for the exporter and the box alike. It hears nothing, keeps nothing but a machine's folder, and needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_daemon.judge.bundle.bundle import BANK, CALIBRATION, FUSION, INDEX, SEPARATED, MachineEntry
from asd_daemon.judge.distances.fusion import Candidate, Fusion, write_fusion
from asd_daemon.judge.distances.nearest_neighbours import ExactIndex, HnswIndex, leave_one_out
from asd_daemon.judge.features.views import VIEW_NAMES
from asd_daemon.judge.scoring.scorer import HEARD, FeatureExtractor
from asd_daemon.judge.scoring.scorer import SEPARATED as SEPARATED_VIEW
from asd_daemon.judge.thresholds.calibration import Calibration, calibrate
from asd_daemon.learn.pseudo_anomalies import pseudo_anomalies
from asd_daemon.learn.view_selection import select_views

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

LEAST_WINDOWS = 16
MOST_CHOSEN_FROM = 160  # windows that views are chosen with: more cost time and change no choice
STRETCHES = 4
SURE = 2.0  # standard errors
SEARCH_WIDTHS = (32, 64, 128, 256, 512, 1024)
CANDIDATES: tuple[Candidate, ...] = (
    *(Candidate(view) for view in VIEW_NAMES),
    Candidate("moments", 1.0),
)
"""Views that need no model."""
EMBEDDED: Mapping[str, Candidate] = {view: Candidate(view, None) for view in (HEARD, SEPARATED_VIEW)}


@dataclass(frozen=True)
class NormalSound:
    """Normal windows of a machine, as vectors, in the order they were heard."""

    vectors: Mapping[str, F32]
    """view → (N, 1 + P, D); P is 0 for embeddings."""
    changed: Mapping[str, F32]
    """view → (F, M, D): the windows of `with_changed` after each kind of change; empty where nothing is decided by them."""
    domains: I64
    """(N,), a number for each domain."""
    changed_rows: I64 | None = None
    """(M,), which windows have changed copies; None: all."""

    @property
    def with_changed(self) -> I64:
        """Positions (M,) of the windows that have changed copies."""
        return np.arange(self.windows) if self.changed_rows is None else self.changed_rows

    @property
    def windows(self) -> int:
        """N."""
        return int(self.domains.shape[0])

    def originals(self) -> tuple[I64, I64]:
        """Positions (K,) of the windows that are no copy of an earlier one in every view, and (N,) which of these K each window is.

        Left in, a copy lies at distance 0 from its original, and every other window is infinitely far measured by that.
        """
        seen: dict[bytes, int] = {}
        which = np.empty(self.windows, np.int64)
        for n in range(self.windows):
            which[n] = seen.setdefault(b"".join(own[n, 0].tobytes() for own in self.vectors.values()), len(seen))
        return np.unique(which, return_index=True)[1].astype(np.int64), which

    def only(self, rows: I64) -> NormalSound:
        """The windows at these positions (K,), which rise, with their changed copies."""
        has_changed = np.isin(self.with_changed, rows)
        return NormalSound(
            {view: vectors[rows] for view, vectors in self.vectors.items()},
            {view: changed[:, has_changed] for view, changed in self.changed.items()},
            self.domains[rows],
            None if self.changed_rows is None else np.searchsorted(rows, self.changed_rows[has_changed]),
        )

    @classmethod
    def joined(
        cls, windows: Sequence[tuple[Mapping[str, F32], Mapping[str, F32]]], domains: I64 | None = None
    ) -> NormalSound:
        """From what `describe_normal` gave of each window."""
        vectors = {view: np.stack([own[view] for own, _ in windows]) for view in windows[0][0]}
        changed = {view: np.stack([own[view] for _, own in windows], axis=1) for view in windows[0][1]}
        return cls(vectors, changed, np.zeros(len(windows), np.int64) if domains is None else domains)


@dataclass(frozen=True)
class LearnedMachine:
    """What a machine is judged by from now on."""

    fusion: Fusion
    weights: tuple[tuple[str, float], ...]
    """The chosen views, each once."""
    calibration: Calibration
    pseudo_auc: float
    """How often a changed window scores above a normal one, on average over the changes; 0.5 is chance."""
    drift: float
    """Median score of a stretch of time by the views fitted to the others; 1 where the machine sounds the same all the time."""
    held_out: F32
    """(N,), what the windows themselves score by views fitted without them."""


def describe_normal(
    hearing: FeatureExtractor, waveform: F32, views: Sequence[str], rng: np.random.Generator
) -> tuple[dict[str, F32], dict[str, F32]]:
    """Vectors of one normal window (160 000,): view → (1 + P, D), and after each change: view → (F, D).

    Raises:
        RecordingError: no finite window.
    """
    own = hearing.vectors(waveform, views, parts=True)
    changed = [hearing.vectors(window, views) for window in pseudo_anomalies(waveform, rng).values()]
    return own, {view: np.concatenate([one[view] for one in changed]) for view in views}


def candidates_of(vectors: Mapping[str, F32]) -> tuple[Candidate, ...]:
    """What there is to choose from with these views."""
    embedded = tuple(candidate for view, candidate in EMBEDDED.items() if view in vectors)
    return tuple(c for c in CANDIDATES if c.view in vectors) + embedded


def learn(sound: NormalSound, told: Callable[[str], None] = lambda _: None) -> LearnedMachine:
    """Choose views by changed windows, fit them, and calibrate their score. Copies of a window count once.

    Args:
        sound: normal windows.
        told: called with what is at hand, for it may take minutes on a small board.

    Raises:
        DataSetError: fewer than LEAST_WINDOWS windows that are no copies of one another.
    """
    rows, which = sound.originals()
    if sound.windows >= LEAST_WINDOWS > len(rows):
        raise DataSetError(
            f"{sound.windows - len(rows)} of {sound.windows} windows are copies of others: at least {LEAST_WINDOWS} different"
            " ones are needed to learn how the sound varies"
        )
    if len(rows) < sound.windows:
        learned = learn(sound.only(rows), told)
        return replace(learned, held_out=learned.held_out[which])
    if sound.windows < LEAST_WINDOWS:
        raise DataSetError(
            f"{sound.windows} usable windows are too few to learn from; at least {LEAST_WINDOWS} are needed"
        )
    varied = sound.with_changed
    places = np.unique(np.linspace(0, len(varied) - 1, min(len(varied), MOST_CHOSEN_FROM)).astype(int))
    some = varied[places]
    told(f"learning from {sound.windows} windows: choosing among {len(candidates_of(sound.vectors))} views")
    chosen, value = select_views(
        candidates_of(sound.vectors),
        {view: vectors[some] for view, vectors in sound.vectors.items()},
        {view: changed[:, places] for view, changed in sound.changed.items()},
        sound.domains[some],
    )
    told(f"learning from {sound.windows} windows: fitting {len(chosen)} views")
    fusion, held_out = Fusion.fit_held_out(chosen, sound.vectors, sound.domains)
    told(f"learning from {sound.windows} windows: trying what was learned on each quarter of the time")
    stretches = _stretch_scores(chosen, sound)
    drift = float(np.median(stretches))
    # windows that follow each other are alike: where whole stretches held out score higher, they are what a new day will score
    scores = max((held_out, stretches), key=lambda each: float(np.percentile(each, 90)))
    together = {view: sum(w for c, w in chosen.items() if c.view == view) for view in fusion.names()}
    weights = tuple((view, round(weight, 4)) for view, weight in together.items())
    return LearnedMachine(fusion, weights, calibrate(scores), value, drift, held_out)


def _stretch_scores(chosen: Mapping[Candidate, float], sound: NormalSound) -> F32:
    """Scores (N,) of quarters of the time by views fitted to the other three; inside each domain."""
    scores = np.empty(sound.windows, np.float32)
    stretch = np.zeros(sound.windows, int)
    for domain in np.unique(sound.domains):
        inside = np.flatnonzero(sound.domains == domain)
        stretch[inside] = np.arange(inside.shape[0]) * STRETCHES // inside.shape[0]
    for number in range(STRETCHES):
        out = stretch == number
        fusion = Fusion.fit(chosen, {v: x[~out] for v, x in sound.vectors.items()}, sound.domains[~out])
        scores[out] = fusion.score({v: x[out, 0] for v, x in sound.vectors.items()})
    return scores


def separation_improves(heard: F32, separated: F32, changed_heard: F32, changed_separated: F32) -> bool:
    """Whether d(heard) + d(separated) tells changed windows from normal ones better than d(heard) alone, leaving each one out.

    In doubt it does not: the gain must be twice its standard error over the windows, for the second distance costs a separation and
    an embedding of every window, and harms where it tells nothing.

    Args:
        heard: embeddings (N, D) of normal windows as they were heard.
        separated: of the machine's part of them.
        changed_heard: (F, N, D), as they are heard after each change.
        changed_separated: of the machine's part of these.
    """

    def told(*pairs: tuple[F32, F32]) -> NDArray[np.float64]:
        """How many normal windows each window's changed copies score above, on average over the changes; (N,) in [0, 1]."""
        normal = np.sum([leave_one_out(bank) for bank, _ in pairs], axis=0)
        above = [
            (np.sum([_others(bank, changed[kind]) for bank, changed in pairs], axis=0)[:, None] > normal).mean(axis=1)
            for kind in range(pairs[0][1].shape[0])
        ]
        return np.asarray(np.mean(above, axis=0), np.float64)

    gain = told((heard, changed_heard), (separated, changed_separated)) - told((heard, changed_heard))
    return bool(gain.mean() > SURE * gain.std(ddof=1) / np.sqrt(gain.shape[0]))


def _others(bank: F32, changed: F32) -> F32:
    """Distance (N,) of each changed window to the nearest of the other normal ones."""
    distances = 1 - changed @ bank.T
    np.fill_diagonal(distances, np.inf)
    return np.asarray(np.maximum(distances.min(axis=1), 0), np.float32)


def write_machine(
    folder: Path,
    relative: str,
    bank: F32,
    queries: F32,
    *,
    separated_bank: F32 | None = None,
    learned: LearnedMachine | None = None,
) -> tuple[MachineEntry, Calibration]:
    """Write the files of one machine.

    Args:
        folder: where they go; made here.
        relative: that folder's path inside the bundle.
        bank: float32 (N, D), rows of unit length: all normal clips as they were heard.
        queries: float32 (Q, D): further clips on which the search must find the exact neighbour; Q may be 0.
        separated_bank: (N, D), the same clips' separated sound; None: the machine does without.
        learned: fitted views; None: the nearest neighbour is the score.

    Raises:
        DataSetError: fewer than two clips, or clips that are all the same.
    """
    if bank.shape[0] < 2:
        raise DataSetError(f"an index needs at least two normal clips, got {bank.shape[0]}")
    folder.mkdir(parents=True)
    np.save(folder / BANK, bank, allow_pickle=False)
    if separated_bank is not None:
        np.save(folder / SEPARATED, separated_bank, allow_pickle=False)
    if learned is not None:
        calibration, views = learned.calibration, learned.fusion.names()
        write_fusion(learned.fusion, folder / FUSION)
    else:
        alone = leave_one_out(bank)
        calibration = calibrate(alone if separated_bank is None else alone + leave_one_out(separated_bank))
        views = None
    (folder / CALIBRATION).write_text(calibration.model_dump_json(indent=1) + "\n")
    ef, recall = SEARCH_WIDTHS[0], 0.0
    if learned is None and HnswIndex.available():  # fused views hold their own references
        graph = HnswIndex.build(bank)
        graph.save(folder / INDEX)
        ef, recall = measure_recall(graph, bank, np.concatenate([bank, queries]))
    entry = MachineEntry(
        folder=relative,
        vectors=bank.shape[0],
        search="hnsw" if recall == 1.0 else "exact",
        ef=ef,
        recall=recall,
        separated=separated_bank is not None,
        views=views,
    )
    return entry, calibration


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
