"""asd-train evaluate: what runs and bundles are worth on test clips, alone or beside each other.

Owns its words and output. The work is done in `backend`, `bundle_scores`, `scoresheet`, `comparison` and `submission`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asd_daemon.errors import UsageError
from asd_trainer.cli.options import Data, Json, with_threads, with_workers
from asd_trainer.cli.scoring import (
    SEED,
    BackEnd,
    Channels,
    FarWeight,
    Labels,
    Score,
    Separation,
    labelled_table,
    measured_sheet,
    scores_of_path,
    sheet_of,
    two_microphones,
)

if TYPE_CHECKING:
    from asd_trainer.data.dataset import ClipTable
    from asd_trainer.data.storage import DataRoot
    from asd_trainer.evaluate.backend import RunScores, Scoring
    from asd_trainer.evaluate.scoresheet import Scoresheet
    from asd_trainer.evaluate.separation_trial import Separating
    from asd_trainer.evaluate.submission import Description


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN…")
@Data
@Labels
@Score
@Separation
@Channels
@FarWeight
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="RUN2",
    help="Also score RUN2 on these clips: every figure beside RUN's.",
)
@click.option(
    "--submission", type=click.Path(path_type=Path), metavar="DIR", help="Write the challenge's files into DIR."
)
@click.option(
    "--description",
    type=click.Path(path_type=Path),
    metavar="YAML",
    help="Who submits what: authors, system, label; for the meta file of --submission.",
)
@Json
@click.option(
    "--csv", "as_csv", is_flag=True, help="Print CSV: a line a run, machine and figure, with intervals and gains."
)
@BackEnd
@click.option(
    "--ensemble", is_flag=True, help="Of several RUNs also the mean of their standardised scores, as one more row."
)
@click.option(
    "--ablation",
    is_flag=True,
    help="One RUN by every back end, by what its normal clips choose, and by the least of all: a row each beside the nearest neighbour.",
)
@with_workers
@with_threads
def evaluate(
    runs: Sequence[Path],
    roots: Sequence[DataRoot],
    labels: Sequence[Path],
    scoring: Scoring,
    separating: Separating | None,
    channels: str | None,
    far_weight: float | None,
    against: Path | None,
    submission: Path | None,
    description: Path | None,
    as_json: bool,
    as_csv: bool,
    back_ends: Sequence[str],
    ensemble: bool,
    ablation: bool,
) -> None:
    """Score the test clips with each RUN and print the official figures of each year: AUC (source, target), pAUC and Ω.

    A RUN is a run folder, or a bundle, which is scored as it listens. The recordings are those of `asd-train run` unless --data names them.
    A run's figures are also written to RUN/evaluation.json. The interval of Ω says how far other test clips of the same machines could have
    moved it. Several RUNs become one table: each one's gain over the first, with an interval that is paired over the clips.
    --score residual stands beside the near microphone alone, in the table of one RUN (unless --against takes its place) and of several.

    \b
    Examples:
      asd-train evaluate runs/smoke
      asd-train evaluate runs/smoke --data data --json
      asd-train evaluate runs/a runs/b bundle --data data
      asd-train evaluate runs/a runs/b runs/c --csv > table.csv
      asd-train evaluate runs/a --against runs/b
      asd-train evaluate runs/a --score views
      asd-train evaluate runs/a --back-end auto
      asd-train evaluate runs/a --ablation
      asd-train evaluate runs/seed0 runs/seed1 --ensemble
      asd-train evaluate runs/a --data data/dcase2026t2 --score residual --far-weight 0.3
      asd-train evaluate runs/a --data data/dcase2025t2/eval_data --labels eval_data_list_2025.csv --submission out
    """
    from asd_trainer.evaluate.submission import read_description

    _check_words(
        runs, against, submission, description, as_json=as_json, as_csv=as_csv, ensemble=ensemble, ablation=ablation
    )
    described = read_description(description) if description is not None else None
    two = two_microphones(scoring, channels, far_weight)
    table = labelled_table(runs, roots, labels)
    if ablation:
        found = _ablation(runs[0], table, separating)
        _compare((), found, table, as_json=as_json, as_csv=as_csv)
        return
    if len(runs) > 1 or as_csv:
        found = {str(run): scores_of_path(run, table, scoring, separating, two, back_ends) for run in runs}
        if ensemble:
            from asd_trainer.evaluate.ensemble import joined

            found["ensemble"] = joined(found)
        _compare(runs, found, table, as_json=as_json, as_csv=as_csv)
        return
    (run,) = runs
    scores = scores_of_path(run, table, scoring, separating, two, back_ends)
    other = (
        (str(against), scores_of_path(against, table, scoring, separating, two, back_ends))
        if against is not None
        else None
    )
    _evaluate_one(run, scores, other, table, submission, described, as_json=as_json)


def _check_words(
    runs: Sequence[Path],
    against: Path | None,
    submission: Path | None,
    description: Path | None,
    *,
    as_json: bool,
    as_csv: bool,
    ensemble: bool,
    ablation: bool,
) -> None:
    """Refuse options that don't fit together.

    Raises:
        UsageError: names them.
    """
    from asd_trainer.evaluate.bundle_scores import is_bundle

    if description is not None and submission is None:
        raise UsageError("--description: is for the files of --submission DIR; give that too")
    if ensemble and (len(runs) < 2 or any(map(is_bundle, runs))):
        raise UsageError("--ensemble: joins the scores of run folders: name at least two, and no bundle")
    if ablation and (len(runs) > 1 or is_bundle(runs[0]) or submission is not None or against is not None or ensemble):
        raise UsageError("--ablation: is of one run folder, alone")
    if as_json and as_csv:
        raise UsageError("--json and --csv are two forms of the same: give one of them")
    if against is not None and (len(runs) > 1 or as_csv):
        raise UsageError(f"--against {against}: compares with one run; name it as one more RUN instead")
    if submission is not None and (len(runs) > 1 or as_csv or is_bundle(runs[0])):
        raise UsageError(f"--submission {submission}: is of one run folder; evaluate that alone")
    twice = sorted({str(run) for run in runs if runs.count(run) > 1})
    if twice:
        raise UsageError(f"{', '.join(twice)}: is named twice")


def _evaluate_one(
    run: Path,
    scores: RunScores,
    other: tuple[str, RunScores] | None,
    table: ClipTable,
    submission: Path | None,
    described: Description | None,
    *,
    as_json: bool,
) -> None:
    """One run, perhaps beside another."""
    from asd_trainer.evaluate.bundle_scores import is_bundle
    from asd_trainer.evaluate.scoresheet import print_evaluation, write_evaluation

    sheet = sheet_of(scores, other, table)
    if sheet is None and submission is None:
        sheet = measured_sheet(scores, None)  # says what is missing
    if sheet is not None and is_bundle(run):
        sheet = replace(
            sheet, undecided="no decisions: a bundle has thresholds of its own, by which asd-daemon score decides"
        )
    elif sheet is not None:
        write_evaluation(run, sheet)
    if submission is not None:
        _write_submission(submission, run, scores, sheet, described)
    if sheet is not None:
        print_evaluation(sheet, as_json=as_json)


def _ablation(run: Path, table: ClipTable, separating: Separating | None) -> dict[str, RunScores]:
    """A run's scores by each back end alone, by the chosen ones and by all together; the nearest neighbour first."""
    from asd_trainer.evaluate.back_ends import BACK_ENDS

    rows: dict[str, tuple[str, ...]] = {kind: (kind,) for kind in BACK_ENDS}
    rows |= {"auto": ("auto",), "least of all": tuple(BACK_ENDS)}
    return {name: scores_of_path(run, table, "nearest", separating, None, kinds) for name, kinds in rows.items()}


def _compare(
    runs: Sequence[Path], found: dict[str, RunScores], table: ClipTable, *, as_json: bool, as_csv: bool
) -> None:
    """One table of all; each run's own evaluation.json as if it had been evaluated alone."""
    import numpy as np

    from asd_trainer.evaluate.bundle_scores import is_bundle
    from asd_trainer.evaluate.comparison import compare, print_comparison
    from asd_trainer.evaluate.scoresheet import NEAR_ALONE, write_evaluation

    alone = {f"{name} {NEAR_ALONE}": one.near_alone.test for name, one in found.items() if one.near_alone is not None}
    compared = compare({name: one.test for name, one in found.items()} | alone, np.random.default_rng(SEED))
    for run in runs:
        sheet = sheet_of(found[str(run)], None, table)
        if sheet is not None and not is_bundle(run):
            write_evaluation(run, sheet)
    if as_json:
        click.echo(json.dumps(compared.as_json(), indent=2, ensure_ascii=False, allow_nan=False))
    elif as_csv:
        click.echo(compared.as_csv(), nl=False)
    else:
        print_comparison(compared)


def _write_submission(
    folder: Path, run: Path, scores: RunScores, sheet: Scoresheet | None, description: Description | None
) -> None:
    from asd_trainer.evaluate.run_models import run_complexity
    from asd_trainer.evaluate.submission import write_submission
    from asd_trainer.evaluate.threshold import decide_sections

    sections = decide_sections(scores.test, scores.training)
    results = {name: result for name, result in (sheet.results if sheet else {}).items() if result.figures()}
    paths = write_submission(folder, sections, results, description, run_complexity(run))
    click.echo(f"{len(paths)} files of a submission written: {folder}", err=True)
