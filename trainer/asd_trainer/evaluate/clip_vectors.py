"""Clips as vectors, for whatever comes after: each clip's embedding or views, its score, and what is known of it.

Owns the table of them. The vectors are made by the run's or the bundle's own models and views, the scores as `asd-train evaluate` or
`asd-daemon score` makes them; files of it are vector_files.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError, UsageError
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.features.views import ALL_VIEW_NAMES, VIEW_NAMES, view_sizes, view_vectors
from asd_daemon.judge.scoring.scorer import HEARD, SEPARATED, FeatureExtractor
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable, load_clip, training_clips
from asd_trainer.evaluate.backend import Scoring, recipe_back_ends, score_run, scores_of
from asd_trainer.evaluate.bundle_scores import bundle_verdicts
from asd_trainer.evaluate.embeddings import run_embeddings
from asd_trainer.evaluate.separation_trial import Separating

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Progress = Callable[[int, int], None]


def _silent(_done: int, _total: int) -> None:
    """Nobody is told."""


@dataclass(frozen=True)
class ClipVectors:
    """Clips, N of them, with their vectors and scores."""

    source: str
    """What made them: the run's folder, or name and version of the bundle."""
    clips: tuple[Clip, ...]
    vectors: Mapping[str, F32]
    """View → (N, D): `heard` is the embedding, of unit length; others are as asd_daemon.judge.features.views says."""
    scores: F64
    """(N,), higher is more abnormal; not a number where there is none: supplemental clips, machines that a bundle does not know.

    A run's training clips are scored against the others of their machine; a bundle scores all alike, those that it learned from too."""
    thresholds: F64
    """(N,), above which a bundle calls the clip anomalous; not a number where nothing does, as in runs."""


def run_vectors(
    run: Path,
    table: ClipTable,
    progress: Progress = _silent,
    *,
    views: Sequence[str] = (HEARD,),
    scoring: Scoring = "nearest",
    separating: Separating | None = None,
) -> ClipVectors:
    """Embed every clip with a run's model, and score training and test clips as `score_run` does.

    Args:
        run: the run folder; embeddings are kept in it.
        table: the clips; without test clips, training clips alone have scores.
        progress: told how many clips are embedded, of how many.
        views: `heard` and those that need no training.
        scoring: as `score_run`.
        separating: as `score_run`.

    Raises:
        UsageError: a view that there is not.
        StageError: the run holds no trained embedder, or can't be written to.
        DataSetError: no clips, or as `score_run`.
        RecordingError: a clip can't be read.
    """
    _check_views(views, (HEARD, *ALL_VIEW_NAMES))
    clips = _clips_of(table)
    embeddings, scores = _run_scores(run, table, progress, scoring, separating)
    rest = tuple(clip for clip in clips if clip not in embeddings)
    if rest:
        embeddings |= dict(zip(rest, run_embeddings(run, rest, progress), strict=True))
    vectors = {HEARD: np.stack([embeddings[clip] for clip in clips])} if HEARD in views else {}
    vectors |= untrained_views(clips, [view for view in views if view != HEARD])
    found = np.array([scores.get(clip, np.nan) for clip in clips])
    return ClipVectors(str(run), clips, vectors, found, np.full(len(clips), np.nan))


def _run_scores(
    run: Path, table: ClipTable, progress: Progress, scoring: Scoring, separating: Separating | None
) -> tuple[dict[Clip, F32], dict[Clip, float]]:
    """Embeddings and scores of the clips that are scored."""
    if table.select(split="test"):
        found = score_run(run, table, progress, scoring=scoring, separating=separating)
    else:
        train = training_clips(table)
        heard = run_embeddings(run, train, progress)
        found = scores_of(train, (), heard, back_ends=recipe_back_ends(run))
        return dict(zip(train, heard, strict=True)), {one.clip: one.score for one in found.training}
    embeddings = {clip: row for clips, rows in found.embeddings.values() for clip, row in zip(clips, rows, strict=True)}
    return embeddings, {one.clip: one.score for one in (*found.training, *found.test)}


def bundle_vectors(
    bundle: Bundle, table: ClipTable, progress: Progress = _silent, *, views: Sequence[str] = ()
) -> ClipVectors:
    """Views and scores of every clip by a bundle.

    Args:
        bundle: which.
        table: the clips.
        progress: told how many clips are done, of how many.
        views: `heard` and `separated`, where the bundle has the models, and those that need no training; none: those that the table's
            machines are judged by, or VIEW_NAMES where the bundle knows none of them.

    Raises:
        UsageError: a view that there is not.
        BundleError: a view whose model the bundle does not have; a model or file that can't be used.
        DataSetError: no clips.
        RecordingError: a clip can't be read.
    """
    clips = _clips_of(table)
    _check_views(views, (HEARD, SEPARATED, *ALL_VIEW_NAMES))
    views = tuple(views) or _judged_by(bundle, table.machines)
    extractor = FeatureExtractor.of(bundle, views)
    sizes = dict(view_sizes())
    if bundle.manifest.embedder is not None:
        sizes |= {HEARD: bundle.manifest.embedding_size, SEPARATED: bundle.manifest.embedding_size}
    vectors = {view: np.empty((len(clips), sizes[view]), np.float32) for view in views}
    scores, thresholds = np.full((2, len(clips)), np.nan)
    for position, sound, verdict in bundle_verdicts(bundle, clips, progress):
        known = {} if verdict is None else verdict.vectors
        missing = [view for view in views if view not in known]
        known = {**known, **(extractor.vectors(sound, missing) if missing else {})}
        for view in views:
            vectors[view][position] = known[view][0]
        if verdict is not None:
            scores[position], thresholds[position] = verdict.score, verdict.threshold
    return ClipVectors(f"{bundle.name} {bundle.version}", clips, vectors, scores, thresholds)


def untrained_views(clips: Sequence[Clip], views: Sequence[str]) -> dict[str, F32]:
    """Views that need no training, name → (N, D).

    Raises:
        RecordingError: a clip can't be read.
    """
    if not views:
        return {}
    found = {view: np.empty((len(clips), view_sizes()[view]), np.float32) for view in views}
    for n, clip in enumerate(clips):
        for view, vector in view_vectors(load_clip(clip), views=views, parts=False).items():
            found[view][n] = vector[0]
    return found


def _judged_by(bundle: Bundle, machines: Sequence[str]) -> tuple[str, ...]:
    """The views that any of these machines is judged by, in a fixed order."""
    used: set[str] = set()
    for machine in machines:
        if machine in bundle.machines:
            entry = bundle.machine(machine)
            used |= set(entry.views) if entry.views else {HEARD, *((SEPARATED,) if entry.separated else ())}
    return tuple(view for view in (HEARD, SEPARATED, *ALL_VIEW_NAMES) if view in used) or VIEW_NAMES


def _check_views(views: Sequence[str], known: Sequence[str]) -> None:
    for view in views:
        if view not in known:
            raise UsageError(f"view {view!r} is unknown here: use one of {', '.join(known)}")


def _clips_of(table: ClipTable) -> tuple[Clip, ...]:
    if not table.clips:
        raise DataSetError("the data has no clips, so there is nothing to embed")
    return table.clips
