"""What is in a folder of shards: its index, and the columns of its tables.

    shards.json              schema, how many clips, what could not be used, and of each shard rows, bytes, SHA-256, splits and machines
    clips.parquet            the table of all clips without their sound, so that ten million need one file to be read and none listed
    shard-00000.parquet …    the same columns with `sound`, for any reader of Parquet

Owns their form. The index is written last: a folder without one is no data set. A clip's columns:

    path                                     text: below the folder that was read, with its original name
    machine section split                    text
    domain label supplement                  text, null where not known or none
    year                                     int32, null where not known
    attributes                               text: JSON, a list of pairs of name and value
    shard row                                int32 (clips.parquet)
    sound                                    binary (shards): FLAC where that loses nothing of the recording, else its own format
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from asd_daemon.errors import DataSetError
from asd_trainer.data.clip import Clip, Problem, Shard
from asd_trainer.data.naming import Attributes
from asd_trainer.data.storage import DataRoot, Storage

INDEX, TABLE = "shards.json", "clips.parquet"
COLUMNS = ("path", "machine", "section", "split", "domain", "label", "supplement", "year", "attributes")
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ShardEntry(_Part):
    """One shard."""

    file: Annotated[str, StringConstraints(pattern=r"^shard-\d{5,}\.parquet$")]
    rows: int = Field(ge=1)
    bytes: int = Field(ge=1)
    sha256: Sha256
    splits: dict[str, int]
    machines: dict[str, int]


class ProblemEntry(_Part):
    """A file that could not be used (`used` false), or that is in a shard with a doubt."""

    path: str
    reason: str
    used: bool


class ShardIndex(_Part):
    """shards.json."""

    schema_: Literal[1] = Field(1, alias="schema")
    clips: int = Field(ge=1)
    clips_a_shard: int = Field(ge=1)
    simulated: bool
    """Some of it is of simulated machines."""
    table_bytes: int = Field(ge=1)
    table_sha256: Sha256
    rows_sha256: Sha256
    """Of what is said of all clips, whatever wrote it down: equal for equal tables."""
    shards: tuple[ShardEntry, ...] = Field(min_length=1)
    problems: tuple[ProblemEntry, ...] = ()

    def as_bytes(self) -> bytes:
        """The file."""
        return (json.dumps(self.model_dump(by_alias=True), indent=1, ensure_ascii=False) + "\n").encode()

    def shards_of(self, storage: Storage) -> tuple[Shard, ...]:
        """The shards with their addresses."""
        return tuple(Shard(storage.url(one.file), one.bytes, one.sha256, self.simulated) for one in self.shards)


def holds_shards(root: DataRoot) -> bool:
    """Whether a root is an address, or a folder with an index of shards."""
    return isinstance(root, str) or (root / INDEX).is_file()


def read_index(storage: Storage) -> ShardIndex | None:
    """The index of a folder of shards, None where there is none.

    Raises:
        DataSetError: it can't be read or is none of this version; names what is wrong in it.
    """
    content = storage.read(INDEX)
    if content is None:
        return None
    try:
        index = ShardIndex.model_validate_json(content)
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataSetError(
            f"{storage.name}/{INDEX}: {key}: {str(first['input'])[:80]!r} is not allowed: {first['msg']}; is it of another version?"
        ) from e
    if index.clips != sum(one.rows for one in index.shards):
        raise DataSetError(f"{storage.name}/{INDEX}: clips: {index.clips}, but its shards have another number of rows")
    return index


def entry_of(file: str, clips: Sequence[Clip], size_bytes: int, sha256: str) -> ShardEntry:
    """A shard's part of the index."""
    return ShardEntry(
        file=file,
        rows=len(clips),
        bytes=size_bytes,
        sha256=sha256,
        splits=dict(sorted(Counter(clip.split for clip in clips).items())),
        machines=dict(sorted(Counter(clip.machine for clip in clips).items())),
    )


def row_of(clip: Clip, path: str) -> tuple[str | int | None, ...]:
    """What the columns say of a clip, in the order of `COLUMNS`."""
    attributes = json.dumps(clip.attributes, ensure_ascii=False)
    named = (path, clip.machine, clip.section, clip.split, clip.domain, clip.label, clip.supplement)
    return (*named, clip.year, attributes)


def arrow_schema(arrow: Any) -> Any:
    """The columns as Arrow's schema."""
    kinds = {name: arrow.int32() if name == "year" else arrow.string() for name in COLUMNS}
    return arrow.schema(list(kinds.items()))


def clips_of(columns: dict[str, list[Any]], shards: Sequence[Shard], folders: Sequence[Path]) -> Iterator[Clip]:
    """Clips of rows of clips.parquet, given as lists; words that many clips share are kept once."""
    words: dict[Any, Any] = {}
    lists: dict[str, Attributes] = {}
    for path, machine, section, split, domain, label, supplement, year, text, shard, row in zip(
        *(columns[name] for name in (*COLUMNS, "shard", "row")), strict=True
    ):
        attributes = lists.get(text)
        if attributes is None:
            attributes = lists[text] = tuple((str(name), str(value)) for name, value in json.loads(text))
        yield Clip(
            folders[shard] / path,
            words.setdefault(machine, machine),
            words.setdefault(section, section),
            words.setdefault(split, split),
            domain and words.setdefault(domain, domain),
            label and words.setdefault(label, label),
            attributes,
            supplement and words.setdefault(supplement, supplement),
            year,
            shards[shard],
            row,
        )


def problems_of(index: ShardIndex, storage: Storage) -> tuple[Problem, ...]:
    """What could not be used when the shards were written."""
    return tuple(Problem(Path(storage.url(one.path)), one.reason, one.used) for one in index.problems)


def pyarrow(what: str) -> Any:
    """The library.

    Raises:
        DataSetError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as e:
        raise DataSetError(f"{what}: shards need pyarrow: pip install 'asd-edge[remote]'") from e
    return pyarrow
