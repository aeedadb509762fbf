"""The files in which a machine's nearest neighbour is looked for: banks of embeddings, graph, and the tail of normal scores.

Owns their form. Which machine has which is the manifest's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from asd_daemon.errors import UNREADABLE_ARRAY, BundleError
from asd_daemon.judge.bundle.manifest import BANK, CALIBRATION, INDEX, SEPARATED, NearestEntry
from asd_daemon.judge.distances.nearest_neighbours import BandIndex, DistanceToNormal, ExactIndex, HnswIndex
from asd_daemon.judge.thresholds.calibration import Calibration

MAX_CALIBRATION_BYTES = 2**20
NPY_HEADER_BYTES = 16_384


@dataclass(frozen=True)
class NearestFiles:
    """One machine's."""

    root: Path
    """What the entry's folder is below."""
    entry: NearestEntry
    dim: int
    """D of its embeddings."""
    bands: int = 1
    """Parts of them that look for neighbours each by itself."""

    def bank(self) -> NDArray[np.float32]:
        """Normal embeddings as heard, float32 (N, D), memory-mapped.

        Raises:
            BundleError: the file is not such an array.
        """
        return self._array(BANK)

    def index(self) -> DistanceToNormal:
        """The neighbours of the heard sound: hnswlib where the manifest trusts it and it is installed, else exact search.

        Raises:
            BundleError: a file is not what the entry says.
        """
        if self.bands == 1 and self.entry.search == "hnsw" and HnswIndex.available():
            file = self.root / self.entry.folder / INDEX
            return HnswIndex.load(file, size=self.entry.vectors, dim=self.dim, ef=self.entry.ef)
        return self._exact(self.bank())

    def separated_index(self) -> DistanceToNormal | None:
        """The neighbours of the separated sound, searched exactly; None where its distance is not added.

        Raises:
            BundleError: the file is not such an array.
        """
        return self._exact(self._array(SEPARATED)) if self.entry.separated else None

    def calibration(self) -> Calibration:
        """The tail of the distances of normal sound.

        Raises:
            BundleError: the file is not a calibration.
        """
        return read_calibration(self.root / self.entry.folder / CALIBRATION)

    def _exact(self, bank: NDArray[np.float32]) -> DistanceToNormal:
        return ExactIndex(bank) if self.bands == 1 else BandIndex(bank, self.bands)

    def _array(self, name: str) -> NDArray[np.float32]:
        path = self.root / self.entry.folder / name
        expected = (self.entry.vectors, self.dim)
        try:
            size = path.stat().st_size
            if not any(0 <= size - width * expected[0] * expected[1] <= NPY_HEADER_BYTES for width in (2, 4)):
                raise BundleError(f"{path}: has {size} bytes, which float32 {expected} can't have")
            bank = np.load(path, mmap_mode="r", allow_pickle=False)
        except UNREADABLE_ARRAY as e:
            raise BundleError(f"{path}: is not a readable array: {e}") from e
        if not isinstance(bank, np.ndarray) or bank.shape != expected or bank.dtype not in (np.float32, np.float16):
            found = f"{bank.dtype} {bank.shape}" if isinstance(bank, np.ndarray) else "an archive"
            raise BundleError(f"{path}: holds {found}, the manifest says float32 {expected}")
        return bank if bank.dtype == np.float32 else widened(bank)


def widened(bank: NDArray[np.float16]) -> NDArray[np.float32]:
    """Rows in half precision → float32 of unit length, in which a distance is one again."""
    rows = bank.astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def read_calibration(path: Path) -> Calibration:
    """A calibration's file.

    Raises:
        BundleError: it is none.
    """
    try:
        if path.stat().st_size > MAX_CALIBRATION_BYTES:
            raise BundleError(f"{path}: is larger than {MAX_CALIBRATION_BYTES} bytes")
        return Calibration.model_validate_json(path.read_bytes())
    except OSError as e:
        raise BundleError(f"{path}: can't be read: {e.strerror}") from e
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        raise BundleError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from e
