"""Is a window fit to judge? Names what a broken microphone or cable does to it, so that no such window becomes a score.

Pure functions of samples; it knows no machine and no history.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from asd_daemon.waveform import SAMPLE_RATE_HZ

F32 = NDArray[np.float32]


class UnfitReason(StrEnum):
    """Why a window can't be judged."""

    GAP = "gap"
    """The source lost samples in it."""
    NOT_FINITE = "not_finite"
    """A sample is NaN or infinite."""
    SILENCE = "silence"
    """Digital silence: zeros, or nothing above one step of 16 bit; a working microphone always hears itself."""
    STUCK = "stuck"
    """One value repeats for longer than sound can."""
    CLIPPING = "clipping"
    """Too many samples lie at the end of the scale."""
    DC_OFFSET = "dc_offset"
    """The mean is far from zero: a broken preamplifier or a wrong sample format."""
    LEVEL = "level"
    """Far from the usual level of this machine."""
    RATE = "rate"
    """Samples come much faster or slower than they should: another rate than they say, or some are missing."""


@dataclass(frozen=True)
class QualityLimits:
    """Where usable ends."""

    silence_peak: float = 1.5 / 32768
    """Full scale is 1. A window whose peak is not above this is silent."""
    stuck_s: float = 0.25
    """Longest run of one and the same value, in seconds."""
    clip_level: float = 0.999
    """Full scale is 1. Samples from here on are at the end of the scale."""
    clipped_fraction: float = 0.01
    """Largest fraction of such samples."""
    dc_level: float = 0.1
    """Full scale is 1. Largest mean, either sign."""


def unfit_reason(samples: F32, gap_samples: int = 0, limits: QualityLimits | None = None) -> UnfitReason | None:
    """The first reason why these samples can't be judged, the most telling first; None where they can.

    Args:
        samples: float32 (N,), without padding.
        gap_samples: how many the source lost among them.
        limits: where usable ends.
    """
    limits = limits or QualityLimits()
    if gap_samples > 0 or samples.shape[0] == 0:
        return UnfitReason.GAP
    if not np.isfinite(samples).all():
        return UnfitReason.NOT_FINITE
    magnitude = np.abs(samples)
    run, value = longest_run(samples)
    is_stuck = run > limits.stuck_s * SAMPLE_RATE_HZ and abs(value) < limits.clip_level
    findings = {
        UnfitReason.SILENCE: float(magnitude.max()) <= limits.silence_peak or (is_stuck and value == 0),
        UnfitReason.STUCK: is_stuck,
        UnfitReason.CLIPPING: float(np.mean(magnitude >= limits.clip_level)) > limits.clipped_fraction,
        UnfitReason.DC_OFFSET: abs(float(np.mean(samples, dtype=np.float64))) > limits.dc_level,
    }
    return next((reason for reason, found in findings.items() if found), None)


def longest_run(samples: F32) -> tuple[int, float]:
    """Length of the longest run of one repeated value, and the value."""
    changes = np.flatnonzero(np.diff(samples)) + 1  # where a new value begins
    bounds = np.concatenate(([0], changes, [samples.shape[0]]))
    lengths = np.diff(bounds)
    longest = int(np.argmax(lengths))
    return int(lengths[longest]), float(samples[bounds[longest]])
