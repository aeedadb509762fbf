"""The file of a fusion: its arrays in an uncompressed .npz, packed where that is asked for. Its names are kept beside it."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asd_daemon.errors import UNREADABLE_ARRAY, BundleError
from asd_daemon.judge.distances.fusion import Fusion
from asd_daemon.judge.distances.packing import compact, packed_arrays, unpacked_arrays


def write_fusion(fusion: Fusion, file: Path, *, packed: bool = False) -> None:
    """Write a fusion's arrays in an uncompressed .npz; its names are kept elsewhere.

    Args:
        fusion: what a machine is judged by.
        file: where to.
        packed: in a byte a number where that changes a score by less than 1 % (packing.py), which programs before bundles of schema 3
            do not read; else matrices in half precision.
    """
    arrays = packed_arrays(fusion.arrays()) if packed else fusion.arrays()
    with file.open("wb") as f:
        np.savez(f, **{name: compact(array) for name, array in arrays.items()})  # type: ignore[arg-type]


def read_fusion(file: Path, names: Sequence[str], most_bytes: int) -> Fusion:
    """Read what `write_fusion` wrote, with the names it had.

    Raises:
        BundleError: the file is no such archive, unpacks to more than `most_bytes`, or holds other views.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > most_bytes or any(entry.compress_type for entry in entries):
            raise BundleError(f"{file}: is compressed, or larger than {most_bytes} bytes; make the bundle again")
        with file.open("rb") as content, np.load(content, allow_pickle=False) as saved:
            arrays = {key: np.asarray(saved[key]) for key in saved.files}
        return Fusion.from_arrays(names, unpacked_arrays(arrays, file))
    except UNREADABLE_ARRAY as e:
        raise BundleError(f"{file}: is no readable fusion: {e}") from e
