"""Nearest neighbours at three sizes of a bank: build time, size on disk, query time and recall, ours beside faiss and usearch.

usage: python benchmarks/search.py [--sizes 1000 100000 1000000] [--threads N]     (pip install faiss-cpu usearch for their rows)

Vectors are clustered, as embeddings of machines are: 200 centres, spread 0.3, 128 components, unit length; 200 queries from the same law.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.distances.nearest_neighbours import ExactIndex, HnswIndex

F32 = NDArray[np.float32]
DIM, CENTRES, SPREAD, QUERIES = 128, 200, 0.3, 200
LINKS, EF_CONSTRUCTION, EF = 16, 100, 128


@dataclass(frozen=True)
class MeasuredModel:
    """One way to search one bank."""

    name: str
    build_s: float
    megabytes: float
    query_ms: float
    recall: float


def vectors(n: int, rng: np.random.Generator, centres: F32) -> F32:
    """Unit-length rows (n, 128) around the centres."""
    x = centres[rng.integers(CENTRES, size=n)] + SPREAD * rng.standard_normal((n, DIM), np.float32) / np.sqrt(DIM / 8)
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


def measured(
    name: str,
    build: Callable[[], tuple[Callable[[F32], NDArray[np.int64]], float]],
    asked: F32,
    truth: NDArray[np.int64],
) -> MeasuredModel:
    """Build once; ask one query at a time, as the edge does."""
    start = time.perf_counter()
    search, megabytes = build()
    build_s = time.perf_counter() - start
    search(asked[:1])
    start = time.perf_counter()
    found = np.array([search(q[None])[0] for q in asked])
    return MeasuredModel(
        name, build_s, megabytes, (time.perf_counter() - start) / len(asked) * 1000, float(np.mean(found == truth))
    )


def ways(
    bank: F32, folder: Path, threads: int
) -> Iterator[tuple[str, Callable[[], tuple[Callable[[F32], NDArray[np.int64]], float]]]]:
    """Every way that is installed."""

    def exact() -> tuple[Callable[[F32], NDArray[np.int64]], float]:
        index = ExactIndex(bank)
        return lambda q: index.nearest(q)[1][:, 0], bank.nbytes / 1e6

    def hnsw() -> tuple[Callable[[F32], NDArray[np.int64]], float]:
        import hnswlib

        graph = hnswlib.Index(space="ip", dim=DIM)
        graph.init_index(max_elements=len(bank), M=LINKS, ef_construction=EF_CONSTRUCTION, random_seed=0)
        graph.add_items(bank, num_threads=threads)
        graph.set_ef(EF)
        graph.set_num_threads(1)
        index = HnswIndex(graph, *bank.shape)
        index.save(folder / "hnsw")
        return lambda q: index.nearest(q)[1][:, 0], (folder / "hnsw").stat().st_size / 1e6

    def faiss_flat() -> tuple[Callable[[F32], NDArray[np.int64]], float]:
        import faiss

        faiss.omp_set_num_threads(1)
        index = faiss.IndexFlatIP(DIM)
        index.add(bank)
        return lambda q: index.search(q, 1)[1][:, 0], bank.nbytes / 1e6

    def usearch() -> tuple[Callable[[F32], NDArray[np.int64]], float]:
        from usearch.index import Index

        index = Index(
            ndim=DIM, metric="ip", dtype="f32", connectivity=LINKS, expansion_add=EF_CONSTRUCTION, expansion_search=EF
        )
        index.add(np.arange(len(bank)), bank, threads=threads)
        index.save(str(folder / "usearch"))
        return lambda q: np.array([index.search(q[0], 1, threads=1).keys[0]]), (folder / "usearch").stat().st_size / 1e6

    yield "ExactIndex (NumPy)", exact
    for module, name, build in (
        ("hnswlib", "HnswIndex (hnswlib)", hnsw),
        ("faiss", "faiss flat", faiss_flat),
        ("usearch", "usearch", usearch),
    ):
        if importlib.util.find_spec(module):
            yield name, build
        else:
            print(f"{name}: {module} is not installed, left out", file=sys.stderr)


def search_lines(sizes: Sequence[int], threads: int) -> Iterator[str]:
    """A Markdown table of all sizes, line by line as it is measured."""
    rng = np.random.default_rng(0)
    centres = vectors(CENTRES, rng, np.zeros((CENTRES, DIM), np.float32))
    asked = vectors(QUERIES, rng, centres)
    yield f"Clustered vectors of {DIM}, one query at a time. hnswlib and usearch: {LINKS} links, {EF_CONSTRUCTION} candidates at"
    yield f"building, {EF} at searching."
    yield ""
    yield "| vectors | way | build s | MB | query ms | recall@1 |"
    yield "|---:|---|---:|---:|---:|---:|"
    for size in sizes:
        bank = vectors(size, rng, centres)
        truth = ExactIndex(bank).nearest(asked)[1][:, 0]
        with TemporaryDirectory() as folder:
            for name, build in ways(bank, Path(folder), threads):
                m = measured(name, build, asked, truth)
                yield f"| {size:,} | {m.name} | {m.build_s:.1f} | {m.megabytes:.1f} | {m.query_ms:.2f} | {m.recall:.3f} |"


def main() -> None:
    """Print the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--sizes", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    words.add_argument("--threads", type=int, default=2, help="to build with; queries use one")
    options = words.parse_args()
    for line in search_lines(options.sizes, options.threads):
        print(line, flush=True)


if __name__ == "__main__":
    main()
