"""asd-train simulate: where recordings come from.

Owns the words and the output of the commands that write data sets. The work is done in `simulation`.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import click


@click.command()
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
