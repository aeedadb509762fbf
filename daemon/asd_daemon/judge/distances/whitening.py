"""Distances between vectors in units of how much normal ones differ.

Owns whitening with shrinkage and the Euclidean distance. NumPy only; it knows no view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import BundleError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
SHRINKAGE = 0.5
LEAST_VARIANCE = 1e-10  # of the largest: directions of less are none


@dataclass(frozen=True)
class Whitening:
    """Distances in units of how much normal vectors differ: covariance, shrunk towards its mean variance.

    x → (x - mean) · outside + ((x - mean) · axesᵀ) · (gain · axes); the part outside the axes keeps one factor.
    """

    mean: F64  # (D,)
    axes: F64  # (R, D), orthonormal
    gain: F64  # (R,), added to `outside` along each axis
    outside: float

    @classmethod
    def fit(cls, whole: F32, parts: F32 | None = None, shrinkage: float = SHRINKAGE) -> Whitening:
        """Fit to normal vectors.

        Args:
            whole: (N, D), one vector a window, N ≥ 2.
            parts: (N, P, D), vectors of pieces of the same windows: what varies inside a window is noise, and counts as much as what
                varies between windows.
            shrinkage: share of the isotropic covariance, in (0, 1].

        Raises:
            ValueError: fewer than two windows, or a shrinkage outside (0, 1].
        """
        if whole.shape[0] < 2 or not 0 < shrinkage <= 1:
            raise ValueError(f"whitening needs two windows and 0 < shrinkage ≤ 1, got {whole.shape[0]} and {shrinkage}")
        mean = whole.mean(axis=0, dtype=np.float64)
        rows = [whole - mean]
        if parts is not None:
            rows.append((parts - parts.mean(axis=1, keepdims=True, dtype=np.float64)).reshape(-1, whole.shape[1]))
        dims = whole.shape[1]
        scaled = [r * np.sqrt(dims / energy) for r in rows if (energy := float((r**2).sum())) > 0]
        if not scaled:  # all windows are the same: nothing to whiten
            return cls(mean, np.zeros((0, dims)), np.zeros(0), 1.0)
        joined = np.concatenate(scaled) / np.sqrt(len(scaled))  # mean variance 1
        variance, axes = principal_axes(joined)
        outside = 1 / np.sqrt(shrinkage)
        gain = 1 / np.sqrt((1 - shrinkage) * variance + shrinkage) - outside
        return cls(mean, axes, gain, float(outside))

    def apply(self, vectors: F32) -> F32:
        """(Q, D) → (Q, D)."""
        centred = vectors - self.mean
        return np.asarray(centred * self.outside + ((centred @ self.axes.T) * self.gain) @ self.axes, np.float32)

    def arrays(self) -> dict[str, F64]:
        """Everything, as plain arrays."""
        return {"mean": self.mean, "axes": self.axes, "gain": self.gain, "outside": np.array([self.outside])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.floating]]) -> Whitening:
        """The inverse of `arrays`.

        Raises:
            BundleError: an array is missing or its shape does not fit the others.
        """
        try:
            mean, axes, gain = (np.asarray(arrays[k], np.float64) for k in ("mean", "axes", "gain"))
            outside = np.asarray(arrays["outside"], np.float64)
        except KeyError as e:
            raise BundleError(f"whitening: array {e.args[0]!r} is missing; make the bundle again") from e
        if mean.ndim != 1 or axes.shape != (gain.shape[0], mean.shape[0]) or gain.ndim != 1 or outside.shape != (1,):
            raise BundleError(f"whitening: shapes {mean.shape}, {axes.shape}, {gain.shape}, {outside.shape} do not fit")
        return cls(mean, axes, gain, float(outside[0]))


def euclidean(queries: F32, bank: F32) -> F32:
    """Distances (Q, N) between rows."""
    q, b = queries.astype(np.float64), bank.astype(np.float64)
    squares = (q**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * q @ b.T
    return np.asarray(np.sqrt(np.maximum(squares, 0)), np.float32)


def principal_axes(rows: F64) -> tuple[F64, F64]:
    """Directions in which rows (N, D) spread: sums of squares (R,) and orthonormal axes (R, D).

    By the eigenvalues of the smaller Gram matrix: a symmetric matrix can always be taken apart, which LAPACK's singular values of finite
    rows can not on every processor.
    """
    if rows.shape[0] < rows.shape[1]:
        values, left = np.linalg.eigh(rows @ rows.T)
        kept = values > LEAST_VARIANCE * values[-1]
        return values[kept], (left[:, kept] / np.sqrt(values[kept])).T @ rows
    values, axes = np.linalg.eigh(rows.T @ rows)
    kept = values > LEAST_VARIANCE * values[-1]
    return values[kept], axes[:, kept].T
