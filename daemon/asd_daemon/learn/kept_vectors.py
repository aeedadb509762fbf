"""Vectors of windows on the disk: by view, and their changed copies.

Owns the form of these files.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import EnrolmentError
from asd_daemon.learn.learning import NormalSound


def write_vectors(
    file: Path, vectors: Mapping[str, NDArray[np.float32]], changed: Mapping[str, NDArray[np.float32]]
) -> None:
    """Write vectors by view and their changed copies; the file is whole or not there.

    Raises:
        OSError: the disk refuses.
    """
    fresh = file.with_name(f".{file.name}")
    arrays = {f"vectors/{view}": x for view, x in vectors.items()} | {
        f"changed/{view}": x for view, x in changed.items()
    }
    with fresh.open("wb") as f:
        np.savez(f, **arrays)  # type: ignore[arg-type]
    fresh.chmod(0o600)
    fresh.replace(file)


def read_vectors(file: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """What `write_vectors` wrote.

    Raises:
        EnrolmentError: the file is damaged.
    """
    groups: dict[str, dict[str, NDArray[np.float32]]] = {"vectors": {}, "changed": {}}
    try:
        with file.open("rb") as content, np.load(content, allow_pickle=False) as saved:
            for key in saved.files:
                group, view = key.split("/", 1)
                groups[group][view] = np.asarray(saved[key], np.float32)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as e:
        raise EnrolmentError(f"{file}: is damaged: {e}; delete it, or learn the machine anew with --relearn") from e
    return groups["vectors"], groups["changed"]


def join(before: NormalSound, after: NormalSound) -> NormalSound:
    """Sound heard earlier and sound heard now."""

    def both(
        a: Mapping[str, NDArray[np.float32]], b: Mapping[str, NDArray[np.float32]], axis: int
    ) -> dict[str, NDArray[np.float32]]:
        return {view: np.concatenate([a[view], b[view]], axis=axis) for view in a if view in b}

    return NormalSound(
        both(before.vectors, after.vectors, 0),
        both(before.changed, after.changed, 1),
        np.concatenate([before.domains, after.domains]),
    )
