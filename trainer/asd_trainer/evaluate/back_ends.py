"""Back ends: how far embeddings lie from the normal ones of their machine, beyond the paper's nearest neighbour.

Owns six judges of a bank, the minimum of several, and the choice among them by normal clips alone. Distances between references are
those of the edge (`local_density`). It reads no clip and knows no run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, cast, get_args

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.distances.local_density import NEIGHBOURS, LocalDensity, Normalisation
from asd_daemon.judge.distances.nearest_neighbours import in_bands

if TYPE_CHECKING:  # 100 MB that a plan and most commands do without
    from sklearn.covariance import LedoitWolf
    from sklearn.decomposition import PCA

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

BackEnd = Literal["nearest", "local", "variance", "domain", "mahalanobis", "principal"]
BACK_ENDS: tuple[BackEnd, ...] = get_args(BackEnd)
_OF_REFERENCES: dict[BackEnd, Normalisation] = {
    "nearest": "plain",
    "local": "local",
    "variance": "variance",
    "domain": "domain",
}
FOLDS = 5
LEAST_CHOOSING = 2 * FOLDS
"""Clips of a bank from which on back ends are chosen and judges of a distribution fitted; smaller ones have the nearest neighbour."""
KEPT_VARIANCE = 0.95  # of the bank, by the components that `principal` leaves out
RESAMPLED, MIXED = 0.25, 0.2
"""Of a pseudo-anomaly: share of components taken from other clips, and part of another machine's embedding."""
SEED = 0
TINY = 1e-12


@dataclass(frozen=True)
class Bank:
    """Normal embeddings of one unit."""

    vectors: F32
    """(N, D), of unit length."""
    domains: I64
    """(N,), a number for each domain."""

    def part(self, rows: NDArray[np.intp]) -> Bank:
        """Some of its clips."""
        return Bank(self.vectors[rows], self.domains[rows])


class Judge(Protocol):
    """What is made of a bank."""

    def score(self, queries: F32) -> F64:
        """(Q, D) → (Q,); higher is more abnormal."""


@dataclass(frozen=True)
class _References:
    """Nearest reference after each one's distances are normalised."""

    vectors: F32
    density: LocalDensity

    def score(self, queries: F32) -> F64:
        return self.density.score(cosine_distances(queries, self.vectors)).astype(np.float64)


@dataclass(frozen=True)
class _Distribution:
    """Mahalanobis distance under one Gaussian, its covariance shrunk as Ledoit and Wolf do (J. Multivariate Analysis 88, 2004)."""

    fitted: LedoitWolf

    def score(self, queries: F32) -> F64:
        squared = np.asarray(self.fitted.mahalanobis(queries.astype(np.float64)), np.float64)
        return np.sqrt(np.maximum(squared, 0.0))


@dataclass(frozen=True)
class _Residual:
    """Length of what the principal components of the bank can't tell."""

    fitted: PCA

    def score(self, queries: F32) -> F64:
        wide = queries.astype(np.float64)
        told = self.fitted.inverse_transform(self.fitted.transform(wide))
        return np.asarray(np.linalg.norm(wide - told, axis=1), np.float64)


@dataclass(frozen=True)
class Scores:
    """What a bank's back ends make of it and of others."""

    held_out: F64
    """(N,) of the bank's own clips, each judged without itself; not a number where there is no other."""
    queries: F64
    """(Q,)"""
    chosen: tuple[BackEnd, ...]


def cosine_distances(queries: F32, bank: F32) -> F32:
    """1 - cosine of rows of unit length, (Q, D) and (N, D) → (Q, N)."""
    return np.asarray(np.maximum(1.0 - queries @ bank.T, 0.0), np.float32)


def fit(kind: BackEnd, bank: Bank, neighbours: int = NEIGHBOURS) -> Judge:
    """A judge of a bank of at least two clips; `neighbours` is what a local density is taken from."""
    if kind in _OF_REFERENCES:
        distances = cosine_distances(bank.vectors, bank.vectors)
        return _References(bank.vectors, LocalDensity.fit(_OF_REFERENCES[kind], distances, bank.domains, neighbours))
    wide = bank.vectors.astype(np.float64)
    from sklearn.covariance import LedoitWolf
    from sklearn.decomposition import PCA

    if kind == "mahalanobis":
        return _Distribution(LedoitWolf().fit(wide))
    return _Residual(PCA(n_components=KEPT_VARIANCE, svd_solver="full").fit(wide))


def held_out(kind: BackEnd, bank: Bank, neighbours: int = NEIGHBOURS) -> F64:
    """Scores (N,) of a bank's clips by the others: each alone where references judge, in folds where a distribution does."""
    if kind in _OF_REFERENCES:
        distances = cosine_distances(bank.vectors, bank.vectors)
        density = LocalDensity.fit(_OF_REFERENCES[kind], distances, bank.domains, neighbours)
        return density.leave_one_out(distances).astype(np.float64)
    scores = np.empty(bank.vectors.shape[0])
    for rest, fold in _folds(bank):
        scores[fold] = fit(kind, bank.part(rest), neighbours).score(bank.vectors[fold])
    return scores


def judge(kinds: Sequence[BackEnd], bank: Bank, queries: F32, neighbours: int = NEIGHBOURS) -> Scores:
    """Scores of a bank and of queries (Q, D).

    Of several back ends the minimum counts, each standardised by the bank's held-out scores (arXiv 2606.19269). A bank that is too small
    has the nearest neighbour alone.
    """
    size = bank.vectors.shape[0]
    if size < 2:
        distances = cosine_distances(queries, bank.vectors)
        return Scores(np.full(size, np.nan), distances[:, 0].astype(np.float64), ("nearest",))
    used = tuple(kinds) if size >= LEAST_CHOOSING else ("nearest",)
    own = [held_out(kind, bank, neighbours) for kind in used]
    others = [fit(kind, bank, neighbours).score(queries) for kind in used]
    if len(used) == 1:
        return Scores(own[0], others[0], used)
    centres = [(float(scores.mean()), float(scores.std()) + TINY) for scores in own]
    standard = [
        np.min([(scores - mean) / spread for scores, (mean, spread) in zip(each, centres, strict=True)], axis=0)
        for each in (own, others)
    ]
    return Scores(standard[0], standard[1], used)


def choose(bank: Bank, foreign: F32, neighbours: int = NEIGHBOURS) -> BackEnd:
    """The back end that tells held-out normal clips best from pseudo-anomalies made of them; no test clip is asked.

    A pseudo-anomaly is a held-out clip with a quarter of its components taken from other clips of its machine, or moved towards another
    machine (Pseudo AUC; our own two kinds of it).

    Args:
        bank: of the unit.
        foreign: embeddings (M, D) of other machines; may be none.
        neighbours: of a local density.
    """
    if bank.vectors.shape[0] < LEAST_CHOOSING:
        return "nearest"
    rng = np.random.default_rng(SEED)
    found: dict[BackEnd, list[float]] = {kind: [] for kind in BACK_ENDS}
    for rest, fold in _folds(bank):
        normal = bank.vectors[fold]
        pseudo = [_resampled(normal, bank.vectors[rest], rng)]
        if foreign.shape[0]:
            pseudo.append(_mixed(normal, foreign, rng))
        for kind in BACK_ENDS:
            fitted = fit(kind, bank.part(rest), neighbours)
            healthy = fitted.score(normal)
            found[kind] += [_auc(healthy, fitted.score(changed)) for changed in pseudo]
    return max(BACK_ENDS, key=lambda kind: float(np.mean(found[kind])))


def _auc(normal: F64, anomalous: F64) -> float:
    from sklearn.metrics import roc_auc_score

    labels = np.repeat([0, 1], [normal.shape[0], anomalous.shape[0]])
    return float(roc_auc_score(labels, np.concatenate([normal, anomalous])))


def _resampled(normal: F32, references: F32, rng: np.random.Generator) -> F32:
    taken = rng.random(normal.shape) < RESAMPLED
    donors = references[rng.integers(references.shape[0], size=normal.shape), np.arange(normal.shape[1])]
    return _unit(np.where(taken, donors, normal))


def _mixed(normal: F32, foreign: F32, rng: np.random.Generator) -> F32:
    towards = foreign[rng.integers(foreign.shape[0], size=normal.shape[0])]
    return _unit((1 - MIXED) * normal + MIXED * towards)


def _unit(vectors: NDArray[np.floating]) -> F32:
    return np.asarray(vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + TINY), np.float32)


def _folds(bank: Bank) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    from sklearn.model_selection import KFold

    cut = KFold(FOLDS, shuffle=True, random_state=SEED)
    return cast("list[tuple[NDArray[np.intp], NDArray[np.intp]]]", list(cut.split(bank.vectors)))


Judging = Callable[[Bank, F32, F32], Scores]
"""Bank, queries (Q, D), embeddings of other machines (M, D) → scores."""


@dataclass(frozen=True)
class BackEnds:
    """What judges every unit."""

    kinds: tuple[BackEnd | Literal["auto"], ...] = ("nearest",)
    """One, or several whose minimum counts; `auto` alone: the one that each unit's normal clips choose."""
    neighbours: int = NEIGHBOURS
    """Other references that the density of a place is taken from."""
    bands: int = 1
    """Equal parts of an embedding, bands of frequency, each with a bank of its own; their scores are averaged (BEAM, arXiv 2603.13749)."""

    def judging(self) -> Judging:
        """As a function."""

        def of_unit(bank: Bank, queries: F32, foreign: F32) -> Scores:
            kinds = (choose(bank, foreign, self.neighbours),) if "auto" in self.kinds else self.kinds
            return judge(cast("tuple[BackEnd, ...]", kinds), bank, queries, self.neighbours)

        def of_bands(bank: Bank, queries: F32, foreign: F32) -> Scores:
            parts = zip(*(in_bands(vectors, self.bands) for vectors in (bank.vectors, queries, foreign)), strict=True)
            found = [of_unit(Bank(own, bank.domains), asked, others) for own, asked, others in parts]
            return Scores(
                np.mean([each.held_out for each in found], axis=0),
                np.mean([each.queries for each in found], axis=0),
                tuple(dict.fromkeys(kind for each in found for kind in each.chosen)),
            )

        return of_unit if self.bands == 1 else of_bands


NEAREST = BackEnds()
