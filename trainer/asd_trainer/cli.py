"""asd-train: the commands of the trainer.

Owns words on the command line, what is printed, and exit codes. Work is done in the modules that a command names; heavy libraries
are imported by the command that needs them.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from asd_daemon.errors import AsdError, DataSetError, StageError

if TYPE_CHECKING:
    from asd_trainer.dataset import ClipTable

log = logging.getLogger(__name__)

DATA_NOTE = "data.json"

Data = click.option(
    "--data",
    "roots",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with recordings: a DCASE layout, or a plain folder of one machine. May be given several times.",
)
Run = click.argument("run", type=click.Path(path_type=Path))
Threads = click.option(
    "--threads", type=click.IntRange(1), help="Threads of the CPU to train with. [default: all cores]"
)
Json = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")


class Commands(click.Group):
    """Turns what went wrong on purpose into one line and the right exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        from asd_trainer.interruption import Interrupted

        try:
            return super().invoke(ctx)
        except AsdError as e:
            _leave(str(e), e.exit_code)
        except Interrupted as e:
            _leave(str(e), e.exit_code, word="stopped")
        except KeyboardInterrupt:
            _leave("by Ctrl-C; what was finished stays", 128 + signal.SIGINT, word="stopped")


def _leave(message: str, exit_code: int, word: str = "error") -> NoReturn:
    click.echo(f"{word}: {' '.join(message.split())}", err=True)
    sys.exit(exit_code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="asd-edge", prog_name="asd-train")
@click.option("-v", "--verbose", is_flag=True, help="Also print what is of use in search of a fault.")
def main(verbose: bool) -> None:
    """Learn what machines sound like when they are well.

    \b
    From nothing to figures in a few minutes, on simulated machines:
      asd-train simulate data --small
      asd-train run smoke --data data --out runs/smoke
      asd-train evaluate runs/smoke --data data

    \b
    Exit codes: 0 well; 2 wrong usage, recipe or data; 130 or 143 stopped by a signal (the same command goes on).
    """
    logging.basicConfig(
        stream=sys.stderr,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        level=logging.DEBUG if verbose else logging.INFO,
    )
    for noisy in ("accelerate", "matplotlib", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    from asd_trainer.interruption import Interrupted

    raise Interrupted(number, f"by {signal.Signals(number).name}; what was finished stays")


def _with_threads(command: Callable[..., None]) -> Callable[..., None]:
    """Set torch's threads from --threads before the command."""

    @Threads
    @functools.wraps(command)
    def threaded(threads: int | None, **arguments: Any) -> None:
        import torch

        torch.set_num_threads(threads or os.cpu_count() or 1)
        command(**arguments)

    return threaded


@main.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--small", is_flag=True, help="The small set that the smoke recipe learns from: 104 training clips a machine."
)
@click.option(
    "--machine", "machines", multiple=True, metavar="NAME", help="Only this machine. May be given several times."
)
@click.option(
    "--source-train", type=int, metavar="N", help="Training clips of the source domain, a machine. [default: 990]"
)
@click.option(
    "--target-train", type=int, metavar="N", help="Training clips of the target domain, a machine. [default: 10]"
)
@click.option("--test", type=int, metavar="N", help="Test clips of each domain and condition, a machine. [default: 50]")
@click.option("--supplemental", type=int, metavar="N", help="Supplemental clips, a machine. [default: 100]")
@click.option(
    "--sections", type=int, metavar="N", help="Units of each machine, all sizes being of one unit. [default: 1]"
)
@click.option("--seed", type=int, metavar="N", help="Every recording follows from it. [default: 0]")
@click.option("--jobs", type=click.IntRange(1), help="Processes to use. [default: all cores]")
def simulate(out: Path, small: bool, jobs: int | None, **sizes: Any) -> None:
    """Write simulated machines, healthy and failing, to OUT: a complete data set in the DCASE 2025 layout.

    The full set is as large as the challenge's (1300 clips of 10 s for each of seven machines, 3 GB). Broken off, the same command goes on.

    \b
    Examples:
      asd-train simulate data --small
      asd-train simulate fans --machine fan --source-train 200 --target-train 20 --test 25
    """
    from asd_trainer.progress import counted
    from asd_trainer.simulation import write_dataset
    from asd_trainer.simulation_plan import SMOKE, SimulationPlan

    changed = {name: value for name, value in sizes.items() if value not in (None, ())}
    plan = dataclasses.replace(SMOKE if small else SimulationPlan(), **changed)
    with counted("simulate", "clips") as progress:
        summary = write_dataset(out, plan, jobs=jobs or os.cpu_count() or 1, progress=progress)
    click.echo(f"{summary.written} clips written, {summary.kept} kept: {summary.root}")
    click.echo(f"next: asd-train run smoke --data {out} --out runs/smoke")


@main.command()
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
@_with_threads
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
    _note_data(run, roots)
    run_stages(resolved, table, run)
    given = " ".join(f"--data {root}" for root in roots)
    click.echo(f"trained: {run}")
    click.echo(f"next: asd-train evaluate {run} {given}")


@main.command()
@Run
@Data
@_with_threads
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


@main.command()
@Run
@Data
@Json
@_with_threads
def evaluate(run: Path, roots: Sequence[Path], as_json: bool) -> None:
    """Score the test clips with RUN and print AUC (source, target), pAUC and their harmonic mean Ω.

    The recordings are those of `asd-train run` unless --data names them. Figures are also written to RUN/evaluation.json.

    \b
    Examples:
      asd-train evaluate runs/smoke
      asd-train evaluate runs/smoke --data data --json
    """
    from asd_trainer.backend import score_run
    from asd_trainer.evaluation import machine_results, print_evaluation, write_evaluation

    results = machine_results(score_run(run, read_table(roots or noted_data(run))))
    write_evaluation(run, results)
    print_evaluation(results, as_json=as_json)


@main.command()
@Json
def models(as_json: bool) -> None:
    """List every size of every network with its parameters and what it costs to run.

    \b
    Example:
      asd-train models --json
    """
    from asd_trainer.catalogue import catalogue

    rows = catalogue()
    if as_json:
        click.echo(json.dumps([row.as_json() for row in rows], indent=2))
        return
    click.echo(f"{'network':<12}{'size':<8}{'parameters':>12}{'GMAC per second of sound':>26}")
    for row in rows:
        click.echo(f"{row.network:<12}{row.size:<8}{row.parameters / 1e6:>10.2f} M{row.gmac_per_second:>26.3f}")


def read_table(roots: Sequence[Path]) -> ClipTable:
    """The clips of the folders; what can't be used is listed on stderr in one report.

    Raises:
        DataSetError: no data set there, or nothing usable in it.
    """
    from asd_trainer.dataset import read_dataset

    table = read_dataset(roots)
    if table.problems:
        click.echo(table.report(), err=True)
    if not table.clips:
        raise DataSetError(f"{', '.join(map(str, roots))}: no usable recording there")
    return table


def _note_data(run: Path, roots: Sequence[Path]) -> None:
    """Remember where the recordings are, for the commands that name the run alone."""
    noted = {"roots": [str(root.resolve()) for root in roots]}
    (run / DATA_NOTE).write_text(json.dumps(noted, indent=2) + "\n", encoding="utf-8")


def noted_data(run: Path) -> list[Path]:
    """The folders of recordings that a run was trained on.

    Raises:
        StageError: the run does not say.
    """
    path = run / DATA_NOTE
    try:
        return [Path(root) for root in json.loads(path.read_text(encoding="utf-8"))["roots"]]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise StageError(f"{run}: {DATA_NOTE} does not say where the recordings are; give them with --data DIR") from e
