"""asd-train embed: clips as vectors with their scores, in one file for whatever comes after.

Owns its words. The work is done in `clip_vectors` and `vector_files`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asd_trainer.cli.options import Data, with_threads, with_workers
from asd_trainer.cli.scoring import Labels, Score, Separation, labelled_table

if TYPE_CHECKING:
    from asd_trainer.data.dataset import ClipTable
    from asd_trainer.data.storage import DataRoot
    from asd_trainer.evaluate.backend import Scoring
    from asd_trainer.evaluate.clip_vectors import ClipVectors
    from asd_trainer.evaluate.separation_trial import Separating


@click.command()
@click.argument("run", type=click.Path(path_type=Path), metavar="RUN")
@click.option(
    "--to", "file", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Ends with .npz or .parquet."
)
@Data
@Labels
@click.option(
    "--view",
    "views",
    multiple=True,
    metavar="NAME",
    help="heard (the embedding), of a bundle separated, or a view that needs no training, such as steady-quiet. May be given several "
    "times.  [default: heard of a run; of a bundle, what its machines are judged by]",
)
@Score
@Separation
@with_workers
@with_threads
def embed(
    run: Path,
    file: Path,
    roots: Sequence[DataRoot],
    labels: Sequence[Path],
    views: Sequence[str],
    scoring: Scoring,
    separating: Separating | None,
) -> None:
    """Write every clip's vectors and score to FILE, with its machine, year, section, split, domain, label and attributes.

    RUN is a run folder, or a bundle. The recordings are those of `asd-train run` unless --data names them. Training clips are scored by a
    run against the others of their machine; supplemental ones have no score. An .npz is read by numpy.load without a pickle, a .parquet
    (pip install 'asd-edge[parquet]') by pandas, polars or DuckDB.

    \b
    Examples:
      asd-train embed runs/smoke --to clips.npz
      asd-train embed bundle --data data --to clips.parquet
      asd-train embed bundle --data data --view steady-quiet --view moving-rhythm --to views.npz
    """
    from asd_trainer.evaluate.vector_files import check_vector_file, write_vectors

    check_vector_file(file)
    table = labelled_table([run], roots, labels)
    found = _vectors(run, table, views, scoring, separating)
    write_vectors(file, found)
    sizes = ", ".join(f"{view} {rows.shape[1]}" for view, rows in found.vectors.items())
    scored = int((found.scores == found.scores).sum())
    click.echo(f"{len(found.clips)} clips, {scored} with a score, by {found.source} ({sizes}): {file}", err=True)


def _vectors(
    run: Path, table: ClipTable, views: Sequence[str], scoring: Scoring, separating: Separating | None
) -> ClipVectors:
    from asd_daemon.judge.bundle.bundle import load_bundle
    from asd_trainer.evaluate.bundle_scores import is_bundle
    from asd_trainer.evaluate.clip_vectors import bundle_vectors, run_vectors
    from asd_trainer.training.progress import counted

    with counted(f"embed with {run.name}", "clips") as progress:
        if is_bundle(run):
            return bundle_vectors(load_bundle(run), table, progress, views=views)
        wanted = {"views": views} if views else {}
        return run_vectors(run, table, progress, scoring=scoring, separating=separating, **wanted)
