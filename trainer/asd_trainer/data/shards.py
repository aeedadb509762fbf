"""A folder of shards → the table of its clips.

Owns the reading of the table, which needs no sound; `shard_sound` reads that, `shard_writing` writes both.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, get_args

from asd_daemon.errors import DataSetError
from asd_trainer.data.clip import Clip, Problem
from asd_trainer.data.naming import Domain, Label, Split, Supplement
from asd_trainer.data.shard_index import COLUMNS, INDEX, TABLE, clips_of, problems_of, pyarrow, read_index
from asd_trainer.data.storage import DataRoot, Storage

ROWS_AT_ONCE = 50_000
_WORDS = {"split": Split, "domain": Domain, "label": Label, "supplement": Supplement}
_NULLABLE = {"domain", "label", "supplement", "year"}


def read_shards(root: DataRoot) -> tuple[list[Clip], list[Problem]]:
    """The clips of a folder of shards in the order of the table, and what could not be used when it was written.

    Raises:
        DataSetError: there is no index, it or the table is damaged or of another version, or a package is missing.
    """
    arrow = pyarrow(str(root))
    storage = Storage(root)
    index = read_index(storage)
    if index is None:
        raise DataSetError(
            f"{storage.name}: there is no {INDEX}: an address must be of shards that asd-train shard wrote to their end"
        )
    shards = index.shards_of(storage)
    content = storage.read(TABLE) or b""
    if len(content) != index.table_bytes or hashlib.sha256(content).hexdigest() != index.table_sha256:
        raise DataSetError(
            f"{storage.name}/{TABLE}: is not what {INDEX} says: cut off or changed; write the shards anew"
        )
    folders = [Path(shard.url) for shard in shards]
    clips: list[Clip] = []
    try:
        file = arrow.parquet.ParquetFile(io.BytesIO(content))
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=[*COLUMNS, "shard", "row"]):
            columns = batch.to_pydict()
            _refuse_odd_rows(columns, [one.rows for one in index.shards])
            clips.extend(clips_of(columns, shards, folders))
    except (arrow.ArrowException, KeyError, ValueError, TypeError) as e:
        raise DataSetError(f"{storage.name}/{TABLE}: can't be read: {e}") from e
    if len(clips) != index.clips:
        raise DataSetError(f"{storage.name}/{TABLE}: holds {len(clips)} clips, {INDEX} says {index.clips}")
    return clips, list(problems_of(index, storage))


def _refuse_odd_rows(columns: dict[str, list[Any]], rows: list[int]) -> None:
    """Refuse words that no clip has, and rows that no shard has.

    Raises:
        ValueError: names the column and the value.
    """
    for name, values in columns.items():
        if name not in _NULLABLE and None in values:
            raise ValueError(f"{name}: null")
        if name in _WORDS and (odd := set(values) - {None, *get_args(_WORDS[name])}):
            raise ValueError(f"{name}: {min(odd)!r}")
    for shard, row in zip(columns["shard"], columns["row"], strict=True):
        if not (0 <= shard < len(rows) and 0 <= row < rows[shard]):
            raise ValueError(f"shard {shard}, row {row}: there is none such")
    for path in columns["path"]:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"path: {path!r} leads out of the folder")
