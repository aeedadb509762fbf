"""From embeddings to anomaly scores of test clips, as the paper does it (section 2.3).

Owns what only evaluation needs: banks of a run's training clips, a section and year at a time, and leave-one-out scores of those clips. The
search is the edge's own (`nearest_neighbours`); embeddings are kept by `embeddings`; fused views, which may take the place of the nearest
neighbour, are `views`; what two microphones give is `residual`. Higher scores are more abnormal.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_daemon.judge.distances.nearest_neighbours import ExactIndex
from asd_daemon.judge.scoring.scorer import SEPARATED
from asd_trainer.data.clip import MachineSection, unit_words
from asd_trainer.data.dataset import Clip, ClipTable, training_clips
from asd_trainer.evaluate.back_ends import NEAREST, BackEnd, BackEnds, Bank
from asd_trainer.evaluate.embeddings import embed_clips, run_embeddings
from asd_trainer.evaluate.residual import TwoMicrophones, run_residual
from asd_trainer.evaluate.separation_trial import Separating, helped_machines
from asd_trainer.evaluate.views import run_views, view_table
from asd_trainer.networks.embedder import load_embedder
from asd_trainer.networks.frozen import FrozenEmbedder
from asd_trainer.separate.stage import separated_twins
from asd_trainer.training.run_folder import RUN_RECIPE, read_run_recipe

__all__ = ["RunScores", "ScoredClip", "embed_clips", "score_run"]

log = logging.getLogger(__name__)

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Scoring = Literal["nearest", "views", "residual"]


@dataclass(frozen=True)
class ScoredClip:
    """A clip with its score."""

    clip: Clip
    score: float
    """Cosine distance to the nearest normal training clip of its machine and section, in [0, 2], plus that of the separated sound where
    the run separates the machine; higher is more abnormal."""


@dataclass(frozen=True)
class RunScores:
    """What a run makes of a data set."""

    test: tuple[ScoredClip, ...]
    training: tuple[ScoredClip, ...]
    """Training clips by their distance to the others of their bank; none of a bank that has one clip."""
    embeddings: Mapping[str, tuple[tuple[Clip, ...], F32]]
    """Training and test clips of each machine with their embeddings (N, D)."""
    separated: tuple[str, ...] = ()
    """Machines whose score has the distance of the separated sound in it; of fused views, those with it among their views."""
    views: Mapping[str, Mapping[str, float]] | None = None
    """Weights of each unit's views; None where the nearest neighbour is the score."""
    back_ends: Mapping[str, tuple[BackEnd, ...]] | None = None
    """The back ends by which each unit was judged; None where it was the nearest neighbour alone."""
    near_alone: RunScores | None = None
    """Of residuals: the scores of the near microphone alone, which they are compared with."""


def score_run(
    run: Path,
    table: ClipTable,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    scoring: Scoring = "nearest",
    separating: Separating | None = None,
    two: TwoMicrophones = TwoMicrophones(),  # noqa: B008  frozen
    back_ends: BackEnds | None = None,
) -> RunScores:
    """Score every test clip against the normal training clips of its machine, year and section.

    The nearest neighbour is the paper's score (k = 1, cosine). Where the run separates a machine, the distance of the separated sound is
    added. A section without training clips is compared with those of the machine's other sections in that year. Embeddings are kept in
    the run, so that a second call embeds nothing.

    Args:
        run: the run folder.
        table: training and test clips.
        progress: told how many clips are embedded, of how many.
        scoring: the nearest neighbour, the views of each unit's steady sound and movement, or the nearest neighbour of what the near
            microphone's embedding has beyond the far one's.
        separating: of the nearest neighbour: whether the separated sound counts, by each machine's normal clips (auto), always or never;
            None for what the run's recipe says.
        two: of residuals: the microphones' channels and the far one's weight.
        back_ends: of the nearest neighbour: what judges the embeddings in its place; None for what the run's recipe says.

    Raises:
        SettingsError: the far microphone's weight is out of range.
        StageError: the run holds no trained embedder, or can't be written to.
        DataSetError: there are no test clips, a machine has test clips and no training clips, or too few to learn views from, or a
            clip lacks the near or the far channel.
        RecordingError: a clip can't be read.
    """
    test = table.select(split="test")
    if not test:
        raise DataSetError(
            "the data has no test clips, so there is nothing to evaluate; expected files under <machine>/test/"
        )
    tested = {(clip.machine, clip.year) for clip in test}
    train = tuple(clip for clip in training_clips(table) if (clip.machine, clip.year) in tested)
    missing = sorted(
        {clip.machine for clip in test if (clip.machine, clip.year) not in {(c.machine, c.year) for c in train}}
    )
    if missing:
        raise DataSetError(
            f"{', '.join(missing)}: test clips without any normal training clip of the machine to compare them with"
        )
    if scoring == "residual":
        near, residual = run_residual(run, (*train, *test), two, progress)
        alone_scores = scores_of(train, test, near)
        found = scores_of(train, test, residual)
        return replace(found, embeddings=alone_scores.embeddings, near_alone=alone_scores)
    heard = run_embeddings(run, (*train, *test), progress)
    if scoring == "views":
        return _by_views(run, train, test, heard)
    chosen = separating or (read_run_recipe(run).evaluate.separation if (run / RUN_RECIPE).exists() else "auto")
    judged_by = recipe_back_ends(run) if back_ends is None else back_ends
    helped = helped_machines(run, train, chosen, judged_by.bands)
    whose = "by its recipe" if separating is None else "as asked for"
    added = f", and of the separated one of {', '.join(helped)}" if helped else ""
    log.info("%s: scored by the distance of the heard sound%s (separated sound: %s, %s)", run, added, chosen, whose)
    twins = separated_twins(run, [clip for clip in (*train, *test) if clip.machine in helped])
    separated = {one.clip: one.machine for one in twins if one is not None}
    alone = run_embeddings(run, tuple(separated.values()), progress) if separated else None
    twin = Separated(tuple(separated), alone) if alone is not None else None
    return replace(scores_of(train, test, heard, twin, judged_by), separated=helped)


def _by_views(run: Path, train: Sequence[Clip], test: Sequence[Clip], heard: F32) -> RunScores:
    """Scores by fused views; a unit's training clips by views that were fitted without them."""
    found = run_views(run, train, test)
    scores = dict.fromkeys(test, 0.0)
    training: list[ScoredClip] = []
    for unit, one in found.items():
        scores |= zip((clip for clip in test if clip.unit == unit), map(float, one.test), strict=True)
        own = [clip for clip in train if clip.unit == unit]
        training += [ScoredClip(c, float(s)) for c, s in zip(own, one.training, strict=True)] if own else []
    words = view_table(ClipTable(tuple(test)), found)
    return RunScores(
        test=tuple(ScoredClip(clip, scores[clip]) for clip in test),
        training=tuple(training),
        embeddings=_by_machine((*train, *test), heard),
        separated=tuple(
            sorted({unit.machine for unit, one in found.items() if SEPARATED in dict(one.learned.weights)})
        ),
        views=words,
    )


def _by_machine(clips: Sequence[Clip], embeddings: F32) -> dict[str, tuple[tuple[Clip, ...], F32]]:
    """Clips of each machine that has test clips, with their embeddings."""
    machines = {}
    for machine in sorted({clip.machine for clip in clips if clip.split == "test"}):
        rows = np.array([row for row, clip in enumerate(clips) if clip.machine == machine])
        machines[machine] = (tuple(clips[row] for row in rows), embeddings[rows])
    return machines


@dataclass(frozen=True)
class Separated:
    """Clips whose machine was separated from its noise, with the embeddings (S, D) of the machine alone."""

    clips: tuple[Clip, ...]
    embeddings: F32


def scores_of(
    train: Sequence[Clip],
    test: Sequence[Clip],
    embeddings: F32,
    separated: Separated | None = None,
    back_ends: BackEnds = NEAREST,
) -> RunScores:
    """Scores from embeddings (N, D) of the training clips followed by the test clips.

    Where machines were separated, the score of the separated sound among that of the training clips is added, as on the edge.
    """
    clips = (*train, *test)
    used: dict[str, tuple[BackEnd, ...]] = {}
    scores = np.concatenate(_judged(train, test, embeddings, back_ends, used))
    if separated is not None:
        row = {clip: number for number, clip in enumerate(separated.clips)}
        own_train, own_test = ([clip for clip in part if clip in row] for part in (train, test))
        alone = separated.embeddings[[row[clip] for clip in (*own_train, *own_test)]]
        at = [number for number, clip in enumerate(clips) if clip in row]
        scores[at] += np.concatenate(_judged(own_train, own_test, alone, back_ends, {}))
    scored = [ScoredClip(clip, float(score)) for clip, score in zip(clips, scores, strict=True)]
    return RunScores(
        test=tuple(scored[len(train) :]),
        training=tuple(one for one in scored[: len(train)] if not np.isnan(one.score)),
        embeddings=_by_machine(clips, embeddings),
        back_ends=used or None,
    )


def _judged(
    train: Sequence[Clip],
    test: Sequence[Clip],
    embeddings: F32,
    back_ends: BackEnds,
    used: dict[str, tuple[BackEnd, ...]],
) -> tuple[F64, F64]:
    """Scores of the training clips, each left out of its bank, and of the test clips; what judged each unit is put into `used`."""
    if back_ends == NEAREST:
        return _distances(train, test, embeddings)
    judging = back_ends.judging()
    rows, tested = _rows(train), _rows(test)
    domains = np.array([clip.domain == "target" for clip in train], np.int64)
    left_out, scores = np.empty(len(train)), np.empty(len(test))
    for unit in sorted({*rows, *tested}):
        beside = [other for other in rows if (other.machine, other.year) == (unit.machine, unit.year)]
        own = rows[unit] if unit in rows else np.concatenate([rows[other] for other in beside])
        foreign = np.flatnonzero([clip.machine != unit.machine for clip in train])
        queries = embeddings[len(train) + tested[unit]] if unit in tested else embeddings[:0]
        found = judging(Bank(embeddings[own], domains[own]), queries, embeddings[foreign])
        if unit in rows:
            left_out[own] = found.held_out
        if unit in tested:
            scores[tested[unit]] = found.queries
        used["_".join(unit_words(unit, tested, "section_"))] = found.chosen
    return left_out, scores


def recipe_back_ends(run: Path) -> BackEnds:
    """The back ends that a run's recipe says (`evaluate.back_ends`, `neighbours`), for each band where `frozen.bands` is separate.

    Raises:
        StageError: with such bands, the run has no embedder.
    """
    if not (run / RUN_RECIPE).exists():  # whoever opens the run says what is missing
        return NEAREST
    settings = read_run_recipe(run)
    bands = 1
    if settings.frozen.enabled and settings.frozen.bands == "separate":
        embedder = load_embedder(run)
        if isinstance(embedder, FrozenEmbedder):
            bands = embedder.neighbour_bands
    return BackEnds(settings.evaluate.back_ends, settings.evaluate.neighbours, bands)


def _distances(train: Sequence[Clip], test: Sequence[Clip], embeddings: F32) -> tuple[F64, F64]:
    """Distances of the training clips, each left out of its bank, and of the test clips; a bank to each machine, year and section."""
    banks = {unit: embeddings[rows] for unit, rows in _rows(train).items()}
    left_out, distances = np.empty(len(train)), np.empty(len(test))
    for unit, rows in _rows(train).items():
        left_out[rows] = leave_one_out(banks[unit])
    for unit, rows in _rows(test).items():
        others = [bank for other, bank in banks.items() if (other.machine, other.year) == (unit.machine, unit.year)]
        bank = banks[unit] if unit in banks else np.concatenate(others)
        distances[rows] = ExactIndex(bank).nearest(embeddings[len(train) + rows], k=1)[0][:, 0]
    return left_out, distances


def leave_one_out(bank: F32) -> F64:
    """The distance of each vector of a bank (N, D) to the nearest other, (N,); not a number where there is no other."""
    if bank.shape[0] < 2:
        return np.full(bank.shape[0], np.nan)
    distances, positions = ExactIndex(bank).nearest(bank, k=2)
    itself_first = positions[:, 0] == np.arange(bank.shape[0])
    return np.where(itself_first, distances[:, 1], distances[:, 0]).astype(np.float64)


def _rows(clips: Sequence[Clip]) -> dict[MachineSection, NDArray[np.int64]]:
    rows: defaultdict[MachineSection, list[int]] = defaultdict(list)
    for row, clip in enumerate(clips):
        rows[clip.unit].append(row)
    return {unit: np.array(of_unit, np.int64) for unit, of_unit in sorted(rows.items())}
