"""asd-train evaluate, report and models: what a run is worth, and what networks cost.

Owns their words and output. The work is done in `backend`, `scoresheet`, `submission`, `report` and `catalogue`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asd_daemon.errors import UsageError
from asd_trainer.cli.options import Data, Json, Run, read_table, remembered_data, with_threads

if TYPE_CHECKING:
    from asd_trainer.data.dataset import ClipTable
    from asd_trainer.evaluate.backend import RunScores, Scoring
    from asd_trainer.evaluate.scoresheet import Scoresheet
    from asd_trainer.evaluate.separation_trial import Separating
    from asd_trainer.evaluate.submission import Description

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
    type=click.Choice(["nearest", "views"]),
    default="nearest",
    show_default=True,
    help="What a clip scores: the distance to the nearest normal clip (the paper), or views of its steady sound and its movement.",
)
Separation = click.option(
    "--separation",
    "separating",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="With --score nearest: whether the distance of the separated sound is added; auto asks each machine's normal clips.",
)


@click.command()
@Run
@Data
@Labels
@Score
@Separation
@click.option(
    "--against", type=click.Path(path_type=Path), metavar="RUN2", help="Also score RUN2 on these clips, and compare."
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
@with_threads
def evaluate(
    run: Path,
    roots: Sequence[Path],
    labels: Sequence[Path],
    scoring: Scoring,
    separating: Separating,
    against: Path | None,
    submission: Path | None,
    description: Path | None,
    as_json: bool,
) -> None:
    """Score the test clips with RUN and print each year's official figures: AUC (source, target), pAUC and Ω.

    The recordings are those of `asd-train run` unless --data names them. Figures are also written to RUN/evaluation.json.
    The interval of Ω says how far other test clips of the same machines could have moved it.

    \b
    Examples:
      asd-train evaluate runs/smoke
      asd-train evaluate runs/smoke --data data --json
      asd-train evaluate runs/a --against runs/b
      asd-train evaluate runs/a --score views
      asd-train evaluate runs/a --data data/dcase2025t2/eval_data --labels eval_data_list_2025.csv --submission out
    """
    from asd_trainer.evaluate.scoresheet import print_evaluation, write_evaluation
    from asd_trainer.evaluate.submission import read_description

    if description is not None and submission is None:
        raise UsageError("--description: is for the files of --submission DIR; give that too")
    described = read_description(description) if description is not None else None
    table = _labelled_table(run, roots, labels)
    scores = _scores(run, table, scoring, separating)
    other = (str(against), _scores(against, table, scoring, separating)) if against is not None else None
    sheet = _sheet(scores, other, table)
    if sheet is None and submission is None:
        sheet = _measured(scores, None)  # says what is missing
    if sheet is not None:
        write_evaluation(run, sheet)
    if submission is not None:
        _write_submission(submission, scores, sheet, described)
    if sheet is not None:
        print_evaluation(sheet, as_json=as_json)


@click.command()
@Run
@Data
@Labels
@Score
@Separation
@with_threads
def report(run: Path, roots: Sequence[Path], labels: Sequence[Path], scoring: Scoring, separating: Separating) -> None:
    """Write RUN/report.html: one page with figures, curves, maps, and the worst mistakes to look at and listen to.

    The recordings are those of `asd-train run` unless --data names them. Clips that `asd-train evaluate` embedded are not embedded again.

    \b
    Examples:
      asd-train report runs/smoke
      asd-train report runs/smoke --data data
    """
    table = _labelled_table(run, roots, labels)
    scores = _scores(run, table, scoring, separating)
    _write_report(run, scores, _sheet(scores, None, table))


def evaluate_and_report(run: Path, table: ClipTable) -> None:
    """What `evaluate` and `report` do, of clips that are listed already; says so where there is nothing to score.

    Raises:
        what they raise.
    """
    from asd_trainer.evaluate.scoresheet import print_evaluation, write_evaluation

    if not table.select(split="test"):
        click.echo("no evaluation and no report: the data has no test clips", err=True)
        return
    scores = _scores(run, table)
    sheet = _sheet(scores, None, table)
    if sheet is not None:
        write_evaluation(run, sheet)
        print_evaluation(sheet)
    _write_report(run, scores, sheet)


def _write_report(run: Path, scores: RunScores, sheet: Scoresheet | None) -> None:
    import numpy as np

    from asd_trainer.data.dataset import load_clip
    from asd_trainer.report.page import write_report
    from asd_trainer.report.summary import report_data

    path = run / "report.html"
    data = report_data(run, scores, sheet, datetime.now(UTC))
    write_report(data, path, load_clip, np.random.default_rng(SEED))
    click.echo(f"report: {path}")


def _labelled_table(run: Path, roots: Sequence[Path], labels: Sequence[Path]) -> ClipTable:
    """The recordings that are named; else those of the run, of the years that its recipe learns from."""
    if roots:
        return read_table(roots, labels)
    from asd_trainer.run.stages import of_years
    from asd_trainer.training.run_folder import read_run_recipe

    return of_years(read_table(remembered_data(run), labels), read_run_recipe(run).years)


def _scores(run: Path, table: ClipTable, scoring: Scoring = "nearest", separating: Separating = "auto") -> RunScores:
    from asd_trainer.evaluate.backend import score_run
    from asd_trainer.training.progress import counted

    with counted(f"embed for {run.name}", "clips") as progress:
        return score_run(run, table, progress, scoring=scoring, separating=separating)


def _sheet(scores: RunScores, against: tuple[str, RunScores] | None, table: ClipTable) -> Scoresheet | None:
    """The figures; none where no test clip has a label."""
    if all(clip.label is None for clip in table.select(split="test")):
        return None
    return _measured(scores, against)


def _measured(scores: RunScores, against: tuple[str, RunScores] | None) -> Scoresheet:
    import numpy as np

    from asd_trainer.evaluate.scoresheet import scoresheet

    return scoresheet(scores, np.random.default_rng(SEED), against)


def _write_submission(
    folder: Path, scores: RunScores, sheet: Scoresheet | None, description: Description | None
) -> None:
    from asd_trainer.evaluate.submission import write_submission
    from asd_trainer.evaluate.threshold import decide_sections

    sections = decide_sections(scores.test, scores.training)
    results = {name: result for name, result in (sheet.results if sheet else {}).items() if result.figures()}
    paths = write_submission(folder, sections, results, description)
    click.echo(f"{len(paths)} files of a submission written: {folder}", err=True)


@click.command()
@Json
def models(as_json: bool) -> None:
    """List every size of every network with its parameters and what it costs to run.

    \b
    Example:
      asd-train models --json
    """
    from asd_trainer.networks.catalogue import catalogue

    rows = catalogue()
    if as_json:
        click.echo(json.dumps([row.as_json() for row in rows], indent=2))
        return
    click.echo(f"{'network':<12}{'size':<8}{'parameters':>12}{'GMAC per second of sound':>26}")
    for row in rows:
        click.echo(f"{row.network:<12}{row.size:<8}{row.parameters / 1e6:>10.2f} M{row.gmac_per_second:>26.3f}")
