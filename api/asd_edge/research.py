"""What a laboratory does, from Python: data sets, embeddings, scores, official figures, comparisons. Needs asd-edge[train].

    >>> from asd_edge import compare, evaluate, load_bundle, read_dataset, score_clips
    >>> table = read_dataset(example_data)
    >>> scored = score_clips(load_bundle(), table)
    >>> sheet = evaluate(scored)
    >>> sorted(sheet.results), sheet.omega > 0.8
    (['fan', 'valve'], True)

`example_data` is a folder that `asd-train simulate` has written. Owns nothing: clips are asd_trainer.data's, all else is
asd_trainer.evaluate's, and the figures are those that `asd-train evaluate` prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from asd_daemon.judge.bundle.bundle import Bundle
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable
from asd_trainer.data.dataset import read_dataset as read_tables
from asd_trainer.data.labels import with_labels
from asd_trainer.data.storage import data_root
from asd_trainer.evaluate import comparison, vector_files
from asd_trainer.evaluate.backend import RunScores, ScoredClip, Scoring, score_run
from asd_trainer.evaluate.bootstrap import RESAMPLES
from asd_trainer.evaluate.bundle_scores import score_bundle
from asd_trainer.evaluate.clip_vectors import ClipVectors, bundle_vectors, run_vectors
from asd_trainer.evaluate.comparison import Comparison
from asd_trainer.evaluate.scoresheet import Scoresheet, scoresheet
from asd_trainer.evaluate.separation_trial import Separating


def read_dataset(*roots: Path | str, labels: Sequence[Path | str] = ()) -> ClipTable:
    """List the clips below folders: any DCASE Task 2 layout from 2020 to 2026, or plain folders (`machine/*.wav`, `machine/anomaly/*.wav`).

    >>> table = read_dataset(example_data)
    >>> table.machines, len(table), len(table.problems)
    (('fan', 'valve'), 56, 0)
    >>> clip = table.select(machine="fan", split="test", label="anomaly")[0]
    >>> clip.domain, dict(clip.attributes)["load"]
    ('source', '50')
    >>> sum(clip.label == "anomaly" for clip in table)
    16

    Args:
        roots: folders at any level: a collection, a year, a machine; or shards, by their folder or address (`s3://…`).
        labels: published lists of what anonymous test clips are (eval_data_list_2025.csv).

    Returns:
        The clips, sorted by machine, split and path, with what can't be used under `problems`; iterate it, or `select` from it.
        `asd_edge.load_clip(clip)` gives float32 (160 000,) at 16 kHz.

    Raises:
        DataSetError: a folder that is missing or holds no sound, or a list that does not fit.
    """
    return with_labels(read_tables([data_root(str(root)) for root in roots]), [Path(path) for path in labels])


def embed(source: Bundle | Path | str, table: ClipTable, *, views: Sequence[str] = ()) -> ClipVectors:
    """Vectors and scores of clips, as `asd-train embed` writes them.

    >>> from asd_edge import load_bundle
    >>> table = read_dataset(example_data)
    >>> found = embed(load_bundle(), table, views=["steady-quiet"])
    >>> found.vectors["steady-quiet"].shape, found.scores.shape
    ((56, 256), (56,))

    Args:
        source: a bundle, or the folder of a trained run.
        table: the clips.
        views: `heard` is the embedding (D,) of unit length; of a bundle `separated`, and views that need no training. None given: `heard`
            of a run; of a bundle what its machines are judged by.

    Returns:
        Clips, view → float32 (N, D), scores float64 (N,), not a number where a clip has none; `asd_edge.write_vectors` keeps them in a
            file.

    Raises:
        UsageError: a view that there is not.
        StageError, BundleError: a run or bundle that can't embed.
        DataSetError, RecordingError: no clips, or one that can't be read.
    """
    if isinstance(source, Bundle):
        return bundle_vectors(source, table, views=views)
    return run_vectors(Path(source), table, views=views) if views else run_vectors(Path(source), table)


def write_vectors(path: Path | str, found: ClipVectors) -> None:
    """Keep vectors and scores in a file, whole or not at all, as `asd-train embed` does.

    Args:
        path: ends with .npz (read by numpy.load without a pickle) or .parquet (needs asd-edge[parquet]).
        found: what `embed` gave.

    Raises:
        UsageError: another ending, no such folder, pyarrow is not there, or the file can't be written.
    """
    vector_files.write_vectors(Path(path), found)


def score_clips(
    source: Bundle | Path | str,
    table: ClipTable,
    *,
    scoring: Scoring = "nearest",
    separating: Separating | None = None,
) -> tuple[ScoredClip, ...]:
    """Scores of the test clips, in the order of the table.

    Args:
        source: a bundle, which judges as it listens; or the folder of a trained run, which compares with the table's training clips.
        table: the clips.
        scoring: of a run: the nearest neighbour (the paper), views of the steady sound and the movement, or, of two microphones, the
            nearest neighbour of what the near one has beyond the far one (residual; weight and channels are the recipe's).
        separating: of a run's nearest neighbour: whether the separated sound counts; auto asks each machine's normal clips, None takes
            what the run's recipe says.

    Raises:
        DataSetError: no test clips, or none to compare them with.
        StageError, BundleError, UnknownMachineError: a run or bundle that can't score them.
        RecordingError: a clip can't be read.
    """
    if isinstance(source, Bundle):
        return score_bundle(source, table).test
    return score_run(Path(source), table, scoring=scoring, separating=separating).test


def evaluate(scored: Sequence[ScoredClip] | Mapping[Clip, float], *, seed: int = 0) -> Scoresheet:
    """The official figures of scores, your own ones too: AUC and pAUC of each machine, and Ω with its bootstrap interval.

    >>> table = read_dataset(example_data)
    >>> mine = {clip: float(clip.label == "anomaly") for clip in table.select(split="test")}
    >>> evaluate(mine).omega
    1.0

    Args:
        scored: scores of test clips with labels, higher is more abnormal.
        seed: draws the clips of the interval.

    Returns:
        results: machine → figures as fractions in [0, 1], by the definition of the clips' year; omega; interval (95 %).

    Raises:
        DataSetError: a score is not finite, or no machine has both normal and anomalous clips.
    """
    return scoresheet(RunScores(tuple(_scored(scored)), (), {}), np.random.default_rng(seed))


def compare(
    scores: Mapping[str, Sequence[ScoredClip] | Mapping[Clip, float]], *, seed: int = 0, resamples: int = RESAMPLES
) -> Comparison:
    """Several methods on the same clips: every figure with its interval, and its gain over the first with an interval paired over clips.

    >>> table = read_dataset(example_data)
    >>> test = table.select(split="test")
    >>> chance = {clip: float(number % 5) for number, clip in enumerate(test)}
    >>> perfect = {clip: float(clip.label == "anomaly") for clip in test}
    >>> found = compare({"chance": chance, "perfect": perfect})
    >>> found.runs[1].omega.gain.interval.verdict
    'better'

    Args:
        scores: name → its scores of the test clips, all of the same ones in the same order.
        seed: draws the clips.
        resamples: how many draws.

    Returns:
        runs in order, fractions in [0, 1]; `as_csv()` and `as_json()` write them. Each interval is by itself: of many methods, some differ
            by chance.

    Raises:
        DataSetError: the methods scored different clips, or as `evaluate`.
    """
    return comparison.compare(
        {name: _scored(scored) for name, scored in scores.items()}, np.random.default_rng(seed), resamples
    )


def _scored(scored: Sequence[ScoredClip] | Mapping[Clip, float]) -> Sequence[ScoredClip]:
    if isinstance(scored, Mapping):
        return [ScoredClip(clip, float(score)) for clip, score in scored.items()]
    return scored
