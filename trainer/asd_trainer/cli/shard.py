"""asd-train shard: a data set as Parquet files, for a disk, a network or an object store.

Owns its words and output. The work is done in `shard_writing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from asd_daemon.redaction import redact
from asd_trainer.cli.options import DataRootType, read_table

if TYPE_CHECKING:
    from asd_trainer.data.storage import DataRoot


@click.command()
@click.argument("data", nargs=-1, required=True, type=DataRootType(), metavar="DATA…")
@click.option(
    "--to",
    required=True,
    type=DataRootType(),
    metavar="URL",
    help="Folder that gets the shards, or its address: s3://, gs://, sftp:// or whatever else fsspec opens.",
)
@click.option(
    "--clips-a-shard",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    metavar="N",
    help="Clips of a shard; 1000 of 10 s are about 200 MB.",
)
def shard(data: Sequence[DataRoot], to: DataRoot, clips_a_shard: int) -> None:
    """Write the clips of DATA, folders of recordings, as Parquet shards with their sound and all that is known of them.

    Every command takes the shards as --data URL: no folder is listed, and millions of clips are a few thousand files. Broken off, the same
    command goes on. Needs pip install 'asd-edge[remote]', and for an object store its package (s3fs, gcsfs, adlfs …).

    \b
    Examples:
      asd-train shard data/dcase2025t2 --to shards
      asd-train shard data/dcase2024t2 data/dcase2025t2 --to s3://sound/dcase --clips-a-shard 500
    """
    from asd_trainer.data.shard_writing import write_shards
    from asd_trainer.training.progress import counted

    table = read_table(data)
    with counted("shard", "clips") as progress:
        done = write_shards(table, data, to, clips_a_shard=clips_a_shard, progress=progress)
    size = sum(one.bytes for one in done.index.shards)
    shown = redact(str(to))
    count = f"{done.index.clips} clips in {len(done.index.shards)} shards, {size / 1e6:.1f} MB"
    click.echo(f"{count}; {done.written} written, {done.kept} kept: {shown}")
    click.echo(f"next: asd-train run smoke --data {shown} --out runs/smoke")
