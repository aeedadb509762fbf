"""A table of clips → Parquet shards with their sound, on a disk or in an object store.

Owns what is written, in which order, and what is there already. The same clips give the same files, byte for byte, by one version of
pyarrow and libsndfile. A shard appears when it is whole and is noted beside it; broken off, the same call goes on after the last one.
The index is written last.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
from pydantic import ValidationError

from asd_daemon.errors import DataSetError, RecordingError
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable
from asd_trainer.data.features import clips_digest
from asd_trainer.data.listing import year_of
from asd_trainer.data.shard_index import (
    COLUMNS,
    INDEX,
    TABLE,
    ProblemEntry,
    ShardEntry,
    ShardIndex,
    arrow_schema,
    entry_of,
    holds_shards,
    pyarrow,
    read_index,
    row_of,
)
from asd_trainer.data.shard_scratch import remove_left_behind, scratch_folder
from asd_trainer.data.shard_sound import clip_content
from asd_trainer.data.simulation_plan import SIMULATION_NOTE
from asd_trainer.data.storage import DataRoot, Storage

ROWS_A_GROUP = 4
"""Rows that are read together: about 1 MB, so that clips in any order cost little."""
TABLE_GROUP = 100_000
GROUPS_AT_ONCE = 8
_LOSSLESS = {"PCM_16": "int16", "PCM_24": "int32", "PCM_S8": "int16", "PCM_U8": "int16"}
"""What FLAC holds without loss, and as what it is read."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sharding:
    """What was written."""

    index: ShardIndex
    written: int
    kept: int
    """Shards that were there."""


def write_shards(
    table: ClipTable, roots: Sequence[DataRoot], to: DataRoot, *, clips_a_shard: int, progress: Progress
) -> Sharding:
    """Write the clips of a table as shards.

    Args:
        table: at least one clip, of which none has the path of another.
        roots: what the table was read from.
        to: folder or address that gets the shards.
        clips_a_shard: rows of each but the last.
        progress: called with how many clips of how many are done.

    Raises:
        DataSetError: the place holds other shards, can't be written, or a name is no text that Parquet can hold; a package is missing.
        RecordingError: a clip can't be read any more.
    """
    storage = Storage(to)
    arrow = pyarrow(storage.name)
    local = storage.make()
    base = base_folder(roots)
    rows = [row_of(clip, _relative(clip, base)) for clip in table.clips]
    _refuse_unfit(table.clips, rows)
    rows_sha256 = hashlib.sha256("".join(f"{json.dumps(row)}\n" for row in rows).encode()).hexdigest()
    there = read_index(storage)
    if there is not None:
        if (there.rows_sha256, there.clips_a_shard) != (rows_sha256, clips_a_shard):
            raise DataSetError(f"{storage.name}: holds shards of other clips, or of another size; give another --to")
        if local is not None:
            remove_left_behind(local)
        return Sharding(there, 0, len(there.shards))
    pieces = [slice(first, first + clips_a_shard) for first in range(0, len(rows), clips_a_shard)]
    entries: list[ShardEntry] = []
    written = 0
    with scratch_folder(local) as scratch:
        for number, piece in enumerate(pieces):
            progress(piece.start, len(rows))
            one = _Shard(arrow, storage, scratch, number, table.clips[piece], rows[piece])
            entry = one.noted()
            written += entry is None
            entries.append(entry or one.write())
        progress(len(rows), len(rows))
        content = _table(arrow, rows, clips_a_shard)
        index = ShardIndex(
            clips=len(rows),
            clips_a_shard=clips_a_shard,
            simulated=_simulated(table.clips),
            table_bytes=len(content),
            table_sha256=hashlib.sha256(content).hexdigest(),
            rows_sha256=rows_sha256,
            shards=tuple(entries),
            problems=tuple(
                ProblemEntry(path=_text(os.path.relpath(one.path, base)), reason=_text(one.reason), used=one.used)
                for one in table.problems
            ),
        )
        storage.write(TABLE, content)
        storage.write(INDEX, index.as_bytes())
    for number in range(len(pieces)):
        if storage.size(_note(number)) is not None:
            storage.remove(_note(number))
    return Sharding(index, written, len(pieces) - written)


def base_folder(roots: Sequence[DataRoot]) -> Path:
    """The folder that paths are told below: above the roots and whatever above them names their year, so that it stays told."""
    tops = []
    for root in roots:
        if holds_shards(root):
            continue
        own = Path(root).absolute()
        dated = [folder for folder in (own, *own.parents) if year_of(folder / "_") and not year_of(folder)]
        tops.append((dated[0] if dated else own).parent)
    return Path(os.path.commonpath(tops)) if tops else Path("/")


class _Shard:
    """One shard of a folder: what it is to hold, and whether it is there."""

    def __init__(
        self, arrow: Any, storage: Storage, scratch: Path, number: int, clips: Sequence[Clip], rows: Sequence[Any]
    ) -> None:
        self._arrow, self._storage, self._scratch = arrow, storage, scratch
        self._file, self._note = f"shard-{number:05d}.parquet", _note(number)
        self._clips, self._rows = clips, rows
        self._source = hashlib.sha256(f"{clips_digest(clips)} {json.dumps(rows)}".encode()).hexdigest()

    def noted(self) -> ShardEntry | None:
        """Its entry, if it was written of these very clips and is there."""
        content = self._storage.read(self._note)
        if content is None:
            return None
        try:
            note = json.loads(content)
            entry = ShardEntry.model_validate(note["entry"])
        except (ValueError, KeyError, TypeError, ValidationError):
            return None  # cut off: the shard is written again
        right = note.get("source") == self._source and self._storage.size(self._file) == entry.bytes
        return entry if right else None

    def write(self) -> ShardEntry:
        """Write it and note it."""
        partial = self._scratch / self._file
        schema = arrow_schema(self._arrow).append(self._arrow.field("sound", self._arrow.binary()))
        try:
            with (
                ThreadPoolExecutor(thread_name_prefix="shards") as pool,
                self._arrow.parquet.ParquetWriter(partial, schema, **_options(with_sound=True)) as writer,
            ):
                for rows, sounds in self._groups(pool):
                    columns = [*_columns(rows), sounds]
                    arrays = [self._arrow.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
                    writer.write_table(self._arrow.table(arrays, schema=schema), row_group_size=ROWS_A_GROUP)
        except (OSError, self._arrow.ArrowException) as e:
            raise DataSetError(f"{partial}: can't be written: {e}; make room and call again") from e
        with partial.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        entry = entry_of(self._file, self._clips, partial.stat().st_size, sha256)
        self._storage.put(partial, self._file)
        partial.unlink(missing_ok=True)
        note = {"source": self._source, "entry": entry.model_dump()}
        self._storage.write(self._note, json.dumps(note).encode())
        return entry

    def _groups(self, pool: ThreadPoolExecutor) -> Iterator[tuple[Sequence[Any], list[bytes]]]:
        step = ROWS_A_GROUP * GROUPS_AT_ONCE
        for first in range(0, len(self._clips), step):
            piece = slice(first, first + step)
            yield self._rows[piece], list(pool.map(encoded, self._clips[piece]))


def encoded(clip: Clip) -> bytes:
    """A clip's sound as it goes into a shard: FLAC of the same samples where FLAC can hold them all, else the file as it is.

    Raises:
        RecordingError: it can't be read.
    """
    try:
        content = clip_content(clip)
        content = clip.path.read_bytes() if content is None else content
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if file.format == "FLAC" or file.subtype not in _LOSSLESS or file.channels > 8:
                return content
            samples, promised = file.read(dtype=_LOSSLESS[file.subtype]), file.frames
            if len(samples) != promised or "should be" in file.extra_info:
                return content  # cut off: whoever reads it is told so
            buffer = io.BytesIO()
            subtype = "PCM_24" if file.subtype == "PCM_24" else "PCM_16"
            soundfile.write(buffer, samples, file.samplerate, format="FLAC", subtype=subtype)
            return buffer.getvalue()
    except (OSError, soundfile.LibsndfileError, RuntimeError, ValueError) as e:
        raise RecordingError(f"{clip.path}: can't be read as sound: {e}") from e


def _note(number: int) -> str:
    return f"part-{number:05d}.json"


def _relative(clip: Clip, base: Path) -> str:
    return clip.path.relative_to(base if clip.shard is None else clip.shard.url).as_posix()


def _refuse_unfit(clips: Sequence[Clip], rows: Sequence[Sequence[Any]]) -> None:
    seen: dict[str, Clip] = {}
    for clip, row in zip(clips, rows, strict=True):
        for value in row:
            if isinstance(value, str) and value != _text(value):
                raise DataSetError(f"{_text(str(clip.path))}: its name is no UTF-8; rename it")
        if seen.setdefault(row[0], clip) is not clip:
            raise DataSetError(f"{clip.path}: is there twice; give each folder once")


def _text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode()


def _simulated(clips: Sequence[Clip]) -> bool:
    folders = {parent for folder in {clip.path.parent for clip in clips} for parent in folder.parents}
    return any((folder / SIMULATION_NOTE).exists() for folder in folders) or any(
        c.shard and c.shard.simulated for c in clips
    )


def _columns(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _options(*, with_sound: bool) -> dict[str, Any]:
    words = [name for name in COLUMNS if name != "path"]
    packed = dict.fromkeys((*COLUMNS, *(("sound",) if with_sound else ("shard", "row"))), "ZSTD")
    return {
        "compression": packed | ({"sound": "NONE"} if with_sound else {}),
        "use_dictionary": words,
        "write_statistics": False,
        "write_page_checksum": True,
    }


def _table(arrow: Any, rows: Sequence[Sequence[Any]], clips_a_shard: int) -> bytes:
    """clips.parquet."""
    schema = arrow_schema(arrow)
    for name in ("shard", "row"):
        schema = schema.append(arrow.field(name, arrow.int32()))
    places = [[number // clips_a_shard for number in range(len(rows))], [n % clips_a_shard for n in range(len(rows))]]
    columns = [*_columns(rows), *places]
    arrays = [arrow.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    buffer = io.BytesIO()
    content = arrow.table(arrays, schema=schema)
    arrow.parquet.write_table(content, buffer, row_group_size=TABLE_GROUP, **_options(with_sound=False))
    return buffer.getvalue()
