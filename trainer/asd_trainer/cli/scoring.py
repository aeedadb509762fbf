"""What evaluate, embed and report share: their options, the clips that they name, and a run's scores of them.

Owns no command. The work is done in `backend` and `scoresheet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asd_daemon.errors import UsageError
from asd_trainer.cli.options import read_table, remembered_data

if TYPE_CHECKING:
    from asd_trainer.data.dataset import ClipTable
    from asd_trainer.data.storage import DataRoot
    from asd_trainer.evaluate.back_ends import BackEnds
    from asd_trainer.evaluate.backend import RunScores, Scoring
    from asd_trainer.evaluate.residual import TwoMicrophones
    from asd_trainer.evaluate.scoresheet import Scoresheet
    from asd_trainer.evaluate.separation_trial import Separating

SEED = 0  # of the draws for intervals and of the maps: the same call gives the same figures

Labels = click.option(
    "--labels",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="What anonymous test clips are, as published: a list (eval_data_list_<year>.csv), or the folder of the year's official "
    "evaluator. May be given several times.",
)


Score = click.option(
    "--score",
    "scoring",
    type=click.Choice(["nearest", "views", "residual"]),
    default="nearest",
    show_default=True,
    help="What a clip scores: the distance to the nearest normal clip (the paper), views of its steady sound and its movement, or, of "
    "two microphones, the distance of near − α · far of their embeddings.",
)
Separation = click.option(
    "--separation",
    "separating",
    type=click.Choice(["auto", "always", "never"]),
    help="With --score nearest: whether the distance of the separated sound is added; auto asks each machine's normal clips.  [default: "
    "the recipe's evaluate.separation]",
)


Channels = click.option(
    "--channels",
    metavar="NEAR,FAR",
    help="With --score residual: channels of the microphone at the machine and of the one far from it, counted from 0.  [default: the "
    "recipe's evaluate.channels, 0,1]",
)
FarWeight = click.option(
    "--far-weight",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="α",
    help="With --score residual: how much of the far microphone's embedding is taken away.  [default: the recipe's evaluate.far_weight, "
    "0.5]",
)


BackEnd = click.option(
    "--back-end",
    "back_ends",
    multiple=True,
    type=click.Choice(["nearest", "local", "variance", "domain", "mahalanobis", "principal", "auto"]),
    help="With --score nearest: what an embedding is judged by instead. Given several times, the least standardised score counts; auto: "
    "what each machine's normal clips choose.  [default: the recipe's evaluate.back_ends]",
)


def two_microphones(scoring: Scoring, channels: str | None, far_weight: float | None) -> TwoMicrophones:
    """How residuals are made, from what was said on the command line.

    Raises:
        UsageError: it was said without --score residual, or names no two channels.
    """
    from asd_trainer.data.cancellation import parse_channels
    from asd_trainer.evaluate.residual import TwoMicrophones

    said = {"--channels": channels, "--far-weight": far_weight}
    for option, value in said.items():
        if value is not None and scoring != "residual":
            raise UsageError(f"{option} {value}: is for --score residual; give that too")
    near_far = None if channels is None else parse_channels(channels)
    if near_far is not None and near_far[0] == near_far[1]:
        raise UsageError(f"--channels {channels}: the far microphone must be another channel than the near one")
    return TwoMicrophones(far_weight, near_far)


def labelled_table(runs: Sequence[Path], roots: Sequence[DataRoot], labels: Sequence[Path]) -> ClipTable:
    """The recordings that are named; else those of the first run among these, of the years that its recipe learns from.

    Raises:
        UsageError: bundles alone do not say where recordings are.
    """
    from asd_trainer.evaluate.bundle_scores import is_bundle

    if roots:
        return read_table(roots, labels)
    from asd_trainer.run.stage_clips import of_years
    from asd_trainer.training.run_folder import read_run_recipe

    run = next((run for run in runs if not is_bundle(run)), None)
    if run is None:
        raise UsageError(f"{runs[0]}: a bundle does not say where recordings are; give them with --data DIR")
    return of_years(read_table(remembered_data(run), labels), read_run_recipe(run).years)


def scores_of_path(
    path: Path,
    table: ClipTable,
    scoring: Scoring,
    separating: Separating | None,
    two: TwoMicrophones | None = None,
    back_ends: Sequence[str] = (),
) -> RunScores:
    """Scores of the test clips by a run folder or a bundle."""
    from asd_trainer.evaluate.bundle_scores import is_bundle, score_bundle

    if not is_bundle(path):
        return scores_of_run(path, table, scoring, separating, two, back_ends)
    if back_ends:
        raise UsageError(
            f"--back-end {back_ends[0]}: is for run folders; {path} is a bundle, which judges as it listens"
        )
    from asd_daemon.judge.bundle.bundle import load_bundle
    from asd_trainer.training.progress import counted

    with counted(f"score with {path.name}", "clips") as progress:
        return score_bundle(load_bundle(path), table, progress)


def scores_of_run(
    run: Path,
    table: ClipTable,
    scoring: Scoring = "nearest",
    separating: Separating | None = None,
    two: TwoMicrophones | None = None,
    back_ends: Sequence[str] = (),
) -> RunScores:
    """Scores of the test clips by a run folder.

    Raises:
        UsageError: back ends for another kind of score, or auto beside others.
    """
    from asd_trainer.evaluate.backend import score_run
    from asd_trainer.evaluate.residual import TwoMicrophones
    from asd_trainer.training.progress import counted

    judged_by = said_back_ends(run, back_ends, scoring)
    with counted(f"embed for {run.name}", "clips") as progress:
        return score_run(
            run,
            table,
            progress,
            scoring=scoring,
            separating=separating,
            two=two or TwoMicrophones(),
            back_ends=judged_by,
        )


def said_back_ends(run: Path, names: Sequence[str], scoring: Scoring) -> BackEnds | None:
    """The back ends that were named, with the recipe's neighbours; None where none was.

    Raises:
        UsageError: they are for another kind of score, or auto stands beside others.
    """
    from asd_trainer.evaluate.backend import recipe_back_ends

    if not names:
        return None
    if scoring != "nearest":
        raise UsageError(f"--back-end {names[0]}: is for --score nearest; --score {scoring} has its own")
    if "auto" in names and len(names) > 1:
        raise UsageError("--back-end auto: chooses one by itself: give it alone")
    kinds: Any = tuple(dict.fromkeys(names))
    return replace(recipe_back_ends(run), kinds=kinds)


def sheet_of(scores: RunScores, against: tuple[str, RunScores] | None, table: ClipTable) -> Scoresheet | None:
    """The figures; none where no test clip has a label."""
    if all(clip.label is None for clip in table.select(split="test")):
        return None
    return measured_sheet(scores, against)


def measured_sheet(scores: RunScores, against: tuple[str, RunScores] | None) -> Scoresheet:
    """The figures.

    Raises:
        DataSetError: no test clip allows any; says why.
    """
    import numpy as np

    from asd_trainer.evaluate.scoresheet import scoresheet

    return scoresheet(scores, np.random.default_rng(SEED), against)
