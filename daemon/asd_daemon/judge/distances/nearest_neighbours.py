"""Nearest neighbours by cosine distance behind one small interface.

`ExactIndex` is NumPy: the oracle, and the search wherever hnswlib is missing or the bank is small. `HnswIndex` is hnswlib's graph for
large banks. Distances are 1 - cosine; vectors have unit length. It knows no sound and no file layout beyond the two files it reads.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import BundleError

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

# Queries whose distances to the whole bank are held in memory at once: 256 × 100 000 × 4 bytes = 100 MB
QUERY_BLOCK = 256
TINY = 1e-12


class DistanceToNormal(Protocol):
    """What a scorer needs of a bank of normal embeddings."""

    def distance(self, queries: F32) -> F32:
        """Distance to normal sound: float32 (Q,) ≥ 0, of unit-length rows (Q, D).

        Raises:
            ValueError: D does not fit the bank.
        """


class NeighbourIndex(DistanceToNormal, Protocol):
    """A bank in which single neighbours are looked for."""

    @property
    def size(self) -> int:
        """How many vectors the bank holds."""

    def nearest(self, queries: F32, k: int = 1) -> tuple[F32, I64]:
        """The k nearest vectors of the bank, nearest first.

        Args:
            queries: float32 (Q, D), rows of unit length.
            k: how many, 1 ≤ k ≤ size.

        Returns:
            distances float32 (Q, k) = 1 - cosine, and their positions in the bank, int64 (Q, k).

        Raises:
            ValueError: k or D does not fit the bank.
        """


class ExactIndex:
    """Exact search: one matrix product. 1 000 vectors of 192 take about 0.1 ms."""

    def __init__(self, bank: F32) -> None:
        if bank.ndim != 2 or bank.shape[0] == 0:
            raise ValueError(f"a bank has shape (N, D) with N ≥ 1, got {bank.shape}")
        self._bank = bank

    @property
    def size(self) -> int:
        """How many vectors the bank holds."""
        return int(self._bank.shape[0])

    def nearest(self, queries: F32, k: int = 1) -> tuple[F32, I64]:
        """See `NeighbourIndex.nearest`; ties go to the lower position."""
        _check(queries, k, self._bank.shape)
        distances = np.empty((queries.shape[0], k), np.float32)
        positions = np.empty((queries.shape[0], k), np.int64)
        for start in range(0, queries.shape[0], QUERY_BLOCK):
            block = slice(start, start + QUERY_BLOCK)
            d = 1.0 - queries[block] @ self._bank.T  # (q, N)
            order = d.argmin(axis=1)[:, None] if k == 1 else np.argsort(d, axis=1, kind="stable")[:, :k]
            positions[block] = order
            distances[block] = np.take_along_axis(d, order, axis=1)
        return np.maximum(distances, 0.0), positions

    def distance(self, queries: F32) -> F32:
        """See `DistanceToNormal.distance`."""
        return self.nearest(queries)[0][:, 0]


class BandIndex:
    """Bands of frequency whose nearest neighbours are looked for each by itself; their distances are averaged (BEAM, arXiv 2603.13749)."""

    def __init__(self, bank: F32, bands: int) -> None:
        """Take a bank apart.

        Args:
            bank: (N, D), the bands one after the other.
            bands: of equal size.

        Raises:
            ValueError: an empty bank, or D is no multiple of the bands.
        """
        self._shape = bank.shape
        self._indexes = [ExactIndex(part) for part in in_bands(bank, bands)]

    def distance(self, queries: F32) -> F32:
        """See `DistanceToNormal.distance`."""
        _check(queries, 1, self._shape)
        parts = in_bands(queries, len(self._indexes))
        found = [index.distance(part) for index, part in zip(self._indexes, parts, strict=True)]
        return np.asarray(np.mean(found, axis=0), np.float32)


class HnswIndex:
    """hnswlib's graph in inner-product space; approximate, so its recall is measured when a bundle is made."""

    def __init__(self, graph: object, size: int, dim: int) -> None:
        self._graph = graph
        self._size = size
        self._dim = dim

    @staticmethod
    def available() -> bool:
        """Whether hnswlib is installed here (extra `hnsw`)."""
        return importlib.util.find_spec("hnswlib") is not None

    @classmethod
    def build(cls, bank: F32, *, links: int = 16, ef_construction: int = 200, ef: int = 64, seed: int = 0) -> HnswIndex:
        """Build the graph of a bank (N, D) on one thread, so that the same bank gives the same graph."""
        import hnswlib

        graph = hnswlib.Index(space="ip", dim=bank.shape[1])
        graph.init_index(max_elements=bank.shape[0], M=links, ef_construction=ef_construction, random_seed=seed)
        graph.set_num_threads(1)
        graph.add_items(bank, np.arange(bank.shape[0]))
        graph.set_ef(max(ef, 1))
        return cls(graph, *bank.shape)

    @classmethod
    def load(cls, path: Path, *, size: int, dim: int, ef: int) -> HnswIndex:
        """Read a graph that `save` wrote.

        Raises:
            BundleError: hnswlib can't read the file, or it holds another number of vectors.
        """
        import hnswlib

        graph = hnswlib.Index(space="ip", dim=dim)
        try:
            graph.load_index(str(path))
        except RuntimeError as e:
            raise BundleError(f"{path}: hnswlib can't read this index: {e}") from e
        if graph.get_current_count() != size:
            raise BundleError(f"{path}: holds {graph.get_current_count()} vectors, the manifest says {size}")
        graph.set_num_threads(1)
        graph.set_ef(ef)
        return cls(graph, size, dim)

    def save(self, path: Path) -> None:
        """Write the graph to a file of hnswlib's own format."""
        self._graph.save_index(str(path))  # type: ignore[attr-defined]

    def set_ef(self, ef: int) -> None:
        """Set how many candidates a search keeps: more is exacter and slower."""
        self._graph.set_ef(ef)  # type: ignore[attr-defined]

    @property
    def size(self) -> int:
        """How many vectors the bank holds."""
        return self._size

    def nearest(self, queries: F32, k: int = 1) -> tuple[F32, I64]:
        """See `NeighbourIndex.nearest`."""
        _check(queries, k, (self._size, self._dim))
        positions, distances = self._graph.knn_query(queries, k=k)  # type: ignore[attr-defined]
        return np.maximum(distances.astype(np.float32, copy=False), 0.0), positions.astype(np.int64)

    def distance(self, queries: F32) -> F32:
        """See `DistanceToNormal.distance`."""
        return self.nearest(queries)[0][:, 0]


def in_bands(vectors: F32, bands: int) -> list[F32]:
    """Each band of vectors (N, D): (N, D / bands), rows of unit length.

    Raises:
        ValueError: D is no multiple of the bands.
    """
    parts = np.split(vectors, bands, axis=1)
    return [np.asarray(part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), TINY)) for part in parts]


def mean_over_bands(measure: Callable[..., F32], bands: int, *vectors: F32) -> F32:
    """What is measured in each band of vectors by itself, averaged; of a single band, as they are.

    Args:
        measure: of as many vectors (·, D / bands) as are given.
        bands: of equal size.
        vectors: (·, D) each.

    Raises:
        ValueError: as `in_bands` and the measure.
    """
    if bands == 1:
        return measure(*vectors)
    parts = zip(*(in_bands(each, bands) for each in vectors), strict=True)
    return np.asarray(np.mean([measure(*own) for own in parts], axis=0), np.float32)


def leave_one_out(bank: F32, bands: int = 1) -> F32:
    """Each vector's distance to its nearest other vector of the same bank; float32 (N,).

    What a normal clip would score had it not been in the bank: the ground of thresholds (a clip is never its own neighbour).

    Args:
        bank: (N, D), rows of unit length.
        bands: of frequency, that look for neighbours each by itself, as in `BandIndex`.

    Raises:
        ValueError: fewer than two vectors.
    """
    return mean_over_bands(_leave_one_out, bands, bank)


def _leave_one_out(bank: F32) -> F32:
    if bank.shape[0] < 2:
        raise ValueError("leave-one-out needs at least two vectors")
    distances = np.empty(bank.shape[0], np.float32)
    for start in range(0, bank.shape[0], QUERY_BLOCK):
        d = 1.0 - bank[start : start + QUERY_BLOCK] @ bank.T  # (q, N)
        rows = np.arange(d.shape[0])
        d[rows, start + rows] = np.inf
        distances[start : start + d.shape[0]] = d.min(axis=1)
    return np.maximum(distances, 0.0)


def _check(queries: F32, k: int, shape: tuple[int, ...]) -> None:
    if queries.ndim != 2 or queries.shape[1] != shape[1]:
        raise ValueError(f"queries have shape (Q, {shape[1]}), got {queries.shape}")
    if not 1 <= k <= shape[0]:
        raise ValueError(f"k must be 1 to {shape[0]} (the size of the bank), got {k}")
