"""Distances to normal windows, made comparable between references: where normal sound is rare, a larger distance is still normal.

Owns four normalisations, all of the form min over references y of (d(x, y) - offset(y)) / scale(y): plain, local density (Wilkinghoff et
al., ICASSP 2025), variance-minimised rescaling (Matsumoto et al., DCASE Workshop 2025) and one scale for each domain. It knows no sound
and no metric. NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import BundleError

F32 = NDArray[np.float32]
Normalisation = Literal["plain", "local", "variance", "domain"]
NORMALISATIONS: tuple[Normalisation, ...] = get_args(Normalisation)
NEIGHBOURS = 8
TINY = 1e-9


@dataclass(frozen=True)
class LocalDensity:
    """One offset and one scale for each reference."""

    offset: F32  # (N,)
    scale: F32  # (N,), positive

    @classmethod
    def fit(
        cls,
        kind: Normalisation,
        distances: F32,
        domains: NDArray[np.int64] | None = None,
        neighbours: int = NEIGHBOURS,
    ) -> LocalDensity:
        """Fit to the distances between references.

        Args:
            kind: which normalisation.
            distances: (N, N), N ≥ 2; the diagonal is not used.
            domains: (N,), a number for each domain; `domain` needs it.
            neighbours: how many other references the density of a place is taken from, at most N - 1.

        Raises:
            ValueError: an unknown kind, fewer than two references, or no domains where they are needed.
        """
        n = distances.shape[0]
        if kind not in NORMALISATIONS or n < 2 or distances.shape != (n, n):
            raise ValueError(
                f"no {kind!r} normalisation of distances {distances.shape}; kinds: {', '.join(NORMALISATIONS)}"
            )
        others = _without_self(distances)
        ones, zeros = np.ones(n, np.float32), np.zeros(n, np.float32)
        if kind == "plain":
            return cls(zeros, ones)
        if kind == "domain":
            if domains is None or domains.shape != (n,):
                raise ValueError("normalising by domain needs one domain for each reference")
            return cls(zeros, _domain_scales(others, domains))
        spread = np.sort(others, axis=1)[:, : min(neighbours, n - 1)].mean(axis=1)
        if kind == "local":
            return cls(zeros, np.maximum(spread, TINY).astype(np.float32))
        nearest = others.argmin(axis=1)
        alpha = _slope(others.min(axis=1), spread[nearest])
        return cls((alpha * spread).astype(np.float32), ones)

    def score(self, distances: F32) -> F32:
        """(Q, N) distances to the references → (Q,) scores; higher is more abnormal, and `variance` may be negative."""
        return np.asarray(((distances - self.offset) / self.scale).min(axis=1), np.float32)

    def leave_one_out(self, distances: F32) -> F32:
        """What the references themselves (N, N) would score were they not their own neighbours."""
        return self.score(_without_self(distances))

    def arrays(self) -> dict[str, F32]:
        """Everything, as plain arrays."""
        return {"offset": self.offset, "scale": self.scale}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.floating]]) -> LocalDensity:
        """The inverse of `arrays`.

        Raises:
            BundleError: an array is missing, shapes differ, or a scale is not positive.
        """
        try:
            offset, scale = np.asarray(arrays["offset"], np.float32), np.asarray(arrays["scale"], np.float32)
        except KeyError as e:
            raise BundleError(f"density: array {e.args[0]!r} is missing; make the bundle again") from e
        if offset.ndim != 1 or offset.shape != scale.shape or not (scale > 0).all():
            raise BundleError(
                f"density: offset {offset.shape} and scale {scale.shape} must agree and scales be positive"
            )
        return cls(offset, scale)


def _without_self(distances: F32) -> F32:
    others = distances.copy()
    np.fill_diagonal(others, np.inf)
    return others


def _domain_scales(others: F32, domains: NDArray[np.int64]) -> F32:
    """Median leave-one-out distance inside each domain; a domain of one reference takes that of all."""
    scales = np.full(domains.shape[0], np.median(others.min(axis=1)), np.float32)
    for domain in np.unique(domains):
        inside = np.flatnonzero(domains == domain)
        if inside.shape[0] > 1:
            scales[inside] = np.median(others[np.ix_(inside, inside)].min(axis=1))
    return np.maximum(scales, np.float32(TINY))


def _slope(distance: F32, spread: F32) -> float:
    """Cov(d, b) / Var(b): with it, d - α·b varies least over the references."""
    variance = float(np.var(spread))
    if variance <= TINY * float(np.mean(spread)) ** 2:
        return 0.0
    return float(np.mean((distance - distance.mean()) * (spread - spread.mean()))) / variance
