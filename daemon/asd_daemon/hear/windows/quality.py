"""Is a window fit to judge? Names what a broken microphone or cable does to it, so that no such window becomes a score.

Pure functions of samples; it knows no machine and no history.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from asd_daemon.waveform import LEAST_S, SAMPLE_RATE_HZ

F32 = NDArray[np.float32]
_ZERO = np.float32(2**-17)  # a quarter of a step of 16 bit: zeros that were resampled are not quite zero
_GLANCE_SAMPLES = 160  # 10 ms: a third of the shortest stretch that counts
_BAND_FRAME = 256  # 62.5 Hz
_TURN = 2 * np.pi / _BAND_FRAME * np.arange(_BAND_FRAME)
_BAND_WINDOW = (0.35875 - 0.48829 * np.cos(_TURN) + 0.14128 * np.cos(2 * _TURN) - 0.01168 * np.cos(3 * _TURN)).astype(
    np.float32
)  # Blackman-Harris: a loud tone is no band either
_BAND_END_HZ = (1500.0, 6200.0)  # where an end is looked for; what ends above has the band that is judged
_BAND_TOP_HZ = 6900.0
_BAND_BELOW_BINS, _BAND_EDGE_BINS = 16, 6  # what is compared: 1 kHz below, and all from 375 Hz above


class UnfitReason(StrEnum):
    """Why a window can't be judged."""

    GAP = "gap"
    """The source lost samples in it."""
    NOT_FINITE = "not_finite"
    """A sample is NaN or infinite."""
    SILENCE = "silence"
    """Digital silence, all the time or for a while: zeros, or nothing above one step of 16 bit; a working microphone always hears itself,
    and a recording that was padded does not sound like its machine."""
    STUCK = "stuck"
    """One value repeats for longer than sound can."""
    CLIPPING = "clipping"
    """Too many samples lie at the end of the scale."""
    DC_OFFSET = "dc_offset"
    """The mean is far from zero: a broken preamplifier or a wrong sample format."""
    LEVEL = "level"
    """Far above the usual level of this machine, or far below for longer than a machine stands still."""
    OFF = "off"
    """Up to the level at which the settings say that the machine is off."""
    QUIET = "quiet"
    """Sound, but far below the usual level of this machine: it is switched off, or its microphone is covered."""
    RATE = "rate"
    """Samples come much faster or slower than they should: another rate than they say, or some are missing."""
    RATE_UNKNOWN = "rate_unknown"
    """A command's samples have not come for long enough to know their rate."""
    HALL = "hall"
    """The hall is louder than it ever was while the machine was learned, and drowns it, as a second microphone says."""
    SHORT = "short"
    """A recording that ended before there was enough of it."""
    BAND = "band"
    """Nothing above some frequency well inside the band that is judged: sound of a lower rate, or a telephone's."""


@dataclass(frozen=True)
class QualityLimits:
    """Where usable ends."""

    least_s: float = LEAST_S
    """Shortest sound that is judged."""
    silence_peak: float = 1.5 / 32768
    """Full scale is 1. Sound that is not above this is silent."""
    silence_s: float = 1.0
    """Longest such silence inside a window."""
    zero_s: float = 0.03
    """Longest digital zero: padding or a drop-out, longer than any frame that a view looks at for the machine's quietest moment."""
    stuck_s: float = 0.25
    """Longest run of one and the same value, in seconds."""
    clip_level: float = 0.999
    """Full scale is 1. Samples from here on are at the end of the scale."""
    clipped_fraction: float = 0.01
    """Largest fraction of such samples."""
    dc_level: float = 0.1
    """Full scale is 1. Largest mean, either sign."""
    cliff_db: float = 15.0
    """Sound falls by less than this from a band of 1 kHz to all above it (machines by 10 at most), resampled sound by 20 and more."""


def unfit_reason(samples: F32, gap_samples: int = 0, limits: QualityLimits | None = None) -> UnfitReason | None:
    """The first reason why these samples can't be judged, the most telling first; None where they can.

    Args:
        samples: float32 (N,) at 16 kHz, nothing repeated or padded.
        gap_samples: how many the source lost among them.
        limits: where usable ends.
    """
    limits = limits or QualityLimits()
    if gap_samples > 0 or samples.shape[0] == 0:
        return UnfitReason.GAP
    if not np.isfinite(samples).all():
        return UnfitReason.NOT_FINITE
    if samples.shape[0] < limits.least_s * SAMPLE_RATE_HZ:
        return UnfitReason.SHORT
    magnitude = np.abs(samples)
    run, value = longest_run(samples)
    is_stuck = run > limits.stuck_s * SAMPLE_RATE_HZ and abs(value) < limits.clip_level
    findings = {
        UnfitReason.SILENCE: is_silent(magnitude, limits),
        UnfitReason.STUCK: is_stuck,
        UnfitReason.CLIPPING: float(np.mean(magnitude >= limits.clip_level)) > limits.clipped_fraction,
        UnfitReason.DC_OFFSET: abs(float(np.mean(samples, dtype=np.float64))) > limits.dc_level,
    }
    found = next((reason for reason, found in findings.items() if found), None)
    return found or (UnfitReason.BAND if band_end_hz(samples, limits.cliff_db) is not None else None)


def longest_run(samples: F32) -> tuple[int, float]:
    """Length of the longest run of one repeated value, and the value."""
    changes = np.flatnonzero(np.diff(samples)) + 1  # where a new value begins
    bounds = np.concatenate(([0], changes, [samples.shape[0]]))
    lengths = np.diff(bounds)
    longest = int(np.argmax(lengths))
    return int(lengths[longest]), float(samples[bounds[longest]])


def is_silent(magnitude: F32, limits: QualityLimits) -> bool:
    """Whether (N,) magnitudes are silent all the time, or for longer than they may be."""
    whole = magnitude.shape[0] // _GLANCE_SAMPLES * _GLANCE_SAMPLES
    if magnitude[:whole].reshape(-1, _GLANCE_SAMPLES).max(axis=1, initial=0).min(initial=1) > limits.silence_peak:
        return False  # no stretch that is long enough can lie between
    silent = magnitude <= limits.silence_peak
    return (
        bool(silent.all())
        or longest_stretch(silent) > limits.silence_s * SAMPLE_RATE_HZ
        or longest_stretch(magnitude < _ZERO) > limits.zero_s * SAMPLE_RATE_HZ
    )


def longest_stretch(holds: NDArray[np.bool_]) -> int:
    """Length of the longest row of True in (N,)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], holds, [False]))))
    return int((edges[1::2] - edges[::2]).max()) if edges.shape[0] else 0


def band_end_hz(samples: F32, cliff_db: float) -> float | None:
    """Where sound at 16 kHz ends although its rate could hold more: above, all is this much softer than just below; None where it does not.

    Machines have peaks and slopes, but no cliff behind which nothing is: that is the filter of a resampler, a codec or a telephone.
    """
    count = samples.shape[0] // _BAND_FRAME
    if count == 0:
        return None
    frames = samples[: count * _BAND_FRAME].reshape(count, -1)[::2]  # every other one is enough for a mean
    spectrum = np.fft.rfft(frames * _BAND_WINDOW, axis=1)
    power = np.mean(spectrum.real**2 + spectrum.imag**2, axis=0)
    level_db = 10 * np.log10(power + 1e-12)
    bin_hz = SAMPLE_RATE_HZ / _BAND_FRAME
    top = int(_BAND_TOP_HZ / bin_hz)
    loudest_above = np.maximum.accumulate(level_db[top::-1])[::-1]  # (top + 1,): from each bin to the top
    first, last = int(_BAND_END_HZ[0] / bin_hz), int(_BAND_END_HZ[1] / bin_hz)
    spans = sliding_window_view(level_db, _BAND_BELOW_BINS)[first - _BAND_BELOW_BINS : last - _BAND_BELOW_BINS + 1]
    quarter, half = _BAND_BELOW_BINS // 4, _BAND_BELOW_BINS // 2
    below = np.partition(spans, quarter, axis=1)[:, quarter]  # three quarters of them are louder: a tone is no band
    slope = spans[:, :half].mean(axis=1) - spans[:, half:].mean(axis=1)  # what falls on like that is no cliff
    fall = below - loudest_above[first + _BAND_EDGE_BINS : last + _BAND_EDGE_BINS + 1] - 1.25 * np.maximum(slope, 0)
    steepest = int(np.argmax(fall))
    return (first + steepest) * bin_hz if fall[steepest] > cliff_db else None
