"""Ratios of sounds written out in NumPy, as the oracle of what the trainer computes in torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def si_sdr_db(estimate: NDArray[np.floating], target: NDArray[np.floating]) -> float:
    """Scale-invariant ratio of target to distortion in dB, means removed, by projecting on the target."""
    estimate = np.asarray(estimate, dtype=np.float64) - np.mean(estimate, dtype=np.float64)
    target = np.asarray(target, dtype=np.float64) - np.mean(target, dtype=np.float64)
    heard = np.dot(estimate, target) / np.dot(target, target) * target
    rest = estimate - heard
    return float(10 * np.log10(np.dot(heard, heard) / np.dot(rest, rest)))
