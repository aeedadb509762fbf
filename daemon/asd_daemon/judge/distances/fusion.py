"""Several views of a window → one score.

Owns fitted views (metric, references, density) and their fusion, each view scaled by what held-out normal windows score. A view is any
vector of a window; where it comes from, and which views a machine is judged by (learn/view_families.py), is not known here; its file is
fusion_file.py's. NumPy only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import BundleError
from asd_daemon.judge.distances.local_density import TINY, LocalDensity, Normalisation
from asd_daemon.judge.distances.whitening import F32, Whitening, euclidean

I64 = NDArray[np.int64]
FOLDS = 8
Scale = Literal["log", "ratio"]
"""What a distance is measured by: its logarithm in the spread of held-out normal windows' logarithms, or the distance in their median."""
SPREADS = 4.0  # of held-out normal windows: so far above their median lies a score of 2
CONSTANTS_BEFORE_0_3, CONSTANTS = (3,), (6,)
MOST_FAMILIES = 8
LEAST_SPREAD = 1e-3  # of logarithms of distances
NEAR_COPIES = (
    3.0  # spreads below the median: a window that lies nearer to another is its copy, and says nothing of the spread
)


@dataclass(frozen=True)
class Candidate:
    """A view and how its distances are taken: whitened with this shrinkage, or (None) cosine; then normalised, then scaled."""

    view: str
    shrinkage: float | None = 0.5
    normalisation: Normalisation = "plain"
    parts: bool = True
    """Whether pieces of windows count in the whitening, where the view has any."""
    scale: Scale = "log"


@dataclass(frozen=True)
class FittedView:
    """A view that knows a machine's normal windows."""

    view: str
    whitening: Whitening | None  # None: rows of unit length, so that distance is monotone in cosine distance
    bank: F32  # (N, D), as the metric wants it
    density: LocalDensity
    centre: float  # median of held-out normal windows, of what the scale makes of distances
    unit: float  # that much above the centre scores 2
    scale: Scale = "log"

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
            scores[out] = fitted._scaled(vectors[out, 0])
            distances[out] = fitted._distances(vectors[out, 0]).min(axis=1)
        centre = float(np.median(scores))
        unit = SPREADS * _spread(scores) if candidate.scale == "log" else max(float(np.median(distances)), TINY)
        fitted = replace(cls._fit(candidate, vectors, domains), centre=centre, unit=unit)
        return fitted, np.asarray(1 + (scores - centre) / unit, np.float32)

    @property
    def dimensions(self) -> int:
        """D of the vectors it scores."""
        return int(self.bank.shape[1])

    def in_metric(self, vectors: F32) -> F32:
        """(Q, D) → (Q, D), as its references are kept."""
        return _metric(self.whitening, vectors)

    @classmethod
    def _fit(cls, candidate: Candidate, vectors: F32, domains: I64) -> FittedView:
        whole = vectors[:, 0]
        whitening = None
        if candidate.shrinkage is not None:
            parts = vectors[:, 1:] if candidate.parts and vectors.shape[1] > 2 else None
            whitening = Whitening.fit(whole, parts, candidate.shrinkage)
        bank = _metric(whitening, whole)
        density = LocalDensity.fit(candidate.normalisation, euclidean(bank, bank), domains)
        return cls(candidate.view, whitening, bank, density, 0.0, 1.0, candidate.scale)

    def _distances(self, vectors: F32) -> F32:
        return euclidean(self.in_metric(vectors), self.bank)

    def _scaled(self, vectors: F32) -> F32:
        raw = self.density.score(self._distances(vectors))
        return raw if self.scale == "ratio" else np.asarray(np.log(np.maximum(raw, TINY)), np.float32)

    def score(self, vectors: F32) -> F32:
        """(Q, D) → (Q,): 1 where a window is as far as normal windows are in the median."""
        return np.asarray(1 + (self._scaled(vectors) - self.centre) / self.unit, np.float32)


@dataclass(frozen=True)
class Family:
    """Views that are right or wrong together: of a machine's steady sound, say."""

    weights: Mapping[Candidate, float]
    """Of its views' scores in the family's; they need not sum to 1."""
    share: float = 1.0
    """How far the family is believed, in (0, 1]."""


@dataclass(frozen=True)
class Fusion:
    """Fitted views, joined within families and these among each other: what a machine is judged by.

    A family's score is the weighted mean of its views'. Families are joined softly: log Σ share · exp(z), z being a family's score above
    1 in spreads, so that a family which sees a failure is not outvoted by one that sees none.
    """

    views: tuple[FittedView, ...]
    weights: tuple[float, ...]
    """Of each view within its family, sum 1."""
    families: tuple[int, ...]
    """Which family each view is of, as a position in `shares`."""
    shares: tuple[float, ...] = (1.0,)

    @classmethod
    def fit(cls, families: Sequence[Family], vectors: Mapping[str, F32], domains: I64) -> Fusion:
        """Fit families of candidates to normal windows, view → (N, 1 + P, D).

        Raises:
            ValueError: no view, a weight or share that is not positive, a view without vectors, or too few windows.
        """
        return cls.fit_held_out(families, vectors, domains)[0]

    @classmethod
    def fit_held_out(cls, families: Sequence[Family], vectors: Mapping[str, F32], domains: I64) -> tuple[Fusion, F32]:
        """As `fit`; and what the windows themselves (N,) score by views fitted without them."""
        if not families or any(f.share <= 0 or not f.weights or min(f.weights.values()) <= 0 for f in families):
            raise ValueError("a fusion needs at least one view in each family, and positive weights and shares")
        missing = sorted({c.view for family in families for c in family.weights} - set(vectors))
        if missing:
            raise ValueError(f"no vectors of view {', '.join(missing)}")
        fitted, held_out, weights, of_family = [], [], [], []
        for number, family in enumerate(families):
            for candidate, weight in family.weights.items():
                view, scores = FittedView.fit_held_out(candidate, vectors[candidate.view], domains)
                fitted.append(view)
                held_out.append(scores)
                weights.append(weight / sum(family.weights.values()))
                of_family.append(number)
        fusion = cls(tuple(fitted), tuple(weights), tuple(of_family), tuple(family.share for family in families))
        return fusion, fusion.combine(held_out)

    def view_scores(self, vectors: Mapping[str, F32]) -> tuple[F32, ...]:
        """Every view's own scores (Q,), in the order of `views`."""
        return tuple(view.score(vectors[view.view]) for view in self.views)

    def score(self, vectors: Mapping[str, F32]) -> F32:
        """Scores (Q,) ≥ 0 of windows, view → (Q, D); about 1 is normal, higher is more abnormal."""
        return self.combine(self.view_scores(vectors))

    def combine(self, scores: Sequence[F32]) -> F32:
        """What `view_scores` gave, (Q,) a view, as one score (Q,)."""
        means = [
            np.sum([w * s for w, s, f in zip(self.weights, scores, self.families, strict=True) if f == number], axis=0)
            for number in range(len(self.shares))
        ]
        if len(means) == 1:
            return np.asarray(np.maximum(means[0], 0), np.float32)
        shares = np.array(self.shares) / sum(self.shares)
        joined = np.logaddexp.reduce([np.log(q) + SPREADS * (m - 1) for q, m in zip(shares, means, strict=True)])
        return np.asarray(np.maximum(1 + joined / SPREADS, 0), np.float32)

    def without(self, left_out: Collection[str]) -> Fusion:
        """The same without some of its views; those of a family that stay share its weight, a family that loses all is gone.

        Raises:
            ValueError: nothing would be left.
        """
        kept = [row for row, view in enumerate(self.views) if view.view not in left_out]
        if not kept:
            raise ValueError(
                f"a fusion of {', '.join(self.names())} has nothing left without {', '.join(sorted(left_out))}"
            )
        numbers = sorted({self.families[row] for row in kept})
        totals = {number: sum(self.weights[row] for row in kept if self.families[row] == number) for number in numbers}
        return Fusion(
            tuple(self.views[row] for row in kept),
            tuple(self.weights[row] / totals[self.families[row]] for row in kept),
            tuple(numbers.index(self.families[row]) for row in kept),
            tuple(self.shares[number] for number in numbers),
        )

    def arrays(self) -> dict[str, NDArray[np.floating]]:
        """Everything but names, as plain arrays: <position>/<name>."""
        flat: dict[str, NDArray[np.floating]] = {}
        for n, (view, weight, family) in enumerate(zip(self.views, self.weights, self.families, strict=True)):
            parts: dict[str, NDArray[np.floating]] = {"bank": view.bank, **view.density.arrays()}
            share = self.shares[family]
            parts["constants"] = np.array([view.centre, view.unit, weight, view.scale == "log", family, share], float)
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
        views, weights, families = [], [], []
        shares: dict[int, float] = {}
        for n, name in enumerate(names):
            own = {k.split("/", 1)[1]: a for k, a in arrays.items() if k.startswith(f"{n}/")}
            view, (weight, family, share) = _fitted_view(name, own)
            views.append(view)
            weights.append(weight)
            families.append(int(family))
            shares[int(family)] = share
        if not views:
            raise BundleError("a fusion without views; make the bundle again")
        if sorted(shares) != list(range(len(shares))):
            raise BundleError(
                f"a fusion of families {sorted(shares)}: they must be numbered from 0; make the bundle again"
            )
        return cls(tuple(views), tuple(weights), tuple(families), tuple(shares[n] for n in range(len(shares))))


def _fitted_view(name: str, own: Mapping[str, NDArray[np.floating]]) -> tuple[FittedView, tuple[float, float, float]]:
    """A view from its arrays; its weight, family and the family's share."""
    density = LocalDensity.from_arrays(own)
    inner = {k.split(".", 1)[1]: a for k, a in own.items() if k.startswith("whitening.")}
    whitening = Whitening.from_arrays(inner) if inner else None
    bank, constants = own.get("bank"), own.get("constants")
    if bank is None or constants is None or bank.ndim != 2 or constants.shape not in (CONSTANTS_BEFORE_0_3, CONSTANTS):
        raise BundleError(f"view {name}: bank or constants are missing or misshapen; make the bundle again")
    if bank.shape[0] != density.offset.shape[0] or (whitening and whitening.mean.shape[0] != bank.shape[1]):
        raise BundleError(f"view {name}: a bank {bank.shape} does not fit its density or whitening")
    later = (0.0, 0.0, 1.0)  # what version 0.2 did not say: ratios, one family
    centre, unit, weight, is_log, family, share = (*(float(c) for c in constants), *later)[: CONSTANTS[0]]
    is_finite = all(np.isfinite(array).all() for array in own.values())
    if not is_finite or not (unit > 0 and weight > 0 and share > 0) or family not in range(MOST_FAMILIES):
        raise BundleError(f"view {name}: its numbers must be finite, unit, weight and share positive; make it again")
    scale: Scale = "log" if is_log else "ratio"
    fitted = FittedView(name, whitening, np.asarray(bank, np.float32), density, centre, unit, scale)
    return fitted, (weight, family, share)


def _metric(whitening: Whitening | None, vectors: F32) -> F32:
    if whitening is not None:
        return whitening.apply(vectors)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), TINY), np.float32)


def _spread(scaled: F32) -> float:
    """Deviation of held-out normal windows (N,), those that are near copies of others left where copies begin."""
    middle = float(np.median(scaled))
    robust = 1.4826 * float(np.median(np.abs(scaled - middle)))
    return max(float(np.maximum(scaled, middle - NEAR_COPIES * robust).std()), LEAST_SPREAD)
