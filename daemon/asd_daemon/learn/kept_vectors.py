"""Vectors of windows on the disk, by view.

Owns the form of these files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import UNREADABLE_ARRAY, EnrolmentError
from asd_daemon.learn.normal_sound import NormalSound

_PREFIX = "vectors/"


@dataclass(frozen=True)
class KeptEnrolment:
    """What is still of use of an enrolment."""

    sound: NormalSound
    """Vectors of the views that can be had."""
    sounds: Mapping[int, Path]
    """The windows as sound, where they are kept, by their position among all."""
    names: tuple[str, ...] = ()
    """State of each window; empty where there is one only, or that is not known."""


def write_vectors(file: Path, vectors: Mapping[str, NDArray[np.float32]]) -> None:
    """Write vectors by view; the file is whole or not there.

    Raises:
        OSError: the disk refuses.
    """
    fresh = file.with_name(f".{file.name}")
    with fresh.open("wb") as f:
        np.savez(f, **{_PREFIX + view: x for view, x in vectors.items()})  # type: ignore[arg-type]
    fresh.chmod(0o600)
    fresh.replace(file)


def read_vectors(file: Path) -> dict[str, NDArray[np.float32]]:
    """What `write_vectors` wrote; version 0.2 wrote changed copies of the windows too, which nothing is decided by any more.

    Raises:
        EnrolmentError: the file is damaged.
    """
    try:
        with file.open("rb") as content, np.load(content, allow_pickle=False) as saved:
            names = [key.removeprefix(_PREFIX) for key in saved.files if key.startswith(_PREFIX)]
            return {view: np.asarray(saved[_PREFIX + view], np.float32) for view in names}
    except (*UNREADABLE_ARRAY, AttributeError) as e:
        raise EnrolmentError(f"{file}: is damaged: {e}; delete it, or learn the machine anew with --relearn") from e


def join_sound(before: NormalSound, after: NormalSound) -> NormalSound:
    """Sound heard earlier and sound heard now, described by the same views.

    Raises:
        ValueError: by other views, or the same in other sizes.
    """
    if set(before.vectors) != set(after.vectors):
        raise ValueError(f"views {sorted(before.vectors)} and {sorted(after.vectors)} can't be joined")
    joined = {view: np.concatenate([vectors, after.vectors[view]]) for view, vectors in before.vectors.items()}
    return NormalSound(joined, {}, np.concatenate([before.domains, after.domains]))
