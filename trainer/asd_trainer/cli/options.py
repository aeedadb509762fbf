"""Words that several commands of asd-train share, and the recordings that they name.

Owns the shared options and the note in a run of where its recordings are. It knows no command.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asd_daemon.errors import DataSetError, StageError
from asd_daemon.redaction import redact
from asd_trainer.data.storage import DataRoot, data_root
from asd_trainer.training.whole_file import write_whole

if TYPE_CHECKING:
    from asd_trainer.data.dataset import ClipTable

DATA_NOTE = "data.json"


class DataRootType(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on
    """A folder, or an address of shards."""

    name = "directory"

    def convert(self, value: Any, _param: click.Parameter | None, _ctx: click.Context | None) -> DataRoot:
        """What it stands for."""
        return data_root(value) if isinstance(value, str) else value


Data = click.option(
    "--data",
    "roots",
    multiple=True,
    type=DataRootType(),
    metavar="DIR",
    help="Folder with recordings: a DCASE layout, or a plain folder of one machine; or shards: their folder or address (s3://…). May be "
    "given several times.",
)
Run = click.argument("run", type=click.Path(path_type=Path))
Threads = click.option(
    "--threads", type=click.IntRange(1), help="Threads of the CPU to use. [default: $OMP_NUM_THREADS, else all cores]"
)
Json = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")


def with_threads(command: Callable[..., None]) -> Callable[..., None]:
    """Set torch's threads from --threads before the command; torch's own default heeds OMP_NUM_THREADS, which launchers set."""

    @Threads
    @functools.wraps(command)
    def threaded(threads: int | None, **arguments: Any) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        command(**arguments)

    return threaded


Workers = click.option(
    "--workers",
    "worker_words",
    metavar="WHO",
    help="Who reads clips and computes their log-mels: a number of processes, or a cluster: dask://HOST:PORT, ray://HOST:PORT. "
    "[default: threads of this process]",
)


def with_workers(command: Callable[..., None]) -> Callable[..., None]:
    """Let those of --workers compute features while the command runs; of several processes the first sees at once that they are there."""

    @Workers
    @functools.wraps(command)
    def worked(worker_words: str | None, **arguments: Any) -> None:
        from asd_trainer.data.worker_choice import chosen_workers
        from asd_trainer.data.workers import at_work

        with at_work(chosen_workers(worker_words)) as chosen:
            if os.environ.get("RANK", "0") == "0" and not arguments.get("dry_run"):
                chosen.start()
            command(**arguments)

    return worked


LogTo = click.option(
    "--log-to",
    "trackers",
    multiple=True,
    type=click.Choice(["tensorboard", "mlflow"]),
    help="Also tell the figures of each step to TensorBoard (files in RUN/tensorboard) or MLflow (RUN/mlflow, or where MLFLOW_TRACKING_URI "
    "says). May be given several times.",
)


def with_trackers(command: Callable[..., None]) -> Callable[..., None]:
    """Let the stages of RUN tell their figures to those of --log-to."""

    @LogTo
    @functools.wraps(command)
    def followed(trackers: Sequence[str], run: Path, **arguments: Any) -> None:
        from asd_trainer.training.tracking import tracked

        with tracked(run, trackers):
            command(run=run, **arguments)

    return followed


def read_table(roots: Sequence[DataRoot], labels: Sequence[Path] = ()) -> ClipTable:
    """The clips of the folders; what can't be used is listed on stderr in one report.

    Args:
        roots: folders of recordings, or folders and addresses of shards.
        labels: published lists of what anonymous test clips are.

    Raises:
        DataSetError: no data set there, nothing usable in it, or a list that can't be read or does not fit.
    """
    from asd_trainer.data.dataset import read_dataset
    from asd_trainer.data.labels import with_labels

    table = with_labels(read_dataset(roots), labels)
    if table.problems:
        click.echo(table.report(), err=True)
    if not table.clips:
        raise DataSetError(f"{redact(', '.join(map(str, roots)))}: no usable recording there")
    return table


def remember_data(run: Path, roots: Sequence[DataRoot]) -> None:
    """Remember where the recordings are, for the commands that name the run alone."""
    noted = {"roots": [root if isinstance(root, str) else str(root.resolve()) for root in roots]}
    write_whole(run / DATA_NOTE, json.dumps(noted, indent=2) + "\n")


def remembered_data(run: Path) -> list[DataRoot]:
    """The folders of recordings that a run was trained on.

    Raises:
        StageError: there is no such run, or it does not say.
    """
    if not run.is_dir():
        raise StageError(
            f"{run}: there is no such run folder; make one with: asd-train run RECIPE --data DIR --out {run}"
        )
    path = run / DATA_NOTE
    try:
        return [data_root(root) for root in json.loads(path.read_text(encoding="utf-8"))["roots"]]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise StageError(f"{run}: {DATA_NOTE} does not say where the recordings are; give them with --data DIR") from e
