"""asd-train simulate and fetch: where recordings come from.

Owns the words and the output of the commands that write data sets. The work is done in `simulation` and `fetch`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from asd_trainer.data.fetch import Plan, Step
    from asd_trainer.training.progress import Advance


BaseUrl = click.option(
    "--base-url", default="https://zenodo.org", show_default=True, metavar="URL", help="The archive to fetch from."
)


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
    "--supplement",
    type=click.Choice(["either", "both"]),
    help="What they hold alone: of some machines the machine and of others their noise, as in the challenge, or by turns both of every "
    "machine, which teaches a separator most. [default: either]",
)
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
    from asd_trainer.data.simulation import write_dataset
    from asd_trainer.data.simulation_plan import SMOKE, SimulationPlan
    from asd_trainer.training.progress import counted

    changed = {name: value for name, value in sizes.items() if value not in (None, ())}
    plan = dataclasses.replace(SMOKE if small else SimulationPlan(), **changed)
    with counted("simulate", "clips") as progress:
        summary = write_dataset(out, plan, jobs=jobs or os.cpu_count() or 1, progress=progress)
    click.echo(f"{summary.written} clips written, {summary.kept} kept: {summary.root}")
    click.echo(f"next: asd-train run smoke --data {out} --out runs/smoke")


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--to", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder of the new data set.")
@click.option(
    "--channels",
    default="0,1",
    show_default=True,
    metavar="NEAR,FAR",
    help="Channels of the microphone at the machine and of the one far from it, counted from 0.",
)
def cancel(data: Path, to: Path, channels: str) -> None:
    """Take the hall out of recordings of two microphones, as in the challenge of 2026: writes DATA anew, with one channel, to DIR.

    One microphone is at the machine, the other one far from it. How the far one hears each machine is learned from its normal training
    clips. Names and folders stay, so that training, evaluation and submission read DIR as they read DATA. Broken off, the same command
    goes on.

    \b
    Examples:
      asd-train cancel data/dcase2026t2 --to clean/dcase2026t2
      asd-train cancel recordings --to recordings-clean --channels 1,0
    """
    from asd_trainer.data.cancellation import cancel_hall, parse_channels
    from asd_trainer.training.progress import counted

    near, far = parse_channels(channels)
    with counted("cancel", "clips") as progress:
        done = cancel_hall(data, to, near=near, far=far, progress=progress)
    for problem in done.problems:
        click.echo(f"{problem.path}: {problem.reason}", err=True)
    for unit, level_db in done.crosstalk_db.items():
        share = f", the hall makes {done.shares[unit]:.0%} of most clips" if unit in done.shares else ""
        click.echo(f"{unit}: heard {-level_db:.0f} dB softer by the far microphone{share}")
    click.echo(f"{done.written} clips written, {done.kept} kept: {done.root}")
    click.echo(f"next: asd-train run smoke --data {to} --out runs/{to.name}")


@click.command()
@click.argument("year", type=int)
@click.option(
    "--to", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Folder that gets dcase<YEAR>t2."
)
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(["dev", "train", "eval"]),
    help="Development data, additional training data, evaluation test data. May be given several times. [default: all]",
)
@click.option(
    "--machine", "machines", multiple=True, metavar="NAME", help="Only this machine. May be given several times."
)
@BaseUrl
@click.option("--dry-run", is_flag=True, help="Say what there is and how large it is, and fetch nothing.")
def fetch(year: int, to: Path, parts: Sequence[str], machines: Sequence[str], base_url: str, dry_run: bool) -> None:
    """Fetch the public data sets of DCASE Task 2 of YEAR, 2020 to 2026.

    Sizes and checksums are verified. What is there already is not fetched again; broken off, the same command goes on.

    \b
    Examples:
      asd-train fetch 2025 --to data --part dev
      asd-train fetch 2025 --to data --part train --part eval --machine ToyPet
    """
    root, _ = fetch_year(year, parts, machines, to, base_url, dry_run=dry_run)
    if not dry_run:
        click.echo(f"next: asd-train run smoke --data {root} --out runs/{year}")


def fetch_year(
    year: int,
    parts: Sequence[str],
    machines: Sequence[str],
    to: Path,
    base_url: str,
    *,
    dry_run: bool,
    to_stderr: bool = False,
) -> tuple[Path, bool]:
    """Tell licence and size of a year's data, then fetch what is missing; gives its folder, and whether all of it is there.

    Raises:
        UsageError, FetchError, DataSetError: as `asd_trainer.data.fetch.plan` and `fetch`.
    """
    from asd_trainer.data.fetch import plan

    what = plan(year, parts, machines, to, base_url=base_url.rstrip("/"))
    root = to / f"dcase{year}t2"
    for line in _plan_lines(what):
        click.echo(line, err=to_stderr)
    if not dry_run:
        _fetch(what, to_stderr=to_stderr)
    return root, not (dry_run and what.missing)


def fetch_years(years: Sequence[int], parts: Sequence[str], to: Path, base_url: str, *, dry_run: bool) -> bool:
    """Tell on stderr what these years' data is and how large it all is, then fetch what is missing; gives whether all of it is there.

    Raises:
        FetchError, DataSetError: as `asd_trainer.data.fetch.plan` and `fetch`; the disk has no room for all of it.
    """
    from asd_trainer.data.fetch import check_room, plan

    plans = [plan(year, parts, (), to, base_url=base_url.rstrip("/")) for year in years]
    for what in plans:
        click.echo(f"{what.year} ({', '.join(parts)}):", err=True)
        for line in _plan_lines(what):
            click.echo(f"  {line}", err=True)
    missing = sum(what.missing_bytes for what in plans)
    if len(plans) > 1:
        whole = sum(what.size_bytes for what in plans)
        click.echo(f"together: {_size(whole)}, of which {_size(missing)} are missing", err=True)
    if dry_run:
        return not missing
    check_room(plans)
    for what in plans:
        _fetch(what, to_stderr=True)
    return True


def _fetch(what: Plan, *, to_stderr: bool) -> None:
    from asd_trainer.data.fetch import fetch as fetch_files

    with _fetching() as told:
        fetch_files(what, told)
    kept = len(what.files) - len(what.missing)
    click.echo(f"{len(what.missing)} files fetched, {kept} kept: {what.to / f'dcase{what.year}t2'}", err=to_stderr)


def _plan_lines(what: Plan) -> Iterator[str]:
    yield from what.titles
    yield f"licence: {', '.join(what.licences)}"
    yield f"files:   {len(what.files)}, {_size(what.size_bytes)}"
    if not what.missing:
        yield "missing: none"
    else:
        needed = f"needs about {_size(what.needed_bytes)} of disk while it works"
        yield f"missing: {len(what.missing)}, {_size(what.missing_bytes)}; {needed}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


@contextmanager
def _fetching() -> Iterator[Callable[[Step], None]]:
    """Progress of one file after the other, in megabytes."""
    from asd_trainer.training.progress import counted_steps

    shown: tuple[str, str] | None = None
    advance: Advance
    with ExitStack() as bars:

        def tell(step: Step) -> None:
            nonlocal shown, advance
            if (step.key, step.action) != shown:
                bars.close()
                shown = (step.key, step.action)
                name, total = f"{step.action} {step.key} (MB)", -(-step.total_bytes // 10**6)
                advance = bars.enter_context(counted_steps(name, total, step.done_bytes // 10**6))
            finished = step.done_bytes == step.total_bytes
            advance(-(-step.total_bytes // 10**6) if finished else step.done_bytes // 10**6, {})

        yield tell
