"""asd-train run, and the commands of single stages.

Owns their words and output. The work is done in `stages`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from asd_trainer.cli_options import Data, Run, note_data, noted_data, read_table, with_threads


@click.command()
@click.argument("recipe")
@Data
@click.option(
    "--out",
    "run",
    required=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Run folder to make or to go on with.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of the recipe, e.g. finetune.epochs=10.",
)
@with_threads
def run(recipe: str, roots: Sequence[Path], run: Path, overrides: Sequence[str]) -> None:
    """Do every stage of RECIPE, the name of a recipe that comes with asd-train or the path of one.

    A stage that is done is not done again, and one that was stopped goes on: give the same command again.

    \b
    Examples:
      asd-train run smoke --data data --out runs/smoke
      asd-train run smoke --data data --out runs/longer --set finetune.epochs=60 --set seed=1
    """
    from asd_trainer.recipe import claim_run, load_recipe
    from asd_trainer.stages import run_stages

    resolved = load_recipe(recipe, overrides)
    if not roots:
        raise click.UsageError("give the recordings to learn from: --data DIR")
    table = read_table(roots)
    claim_run(run, resolved)
    note_data(run, roots)
    run_stages(resolved, table, run)
    given = " ".join(f"--data {root}" for root in roots)
    click.echo(f"trained: {run}")
    click.echo(f"next: asd-train evaluate {run} {given}")


@click.command()
@Run
@Data
@with_threads
def finetune(run: Path, roots: Sequence[Path]) -> None:
    """Do the fine-tuning stage of RUN alone, with the recipe in it.

    The recordings are those of `asd-train run` unless --data names them.

    \b
    Example:
      asd-train finetune runs/smoke
    """
    from asd_trainer.recipe import read_run_recipe
    from asd_trainer.stages import run_stage

    recipe = read_run_recipe(run)
    run_stage("finetune", recipe, read_table(roots or noted_data(run)), run)
    click.echo(f"trained: {run}")
