"""What this program's views say of a sound that is the same everywhere: how a learned state is known to be of other views.

A version number would have to be remembered by whoever changes a view; this can't be forgotten. Owns the sound and the comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from asd_daemon.judge.features.views import VIEW_NAMES
from asd_daemon.judge.scoring.scorer import FeatureExtractor
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_SAMPLES

F32 = NDArray[np.float32]
SUMS = 6
TOLERANCE = 2e-3  # processors round differently; a view that is computed otherwise is further off


class ViewProbe(BaseModel):
    """How a view hears the sound: its size, and sums over its numbers that depend on their order."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    size: int = Field(ge=1)
    sums: tuple[float, ...] = Field(max_length=64)

    @classmethod
    def of(cls, vector: F32) -> ViewProbe:
        """Of a vector (D,)."""
        places = np.arange(vector.shape[0], dtype=np.float64)
        waves = [np.cos(k * places) for k in range(SUMS)]
        sums = [float(wave @ vector.astype(np.float64)) / np.sqrt(vector.shape[0]) for wave in waves]
        return cls(size=vector.shape[0], sums=tuple(round(s, 5) for s in sums))

    def same_as(self, other: ViewProbe) -> bool:
        """Whether both are of the same view."""
        if self.size != other.size or len(self.sums) != len(other.sums):
            return False
        mine, theirs = np.array(self.sums), np.array(other.sums)
        return bool(np.abs(mine - theirs).max() <= TOLERANCE * max(1.0, float(np.abs(mine).max())))


@cache
def view_probes() -> Mapping[str, ViewProbe]:
    """Of every view that machines are learned by."""
    described = FeatureExtractor(None).vectors(_sound(), VIEW_NAMES)
    return {view: ViewProbe.of(vectors[0]) for view, vectors in described.items()}


def _sound() -> F32:
    """A hum, blows and noise (160 000,); whole-number arithmetic, so that no library can make it another one."""
    at = np.arange(1, WINDOW_SAMPLES + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # splitmix64
    at = (at ^ (at >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    at = (at ^ (at >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    noise = (at ^ (at >> np.uint64(31))).astype(np.float64) / 2.0**63 - 1
    seconds = np.arange(WINDOW_SAMPLES) / SAMPLE_RATE_HZ
    blows = np.exp(-12 * (seconds * 3 % 1)) * np.sin(2 * np.pi * 1800 * seconds)
    hum = np.sin(2 * np.pi * 120 * seconds) + 0.5 * np.sin(2 * np.pi * 960 * seconds)
    return np.asarray(0.05 * noise + 0.1 * hum + 0.3 * blows, np.float32)
