"""Normal windows of a machine as vectors, in the order they were heard."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.scoring.scorer import FeatureExtractor
from asd_daemon.learn.pseudo_anomalies import pseudo_anomalies

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class NormalSound:
    """Normal windows of a machine, as vectors, in the order they were heard."""

    vectors: Mapping[str, F32]
    """view → (N, 1 + P, D); P is 0 for embeddings."""
    changed: Mapping[str, F32]
    """view → (F, M, D): the windows of `with_changed` after each kind of change; empty where nothing is decided by them."""
    domains: I64
    """(N,), a number for each domain."""
    changed_rows: I64 | None = None
    """(M,), which windows have changed copies; None: all."""

    @property
    def with_changed(self) -> I64:
        """Positions (M,) of the windows that have changed copies."""
        return np.arange(self.windows) if self.changed_rows is None else self.changed_rows

    @property
    def windows(self) -> int:
        """N."""
        return int(self.domains.shape[0])

    def distinct_windows(self) -> tuple[I64, I64]:
        """Positions (K,) of the windows that are no copy of an earlier one in every view, and (N,) which of these K each window is.

        Left in, a copy lies at distance 0 from its original, and every other window is infinitely far measured by that.
        """
        seen: dict[bytes, int] = {}
        which = np.empty(self.windows, np.int64)
        for n in range(self.windows):
            which[n] = seen.setdefault(b"".join(own[n, 0].tobytes() for own in self.vectors.values()), len(seen))
        return np.unique(which, return_index=True)[1].astype(np.int64), which

    def subset(self, rows: I64) -> NormalSound:
        """The windows at these positions (K,), which rise, with their changed copies."""
        has_changed = np.isin(self.with_changed, rows)
        return NormalSound(
            {view: vectors[rows] for view, vectors in self.vectors.items()},
            {view: changed[:, has_changed] for view, changed in self.changed.items()},
            self.domains[rows],
            None if self.changed_rows is None else np.searchsorted(rows, self.changed_rows[has_changed]),
        )

    def only(self, views: Collection[str]) -> NormalSound:
        """The same windows by these of its views alone."""
        vectors, changed = (
            {view: x for view, x in of_view.items() if view in views} for of_view in (self.vectors, self.changed)
        )
        return replace(self, vectors=vectors, changed=changed)

    @classmethod
    def from_windows(
        cls, windows: Sequence[tuple[Mapping[str, F32], Mapping[str, F32]]], domains: I64 | None = None
    ) -> NormalSound:
        """From what `normal_window_vectors` gave of each window."""
        vectors = {view: np.stack([own[view] for own, _ in windows]) for view in windows[0][0]}
        changed = {view: np.stack([own[view] for _, own in windows], axis=1) for view in windows[0][1]}
        return cls(vectors, changed, np.zeros(len(windows), np.int64) if domains is None else domains)


def normal_window_vectors(
    extractor: FeatureExtractor, waveform: F32, views: Sequence[str], rng: np.random.Generator
) -> tuple[dict[str, F32], dict[str, F32]]:
    """Vectors of one normal window (160 000,): view → (1 + P, D), and after each change: view → (F, D).

    Raises:
        RecordingError: no finite window.
    """
    own = extractor.vectors(waveform, views, parts=True)
    changed = [extractor.vectors(window, views) for window in pseudo_anomalies(waveform, rng).values()]
    return own, {view: np.concatenate([one[view] for one in changed]) for view in views}
