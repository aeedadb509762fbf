"""asd-train run, and the commands of single stages.

Owns their words and output. The work is done in `stages`, the reckoning before it in `forecast`, fetching and reporting by their commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asd_daemon.redaction import redact
from asd_trainer.cli.data import BaseUrl
from asd_trainer.cli.options import (
    Data,
    Json,
    Run,
    read_table,
    remember_data,
    remembered_data,
    with_threads,
    with_trackers,
    with_workers,
)
from asd_trainer.cli.planning import (
    DeviceName,
    Measure,
    chosen_device,
    fetched_folders,
    first_process,
    planned_table,
    say,
    show_forecast,
)

if TYPE_CHECKING:
    from asd_trainer.data.fetch import Part
    from asd_trainer.data.storage import DataRoot
    from asd_trainer.recipe.recipe import Recipe

Overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a key of the recipe, e.g. finetune.epochs=10.",
)


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
@Overrides
@click.option(
    "--fetch",
    "fetched",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Fetch into DIR the data of all years that the recipe learns from, as far as they are not there, and learn from them too.",
)
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(["dev", "train", "eval"]),
    help="With --fetch: development data, additional training data, evaluation test data; may be repeated. [default: dev, train]",
)
@BaseUrl
@click.option("--report", is_flag=True, help="Then evaluate the run, print its figures, and write its report.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show the plan, with the time, memory and disk it takes, and do nothing. Recordings that are not there are planned for by the "
    "known sizes of the public data sets.",
)
@DeviceName
@Measure
@Json
@with_trackers
@with_workers
@with_threads
def run(
    recipe: str,
    roots: Sequence[DataRoot],
    run: Path,
    overrides: Sequence[str],
    fetched: Path | None,
    parts: Sequence[Part],
    base_url: str,
    report: bool,
    dry_run: bool,
    device: str,
    measure: bool,
    as_json: bool,
) -> None:
    """Do every stage of RECIPE, the name of a recipe that comes with asd-train (see asd-train recipes) or the path of one.

    A stage that is done is not done again, and one that was stopped goes on: give the same command again. What does not fit the memory
    of the device is done in a way that needs less and gives the same result, or refused before anything is done.

    \b
    Examples:
      asd-train run smoke --data data --out runs/smoke
      asd-train run smoke --data data --out runs/longer --set finetune.epochs=60 --set seed=1
      asd-train run paper-20k-all --out runs/paper --dry-run --device h100
      asd-train run paper --fetch dcase --out runs/paper --report
    """
    from asd_trainer.recipe.recipe import load_recipe
    from asd_trainer.run.stage_clips import stage_table
    from asd_trainer.run.stages import run_stages, stages_of
    from asd_trainer.training.run_folder import check_claim, claim_run

    resolved = load_recipe(recipe, overrides)
    if not roots and fetched is None and not dry_run:
        raise click.UsageError("give the recordings to learn from: --data DIR, or --fetch DIR")
    if as_json and not dry_run:
        raise click.UsageError("--json prints the plan: give it with --dry-run")
    if device != "here" and not dry_run:
        raise click.UsageError(f"--device {device}: is for a plan: give it with --dry-run")
    if measure and device not in {"here", "cpu"}:
        raise click.UsageError(f"--measure: measures the device here, not {device}")
    if parts and fetched is None:
        raise click.UsageError(f"--part {parts[0]}: is for what is fetched: give it with --fetch DIR")
    chosen = chosen_device(device, measure=measure)
    check_claim(run, resolved)
    there = bool(roots) or fetched is not None
    if fetched is not None:
        added, there = fetched_folders(resolved, parts or ("dev", "train"), fetched, base_url, dry_run=dry_run)
        roots = (*roots, *added)
    if dry_run:
        table = planned_table(resolved, parts, roots, there=there)
        show_forecast(resolved, table, run, chosen, as_json=as_json)
        return
    table = read_table(roots)
    for stage in stages_of(resolved):  # a year that is not there is said before the folder is made
        stage_table(stage, resolved, table)
    claim_run(run, resolved)
    remember_data(run, roots)
    show_forecast(resolved, table, run, chosen, to_stderr=True)
    run_stages(resolved, table, run)
    say(f"trained: {run}")
    say(f"took: {_stage_times(resolved, run)}")
    if not report:
        given = " ".join(f"--data {redact(str(root))}" for root in roots)
        say(f"next: asd-train evaluate {run} {given}")
    elif first_process():
        from asd_trainer.cli.results import evaluate_and_report
        from asd_trainer.run.stage_clips import of_years

        evaluate_and_report(run, of_years(table, resolved.years))


def _stage_times(recipe: Recipe, run: Path) -> str:
    """How long each stage took, over all sessions."""
    from asd_trainer.run.stages import stages_of
    from asd_trainer.training.progress import time_in_words
    from asd_trainer.training.stage_mark import read_mark

    marks = [mark for name in stages_of(recipe) if (mark := read_mark(run / "stages" / name)) is not None]
    return ", ".join(f"{mark.stage} {time_in_words(mark.seconds)}" for mark in marks if mark.seconds is not None)


@click.command()
@Run
@Data
@click.option("--recipe", "name", metavar="RECIPE", help="Make RUN with this recipe, for a run that only pre-trains.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="With --recipe: change a key of it.")
@with_trackers
@with_workers
@with_threads
def pretrain(run: Path, roots: Sequence[DataRoot], name: str | None, overrides: Sequence[str]) -> None:
    """Do the pre-training stage of RUN alone: the encoder learns from recordings without labels.

    A first stage on general sound, then a second one on machines that starts from it:

    \b
      asd-train pretrain runs/general --recipe smoke --set pretrain.steps=3000 --data general
      asd-train run smoke --data data --out runs/smoke --set pretrain.steps=1000 --set encoder.weights=runs/general/stages/pretrain
    """
    from asd_trainer.recipe.recipe import load_recipe
    from asd_trainer.training.run_folder import claim_run

    if overrides and name is None:
        raise click.UsageError("--set changes the recipe of a new run: give it with --recipe")
    if name is not None:
        if not roots:
            raise click.UsageError("give the recordings to learn from: --data DIR")
        read_table(roots)
        claim_run(run, load_recipe(name, overrides))
        remember_data(run, roots)
    _do_stage("pretrain", run, roots)
    say(f"pre-trained: {run / 'stages' / 'pretrain'}")


@click.command()
@Run
@Data
@with_trackers
@with_threads
def separate(run: Path, roots: Sequence[DataRoot]) -> None:
    """Do the separation stage of RUN alone: train the separator, then separate the training clips.

    The recordings are those of `asd-train run` unless --data names them.

    \b
    Example:
      asd-train separate runs/paper
    """
    _do_stage("separate", run, roots)
    say(f"separated: {run}")


@click.command()
@Run
@Data
@with_threads
def synthesize(run: Path, roots: Sequence[DataRoot]) -> None:
    """Do the synthesis stage of RUN alone: write new clips of separated machines in the noise of others.

    The recordings are those of `asd-train run` unless --data names them.

    \b
    Example:
      asd-train synthesize runs/paper
    """
    _do_stage("synthesize", run, roots)
    say(f"synthesised: {run / 'stages' / 'synthesize'}")


@click.command()
@Run
@Data
@with_trackers
@with_workers
@with_threads
def distil(run: Path, roots: Sequence[DataRoot]) -> None:
    """Do the distillation stage of RUN alone: the embedder learns to give the embeddings of a larger one.

    The teacher is what the recipe of the run names: a run that is fine-tuned, or weights of EAT. The recordings are those of
    `asd-train run` unless --data names them.

    \b
    Example:
      asd-train run edge --data data --out runs/small --set distil.teacher=runs/large
      asd-train distil runs/small
    """
    _do_stage("distil", run, roots)
    say(f"distilled: {run}")


@click.command()
@Run
@Data
@with_trackers
@with_workers
@with_threads
def finetune(run: Path, roots: Sequence[DataRoot]) -> None:
    """Do the fine-tuning stage of RUN alone, with the recipe in it.

    The recordings are those of `asd-train run` unless --data names them.

    \b
    Example:
      asd-train finetune runs/smoke
    """
    _do_stage("finetune", run, roots)
    say(f"trained: {run}")


def _do_stage(stage: str, run: Path, roots: Sequence[DataRoot]) -> None:
    from asd_trainer.run.stages import run_stage
    from asd_trainer.training.run_folder import read_run_recipe

    recipe = read_run_recipe(run)
    run_stage(stage, recipe, read_table(roots or remembered_data(run)), run)
