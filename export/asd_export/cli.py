"""asd-export: a trained run becomes a bundle.

Owns the words on the command line and what is printed. The work is done in `assembly`, imported when it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asd_daemon.cli.console import Program
from asd_daemon.errors import UsageError
from asd_trainer.cli.options import DataRootType

if TYPE_CHECKING:
    from asd_export.assembly import ExportReport
    from asd_export.indexes import Progress, Scoring
    from asd_export.models import MeasuredModel
    from asd_trainer.data.dataset import ClipTable
    from asd_trainer.data.storage import DataRoot
    from asd_trainer.networks.separator import Separator


NO_RUN = "-"


@click.command(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="asd-edge", prog_name="asd-export")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "roots",
    multiple=True,
    type=DataRootType(),
    metavar="DIR",
    help="Recordings, or shards of them, whose normal training clips become machines of the bundle. [default: those the run learned from]",
)
@click.option(
    "--machine", "machines", multiple=True, metavar="NAME", help="Only this machine; may be given several times."
)
@click.option("--fp32", is_flag=True, help="Listen with the unquantised model.")
@click.option(
    "--score-error",
    type=click.FloatRange(0, min_open=True),
    default=0.25,
    show_default=True,
    help="What int8 may change any score by, as a share of the 95th percentile of normal scores.",
)
@click.option(
    "--omega-loss",
    type=click.FloatRange(0),
    default=0.5,
    show_default=True,
    help="Points of Ω that int8 may lose on the test split, where each machine has 10 normal and 10 anomalous clips.",
)
@click.option("--no-test", is_flag=True, help="Leave the test split alone: no Ω is measured.")
@click.option("--name", help="The bundle's name. [default: the folder's]")
@click.option("--bundle-version", help="The bundle's version. [default: today]")
@click.option(
    "--licence", default="unspecified", show_default=True, help="Under what the bundle may be used, for its manifest."
)
@click.option(
    "--score",
    "scoring",
    type=click.Choice(["nearest", "views"]),
    default="nearest",
    show_default=True,
    help="Score by the nearest normal neighbour, or by views of each machine's steady sound and its movement.",
)
@click.option(
    "--hnsw",
    type=click.Choice(["auto", "always"]),
    default="auto",
    show_default=True,
    help="Write an hnswlib graph for banks that are large enough to need one, or for every bank.",
)
@click.option("--no-twin", is_flag=True, help="Leave out the unquantised embedder that the int8 one was compared with.")
@click.option("--no-separator", is_flag=True, help="Leave the run's separator out, where it has one.")
@click.option(
    "--sign",
    "key",
    type=click.Path(path_type=Path),
    metavar="KEY",
    help="Sign the manifest with this Ed25519 private key (PEM, `openssl genpkey -algorithm ed25519`).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")
def main(
    run: Path,
    bundle: Path,
    roots: Sequence[DataRoot],
    machines: Sequence[str],
    fp32: bool,
    score_error: float,
    omega_loss: float,
    no_test: bool,
    name: str | None,
    bundle_version: str | None,
    licence: str,
    scoring: Scoring,
    hnsw: str,
    no_twin: bool,
    no_separator: bool,
    key: Path | None,
    as_json: bool,
) -> None:
    """Write BUNDLE, a folder that asd-daemon listens with, from the trained RUN, or from recordings alone where RUN is -.

    The ONNX graph is compared with torch, the int8 model with fp32; what differs too much is refused and an older BUNDLE stays.
    With --data, machines that the run never heard get their banks from it: the embedder is the run's, normal sound is theirs.
    Without a run the bundle has no model: its machines are judged by views of their steady sound and movement.

    \b
    Examples:
      asd-export runs/smoke bundle
      asd-export runs/smoke bundle --data recordings/press-3
      asd-export - bundle --data recordings/press-3 --score views

    \b
    Exit codes: 0 well; 1 a comparison or budget failed; 2 wrong usage, run or data.
    """
    from asd_daemon.learn.machine_files import LEAST_GRAPH_VECTORS
    from asd_export.assembly import Label, export_run
    from asd_export.model_card import Learning
    from asd_export.quantize import Budget
    from asd_trainer.cli.options import read_table, remembered_data
    from asd_trainer.data.dataset import refuse_unfit_names
    from asd_trainer.networks.embedder import load_embedder

    has_run = str(run) != NO_RUN
    if not has_run and (not roots or scoring != "views"):
        raise UsageError("without a run (-) a bundle needs --data and --score views: there is no model to score with")
    embedder = load_embedder(run) if has_run else None
    table = read_table(roots or remembered_data(run))
    if machines:
        table = _of_machines(table, machines)
    refuse_unfit_names(table)
    version = bundle_version or datetime.now(UTC).strftime("%Y.%m.%d")
    label = Label(name=name or bundle.resolve().name, version=version, licence=licence)
    with _progress(quiet=as_json) as progress:
        report = export_run(
            embedder,
            table,
            bundle,
            label=label,
            fp32=fp32,
            budget=Budget(score_error=score_error, omega_points=omega_loss),
            progress=progress,
            key=key,
            separator=_separator_of(run) if has_run and not no_separator else None,
            scoring=scoring,
            measures_omega=not no_test,
            learning=Learning.of(run) if has_run else None,
            least_graph=2 if hnsw == "always" else LEAST_GRAPH_VECTORS,
            keeps_twin=not no_twin,
        )
    _show(report, as_json=as_json)


def _show(report: ExportReport, *, as_json: bool) -> None:
    for problem in report.unread:
        click.echo(f"left out: {problem}", err=True)
    if as_json:
        click.echo(json.dumps(_described(report), indent=2))
    else:
        _print(report)


def _of_machines(table: ClipTable, machines: Sequence[str]) -> ClipTable:
    """The clips of these machines alone."""
    if unknown := sorted(set(machines) - set(table.machines)):
        raise UsageError(f"--machine {unknown[0]}: the recordings know {', '.join(table.machines)}")
    return replace(table, clips=tuple(clip for clip in table.clips if clip.machine in machines))


def _separator_of(run: Path) -> Separator | None:
    """The run's separator; None where it has none."""
    folder = run / "stages" / "separate"
    if not (folder / "done").exists():
        return None
    from asd_trainer.separate.training import load_separator

    return load_separator(folder)


class _progress:  # noqa: N801  used as a verb
    """A bar on a terminal, a line a step elsewhere, nothing for a program."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description:<14}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._lines = not quiet and not console.is_terminal
        self._tasks: dict[str, object] = {}

    def __enter__(self) -> Progress:
        self._bar.start()
        return self._told

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _told(self, step: str, done: int, total: int) -> None:
        if step not in self._tasks:
            self._tasks[step] = self._bar.add_task(step, total=total)
            if self._lines:
                click.echo(f"{step} …", err=True)
        self._bar.update(self._tasks[step], completed=done, total=total)  # type: ignore[arg-type]


def _described(report: ExportReport) -> dict[str, object]:
    manifest = report.bundle.manifest
    return {
        "bundle": str(report.bundle.path),
        "name": manifest.name,
        "version": manifest.version,
        "embedder": manifest.embedder.model_dump() if manifest.embedder is not None else None,
        "figures": manifest.figures,
        "machines": {name: entry.model_dump() for name, entry in manifest.machines.items()},
    }


def _print_model(name: str, tried: MeasuredModel) -> None:
    """What was tried for a model, and why what is taken is taken."""
    click.echo(f"\n{name}: ONNX against torch, largest difference {tried.torch_difference:.1e}")
    if not tried.candidates:
        return
    loses = any(c.loss_db is not None for c in tried.candidates)
    click.echo(f"{'model':<9}{'kB':>8}{'ms/window':>11}{'score error':>14}{'dB lost' if loses else '':>9}{'Ω':>7}")
    for c in tried.candidates:
        verdict = "chosen" if c.way == tried.chosen else f"refused: {c.refused}" if c.refused else ""
        kept = f"{len(c.kept_fp32)} operators fp32" if c.kept_fp32 and not c.refused else ""
        lost = f"{c.loss_db:.2f}" if c.loss_db is not None else ""
        omega = f"{c.omega:.1f}" if c.omega is not None else "–"
        click.echo(
            f"{c.way:<9}{c.bytes / 1000:>8.0f}{c.window_ms:>11.1f}{c.score_error:>9.4f} {c.score_error_share:>4.0%}{lost:>9}{omega:>7}"
            f"  {', '.join(filter(None, (verdict, kept)))}"
        )


def _print(report: ExportReport) -> None:
    manifest = report.bundle.manifest
    if report.embedder is not None:
        _print_model("embedder", report.embedder)
    else:
        click.echo("no model: machines are judged by views that need none")
    if report.separator is not None:
        _print_model("separator", report.separator)
    click.echo(f"\n{'machine':<16}{'clips':>6}{'threshold':>11}   scored by")
    for machine, known in report.machines.items():
        entry = known.entry
        search = ", ".join(f"{view} {weight:.0%}" for view, weight in known.weights) or (
            f"hnsw, ef {entry.ef}, recall {entry.recall:.4f}"
            if entry.search == "hnsw"
            else (f"exact (hnsw reaches {entry.recall:.4f})" if entry.recall else "exact")
        )
        separated = ", heard and separated" if entry.separated and not known.weights else ""
        click.echo(f"{machine:<16}{entry.vectors:>6}{known.threshold:>11.4f}   {search}{separated}")
    size = sum(f.bytes for f in manifest.files.values())
    click.echo(f"\nbundle: {report.bundle.path} ({manifest.name} {manifest.version}, {size / 1e6:.1f} MB)")
    first = next(iter(manifest.machines))
    click.echo(f"next: asd-daemon run --bundle {report.bundle.path} --machine {first}")
