"""What asd-train run needs before it begins: the device, the recordings, and the plan.

Owns the words of the plan's options, which recordings a plan is made for, and what is printed. The reckoning is `forecast`'s, transfer is
`fetch`'s.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asd_trainer.cli.data import fetch_years
from asd_trainer.cli.options import read_table

if TYPE_CHECKING:
    from asd_trainer.data.dataset import ClipTable
    from asd_trainer.data.fetch import Part
    from asd_trainer.data.storage import DataRoot
    from asd_trainer.recipe.recipe import Recipe
    from asd_trainer.run.devices import Device

LEARNED: tuple[Part, ...] = ("dev", "train")

DeviceName = click.option(
    "--device",
    default="here",
    show_default=True,
    metavar="NAME",
    help="With --dry-run: plan for another device: cpu, h200, h100, a100, a100-40, l40s, rtx4090, rtx3090, a10.",
)
Measure = click.option(
    "--measure", is_flag=True, help="Measure for a second how fast the device here is, for the times of the plan."
)


def chosen_device(name: str, *, measure: bool) -> Device:
    """The device that is planned for, its speeds measured where asked for.

    Raises:
        UsageError: no such device, or one that is not here and can't be measured.
    """
    from asd_trainer.run.devices import device_named, measured

    if measure and name not in {"here", "cpu"}:
        raise click.UsageError(f"--measure: measures the device here, not {name}")
    found = device_named(name)
    return measured(found) if measure else found


def fetched_folders(
    recipe: Recipe, parts: Sequence[Part], to: Path, base_url: str, *, dry_run: bool
) -> tuple[tuple[Path, ...], bool]:
    """The folders of the data of all years that a recipe learns from, and whether all is there; of several processes the first fetches.

    Raises:
        UsageError: the recipe names no years.
        FetchError, DataSetError: as `asd_trainer.data.fetch.fetch`.
    """
    from asd_trainer.data.fetch import FOLDERS
    from asd_trainer.run.stage_clips import years_to_fetch
    from asd_trainer.training.processes import processes

    years, wanted = years_to_fetch(recipe), tuple(parts) or LEARNED
    there = True
    with processes().main_process_first():
        if first_process():
            there = fetch_years(years, wanted, to, base_url, dry_run=dry_run)
    folders = dict.fromkeys(FOLDERS[part] for part in wanted)
    return tuple(to / f"dcase{year}t2" / folder for year in years for folder in folders), there


def planned_table(recipe: Recipe, parts: Sequence[Part], roots: Sequence[DataRoot], *, there: bool) -> ClipTable:
    """The recordings; where they are not all there, as many as the public data sets of the recipe's years are known to have."""
    from asd_trainer.data.known_sets import LAST_STATED, known_clips
    from asd_trainer.run.stage_clips import years_learned_from

    missing = [root for root in roots if isinstance(root, Path) and not root.exists()]
    if there and not missing:
        return read_table(roots)
    years = years_learned_from(recipe) or (LAST_STATED,)
    named = tuple(parts) or LEARNED
    absent = "not all is fetched yet" if roots else "no recordings are named"
    why = f"{missing[0]} is not there" if there else absent
    say(
        f"{why}: planned for {', '.join(map(str, years))} of the challenge ({', '.join(named)}), by the sizes that are known",
        to_stderr=True,
    )
    return known_clips(years, named)


def first_process() -> bool:
    """Whether this process is the one that speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str, *, to_stderr: bool = False) -> None:
    """Print a line, once for all processes."""
    if first_process():
        click.echo(line, err=to_stderr)


def show_forecast(
    recipe: Recipe, table: ClipTable, run: Path, device: Device, *, as_json: bool = False, to_stderr: bool = False
) -> None:
    """Print what is to be done; of several processes the first does."""
    if not first_process():
        return
    from asd_trainer.run.forecast import forecast, free_bytes, printed

    rows = forecast(recipe, table, run, device)
    if as_json:
        content = {
            "stages": [row.as_json() for row in rows],
            "free_bytes": free_bytes(run),
            "device": {"name": device.words, "memory_bytes": round(device.memory_bytes), "measured": device.measured},
        }
        click.echo(json.dumps(content, indent=2))
        return
    for line in printed(rows, free_bytes(run), device):
        click.echo(line, err=to_stderr)
