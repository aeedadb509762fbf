"""asd-train report and models: a page about a run, and what networks cost.

Owns their words and output. The work is done in `report` and `catalogue`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asd_trainer.cli.options import Data, Json, Run, with_threads, with_workers
from asd_trainer.cli.scoring import SEED, Labels, Score, Separation, labelled_table, scores_of_run, sheet_of

if TYPE_CHECKING:
    from asd_trainer.data.dataset import ClipTable
    from asd_trainer.data.storage import DataRoot
    from asd_trainer.evaluate.backend import RunScores, Scoring
    from asd_trainer.evaluate.scoresheet import Scoresheet
    from asd_trainer.evaluate.separation_trial import Separating


@click.command()
@Run
@Data
@Labels
@Score
@Separation
@with_workers
@with_threads
def report(
    run: Path, roots: Sequence[DataRoot], labels: Sequence[Path], scoring: Scoring, separating: Separating | None
) -> None:
    """Write RUN/report.html: one page with figures, curves, maps, and the worst mistakes to look at and listen to.

    The recordings are those of `asd-train run` unless --data names them. Clips that `asd-train evaluate` embedded are not embedded again.

    \b
    Examples:
      asd-train report runs/smoke
      asd-train report runs/smoke --data data
    """
    table = labelled_table([run], roots, labels)
    scores = scores_of_run(run, table, scoring, separating)
    _write_report(run, scores, sheet_of(scores, None, table))


def evaluate_and_report(run: Path, table: ClipTable) -> None:
    """What `evaluate` and `report` do, of clips that are listed already; says so where there is nothing to score.

    Raises:
        what they raise.
    """
    from asd_trainer.evaluate.scoresheet import print_evaluation, write_evaluation

    if not table.select(split="test"):
        click.echo("no evaluation and no report: the data has no test clips", err=True)
        return
    scores = scores_of_run(run, table)
    sheet = sheet_of(scores, None, table)
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
    click.echo(f"{'network':<12}{'size':<14}{'parameters':>12}{'GMAC per second of sound':>26}")
    for row in rows:
        click.echo(f"{row.network:<12}{row.size:<14}{row.parameters / 1e6:>10.2f} M{row.gmac_per_second:>26.3f}")


@click.command()
@Json
def recipes(as_json: bool) -> None:
    """List the recipes that come with asd-train, with what each is for.

    \b
    Example:
      asd-train recipes
    """
    from asd_trainer.recipe.recipe import load_recipe, shipped_recipes

    described = {name: load_recipe(name).description for name in shipped_recipes()}
    if as_json:
        click.echo(json.dumps([{"recipe": name, "description": text} for name, text in described.items()], indent=2))
        return
    width = max(map(len, described)) + 2
    for name, text in described.items():
        click.echo(f"{name:<{width}}{text}")
