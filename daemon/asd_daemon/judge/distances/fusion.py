"""Several views of a window → one score.

Owns fitted views (metric, references, density), their fusion, each view scaled by what held-out normal windows score, and its file. A view
is any vector of a window; where it comes from, and which views a machine is judged by (view_selection.py), is not known here. NumPy only.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import BundleError
from asd_daemon.judge.distances.local_density import TINY, LocalDensity, Normalisation
from asd_daemon.judge.features.views import F32, Whitening, euclidean

I64 = NDArray[np.int64]
FOLDS = 8


@dataclass(frozen=True)
class Candidate:
    """A view and how its distances are taken: whitened with this shrinkage, or (None) cosine; then normalised."""

    view: str
    shrinkage: float | None = 0.5
    normalisation: Normalisation = "plain"
    parts: bool = True
    """Whether pieces of windows count in the whitening, where the view has any."""


@dataclass(frozen=True)
class FittedView:
    """A view that knows a machine's normal windows."""

    view: str
    whitening: Whitening | None  # None: rows of unit length, so that distance is monotone in cosine distance
    bank: F32  # (N, D), as the metric wants it
    density: LocalDensity
    centre: float  # median score of held-out normal windows
    unit: float  # median plain distance of held-out normal windows

    @classmethod
    def fit(cls, candidate: Candidate, vectors: F32, domains: I64) -> FittedView:
        """Fit a candidate to normal windows (N, 1 + P, D), the whole window first, N ≥ 4; domains (N,).

        Raises:
            ValueError: fewer than four windows, or what `Whitening.fit` and `LocalDensity.fit` refuse.
        """
        return cls.fit_held_out(candidate, vectors, domains)[0]

    @classmethod
    def fit_held_out(cls, candidate: Candidate, vectors: F32, domains: I64) -> tuple[FittedView, F32]:
        """As `fit`; and what the windows themselves (N,) score by views fitted without them: the ground of thresholds."""
        n = vectors.shape[0]
        if n < 4 or vectors.ndim != 3 or domains.shape != (n,):
            raise ValueError(
                f"a view needs four windows (N, 1 + P, D) and their domains, got {vectors.shape}, {domains.shape}"
            )
        scores, distances = np.empty(n, np.float32), np.empty(n, np.float32)
        for fold in range(min(FOLDS, n // 2)):
            out = np.arange(n) % min(FOLDS, n // 2) == fold
            fitted = cls._fit(candidate, vectors[~out], domains[~out])
            scores[out] = fitted._raw(vectors[out, 0])
            distances[out] = fitted._distances(vectors[out, 0]).min(axis=1)
        whole = cls._fit(candidate, vectors, domains)
        centre, unit = float(np.median(scores)), max(float(np.median(distances)), TINY)
        fitted = cls(whole.view, whole.whitening, whole.bank, whole.density, centre, unit)
        return fitted, np.asarray(1 + (scores - centre) / unit, np.float32)

    @property
    def dimensions(self) -> int:
        """D of the vectors it scores."""
        return int(self.bank.shape[1])

    @classmethod
    def _fit(cls, candidate: Candidate, vectors: F32, domains: I64) -> FittedView:
        whole = vectors[:, 0]
        whitening = None
        if candidate.shrinkage is not None:
            parts = vectors[:, 1:] if candidate.parts and vectors.shape[1] > 2 else None
            whitening = Whitening.fit(whole, parts, candidate.shrinkage)
        bank = _metric(whitening, whole)
        density = LocalDensity.fit(candidate.normalisation, euclidean(bank, bank), domains)
        return cls(candidate.view, whitening, bank, density, 0.0, 1.0)

    def _distances(self, vectors: F32) -> F32:
        return euclidean(_metric(self.whitening, vectors), self.bank)

    def _raw(self, vectors: F32) -> F32:
        return self.density.score(self._distances(vectors))

    def score(self, vectors: F32) -> F32:
        """(Q, D) → (Q,): 1 where a window is as far as normal windows are in the median."""
        return np.asarray(1 + (self._raw(vectors) - self.centre) / self.unit, np.float32)


@dataclass(frozen=True)
class Fusion:
    """A weighted mean of fitted views: what a machine is judged by."""

    views: tuple[FittedView, ...]
    weights: tuple[float, ...]

    @classmethod
    def fit(cls, chosen: Mapping[Candidate, float], vectors: Mapping[str, F32], domains: I64) -> Fusion:
        """Fit chosen candidates with their weights to normal windows, view → (N, 1 + P, D).

        Raises:
            ValueError: nothing chosen, a weight that is not positive, a view without vectors, or too few windows.
        """
        return cls.fit_held_out(chosen, vectors, domains)[0]

    @classmethod
    def fit_held_out(
        cls, chosen: Mapping[Candidate, float], vectors: Mapping[str, F32], domains: I64
    ) -> tuple[Fusion, F32]:
        """As `fit`; and what the windows themselves (N,) score by views fitted without them."""
        if not chosen or min(chosen.values()) <= 0:
            raise ValueError("a fusion needs at least one view, and positive weights")
        missing = sorted({c.view for c in chosen} - set(vectors))
        if missing:
            raise ValueError(f"no vectors of view {', '.join(missing)}")
        total = sum(chosen.values())
        weights = tuple(w / total for w in chosen.values())
        fitted = [FittedView.fit_held_out(c, vectors[c.view], domains) for c in chosen]
        held_out = _weighted([scores for _, scores in fitted], weights)
        return cls(tuple(view for view, _ in fitted), weights), held_out

    def view_scores(self, vectors: Mapping[str, F32]) -> tuple[F32, ...]:
        """Every view's own scores (Q,), in the order of `views`."""
        return tuple(view.score(vectors[view.view]) for view in self.views)

    def score(self, vectors: Mapping[str, F32]) -> F32:
        """Scores (Q,) ≥ 0 of windows, view → (Q, D); about 1 is normal, higher is more abnormal."""
        return self.combine(self.view_scores(vectors))

    def combine(self, view_scores: Sequence[F32]) -> F32:
        """What `view_scores` gave, (Q,) a view, as one score (Q,)."""
        return _weighted(view_scores, self.weights)

    def arrays(self) -> dict[str, NDArray[np.floating]]:
        """Everything but names, as plain arrays: <position>/<name>."""
        flat: dict[str, NDArray[np.floating]] = {}
        for n, (view, weight) in enumerate(zip(self.views, self.weights, strict=True)):
            parts: dict[str, NDArray[np.floating]] = {"bank": view.bank, **view.density.arrays()}
            parts["constants"] = np.array([view.centre, view.unit, weight])
            if view.whitening is not None:
                parts |= {f"whitening.{k}": a for k, a in view.whitening.arrays().items()}
            flat |= {f"{n}/{k}": a for k, a in parts.items()}
        return flat

    def names(self) -> tuple[str, ...]:
        """The views in the order of `arrays`; stored beside it as JSON."""
        return tuple(view.view for view in self.views)

    @classmethod
    def from_arrays(cls, names: Sequence[str], arrays: Mapping[str, NDArray[np.floating]]) -> Fusion:
        """The inverse of `names` and `arrays`.

        Raises:
            BundleError: an array is missing, or shapes do not fit.
        """
        views, weights = [], []
        for n, name in enumerate(names):
            own = {k.split("/", 1)[1]: a for k, a in arrays.items() if k.startswith(f"{n}/")}
            density = LocalDensity.from_arrays(own)
            inner = {k.split(".", 1)[1]: a for k, a in own.items() if k.startswith("whitening.")}
            whitening = Whitening.from_arrays(inner) if inner else None
            bank, constants = own.get("bank"), own.get("constants")
            if bank is None or constants is None or bank.ndim != 2 or constants.shape != (3,):
                raise BundleError(f"view {name}: bank or constants are missing or misshapen; make the bundle again")
            if bank.shape[0] != density.offset.shape[0] or (whitening and whitening.mean.shape[0] != bank.shape[1]):
                raise BundleError(f"view {name}: a bank {bank.shape} does not fit its density or whitening")
            centre, unit, weight = (float(c) for c in constants)
            if not all(np.isfinite(array).all() for array in own.values()) or not (unit > 0 and weight > 0):
                raise BundleError(f"view {name}: its numbers must be finite, unit and weight positive; make it again")
            views.append(FittedView(name, whitening, np.asarray(bank, np.float32), density, centre, unit))
            weights.append(weight)
        if not views:
            raise BundleError("a fusion without views; make the bundle again")
        return cls(tuple(views), tuple(weights))


def write_fusion(fusion: Fusion, file: Path) -> None:
    """Write a fusion's arrays as float32 in an uncompressed .npz; its names are kept elsewhere."""
    arrays = {name: np.asarray(array, np.float32) for name, array in fusion.arrays().items()}
    with file.open("wb") as f:
        np.savez(f, **arrays)  # type: ignore[arg-type]


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
        numeric = all(array.dtype.kind == "f" for array in arrays.values())
        if not numeric:
            raise BundleError(f"{file}: must hold floating-point arrays only; make the bundle again")
        return Fusion.from_arrays(names, arrays)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as e:
        raise BundleError(f"{file}: is no readable fusion: {e}") from e


def _weighted(scores: Sequence[F32], weights: Sequence[float]) -> F32:
    joined = np.sum([w * s for w, s in zip(weights, scores, strict=True)], axis=0)
    return np.asarray(np.maximum(joined, 0), np.float32)


def _metric(whitening: Whitening | None, vectors: F32) -> F32:
    if whitening is not None:
        return whitening.apply(vectors)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), TINY), np.float32)
