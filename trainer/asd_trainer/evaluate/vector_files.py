"""Vectors and scores of clips as a file: NumPy's npz, or Parquet for data frames. Neither holds a pickle.

Owns the columns. Both have the same, a row a clip:

    path machine section split domain label     text; domain and label empty (Parquet: null) where they are not known
    year                                        number; 0 (Parquet: null) where none is known
    attributes                                  text: a JSON object of names and values
    score threshold                             float64; not a number (Parquet: null) where there is none
    vector_<view>                               float32 (D,): `vector_heard` is the embedding

An npz also holds `schema` and `source`; a Parquet file has them in the metadata of its schema, under `asd_edge`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from asd_daemon.errors import UsageError
from asd_trainer.evaluate.clip_vectors import ClipVectors
from asd_trainer.training.whole_file import fill_whole

SCHEMA = 1
SUFFIXES = (".npz", ".parquet")


def check_vector_file(path: Path) -> None:
    """Refuse a name that can't be written, before anything is computed.

    Raises:
        UsageError: another ending than .npz and .parquet, no such folder, or pyarrow is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: must end with {' or '.join(SUFFIXES)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    if path.suffix == ".parquet":
        _pyarrow(path)


def write_vectors(path: Path, found: ClipVectors) -> None:
    """Write vectors and scores, whole or not at all; the ending says in which form.

    Raises:
        UsageError: as `check_vector_file`, or the file can't be written.
    """
    check_vector_file(path)
    try:
        if path.suffix == ".npz":
            columns = {**_columns(found), **{f"vector_{view}": rows for view, rows in found.vectors.items()}}
            facts = {"schema": np.array(SCHEMA), "source": np.array(found.source)}
            fill_whole(path, lambda file: np.savez_compressed(file, allow_pickle=False, **facts, **columns))
        else:
            table = _arrow_table(path, found)
            fill_whole(path, lambda file: _pyarrow(path).parquet.write_table(table, file))
    except OSError as e:
        raise UsageError(f"{path}: can't be written: {e.strerror or e}") from e


def _columns(found: ClipVectors) -> dict[str, np.ndarray]:
    """All but the vectors, (N,) each."""
    clips = found.clips
    texts = {
        "path": [str(clip.path) for clip in clips],
        "machine": [clip.machine for clip in clips],
        "section": [clip.section for clip in clips],
        "split": [clip.split for clip in clips],
        "domain": [clip.domain or "" for clip in clips],
        "label": [clip.label or "" for clip in clips],
        "attributes": [json.dumps(dict(clip.attributes), ensure_ascii=False) for clip in clips],
    }
    return {
        **{name: np.array(values, np.str_) for name, values in texts.items()},
        "year": np.array([clip.year or 0 for clip in clips], np.int64),
        "score": found.scores,
        "threshold": found.thresholds,
    }


def _arrow_table(path: Path, found: ClipVectors) -> Any:
    """The same for Parquet, with nulls."""
    arrow = _pyarrow(path)
    columns: dict[str, Any] = {}
    for name, values in _columns(found).items():
        if name in ("domain", "label", "year"):
            columns[name] = arrow.array(values.tolist(), mask=np.array([not value for value in values.tolist()]))
        elif name in ("score", "threshold"):
            columns[name] = arrow.array(values, mask=np.isnan(values))
        else:
            columns[name] = arrow.array(values.tolist())
    for view, rows in found.vectors.items():
        flat = arrow.array(np.ascontiguousarray(rows).reshape(-1))
        columns[f"vector_{view}"] = arrow.FixedSizeListArray.from_arrays(flat, rows.shape[1])
    facts = json.dumps({"schema": SCHEMA, "source": found.source}, ensure_ascii=False)
    return arrow.table(columns).replace_schema_metadata({"asd_edge": facts})


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as e:
        raise UsageError(
            f"{path}: Parquet needs pyarrow: pip install 'asd-edge[parquet]', or give a name that ends with .npz"
        ) from e
    return pyarrow
