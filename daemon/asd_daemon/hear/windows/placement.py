"""How well a microphone is placed, from some seconds of what it hears: what disturbs, and what to do about it.

Pure functions of samples. They know no machine: that the right one is heard, people must hear for themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asd_daemon.hear.windows.quality import QualityLimits, UnfitReason, unfit_reason
from asd_daemon.waveform import SAMPLE_RATE_HZ

F32 = NDArray[np.float32]
Look = Literal["good", "doubt", "bad"]

LEAST_S = 3.0
"""Less sound than this says nothing."""
_FRAME = 1600  # 100 ms: strokes and gusts are longer, and 10 Hz apart is enough to tell hum
_SOFT_DBFS, _FAINT_DBFS = -65.0, -75.0
_PEAK = 0.9  # full scale is 1; a failing machine is louder
_HUM_SHARE = 0.6  # of all power in narrow lines at multiples of 50 or 60 Hz
_WIND_SHARE, _WIND_SWING_DB = 0.9, 6.0  # of all power below 80 Hz, and how much that swings from frame to frame
_GATE_DB = 30.0  # between the level of its loudest tenth and that of its quietest twentieth
_TONE_DB, _SWING_DB = 6.0, 1.2  # what stands out of noise: a tone above its neighbours, a rhythm in the level


@dataclass(frozen=True)
class PlacementFinding:
    """One thing about a place, for people."""

    kind: str
    look: Look
    words: str


_UNFIT = {
    UnfitReason.SILENCE: "Nothing at all is heard: is the microphone plugged in, switched on and not muted?",
    UnfitReason.STUCK: "The microphone says one and the same value again and again: unplug it, and plug it in again.",
    UnfitReason.CLIPPING: "Too loud for the microphone: turn its gain down, or move it away.",
    UnfitReason.DC_OFFSET: "The sound lies far from zero: the microphone or its sound card is broken.",
    UnfitReason.BAND: "High frequencies are missing, as on a telephone: take another microphone, or turn its voice filter off.",
}


def placement_findings(samples: F32) -> list[PlacementFinding]:
    """What is to be said of a place, the worst first; one that is good where nothing disturbs.

    Args:
        samples: float32 (N,) in [-1, 1] at 16 kHz, the last seconds; of less than LEAST_S nothing is said.
    """
    if samples.shape[0] < LEAST_S * SAMPLE_RATE_HZ:
        return []
    reason = unfit_reason(samples, 0, QualityLimits(least_s=0.0))
    if reason is not None:
        words = _UNFIT.get(reason, "Samples are missing or broken: use another cable or socket.")
        return [PlacementFinding(reason.value, "bad", words)]
    sound = samples - np.float32(samples.mean(dtype=np.float64))
    levels_db = _frame_levels_db(sound)
    level_db = 10 * float(np.log10(np.mean(np.square(sound, dtype=np.float64)) + 1e-20))
    found = [*_level(level_db, float(np.abs(samples).max())), *_noise(sound, levels_db, level_db)]
    if not found:
        found = [PlacementFinding("good", "good", f"Good: {level_db:.0f} dB, and nothing disturbs.")]
    return sorted(found, key=lambda one: ("bad", "doubt", "good").index(one.look))


def _level(level_db: float, peak: float) -> list[PlacementFinding]:
    if level_db < _FAINT_DBFS:
        words = f"Very soft ({level_db:.0f} dB): bring the microphone much nearer, or turn its gain up."
        return [PlacementFinding("too_quiet", "bad", words)]
    if level_db < _SOFT_DBFS:
        words = f"Soft ({level_db:.0f} dB): nearer is better, or turn the gain up."
        return [PlacementFinding("soft", "doubt", words)]
    if peak > _PEAK:
        words = "Near the end of the scale: a machine that fails is louder; turn the gain down a little."
        return [PlacementFinding("loud", "doubt", words)]
    return []


def _noise(sound: F32, levels_db: NDArray[np.float64], level_db: float) -> list[PlacementFinding]:
    found = []
    power, hz = _spectrum(sound)
    total = float(power.sum()) + 1e-20
    hum_hz = next((mains for mains in (50, 60) if _hum_share(power, hz, mains) > _HUM_SHARE), None)
    if hum_hz is not None:
        words = (
            f"Mostly hum at {hum_hz} Hz and its multiples: of the machine, or of the mains? If it stays with the machine off, use another"
            " cable or supply, and keep away from transformers."
        )
        found.append(PlacementFinding("hum", "doubt", words))
    low_levels_db = _frame_levels_db(_below(sound, 80.0))
    if float(power[hz < 80].sum()) / total > _WIND_SHARE and float(low_levels_db.std()) > _WIND_SWING_DB:
        words = "Wind, or somebody touches the microphone: fix it firmly, away from fans' air, or put foam over it."
        found.append(PlacementFinding("wind", "bad", words))
    gap_db = float(np.percentile(levels_db, 90) - np.percentile(levels_db, 5))
    if gap_db > _GATE_DB and float(np.percentile(levels_db, 5)) < -80:
        words = "Sound is cut off between louder moments: turn off noise suppression, voice detection and automatic gain of the microphone."
        found.append(PlacementFinding("gate", "bad", words))
    if not found and level_db < -45 and not _stands_out(sound, power, hz):
        words = "Only noise as of a room: no tone and no rhythm stands out. Is the machine on? Else bring the microphone nearer to it."
        found.append(PlacementFinding("room", "doubt", words))
    return found


def _frame_levels_db(sound: F32) -> NDArray[np.float64]:
    """Level of each 100 ms in dBFS without its mean, (F,)."""
    frames = sound[: sound.shape[0] // _FRAME * _FRAME].reshape(-1, _FRAME)
    frames = frames - frames.mean(axis=1, keepdims=True)
    return np.asarray(10 * np.log10(np.mean(np.square(frames, dtype=np.float64), axis=1) + 1e-12))


def _spectrum(sound: F32) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean power and its frequencies in Hz, both (B,): 2 Hz apart, over pieces of half a second."""
    size = SAMPLE_RATE_HZ // 2
    pieces = sound[: sound.shape[0] // size * size].reshape(-1, size) * np.hanning(size).astype(np.float32)
    power = np.mean(np.abs(np.fft.rfft(pieces, axis=1)).astype(np.float64) ** 2, axis=0)
    return np.asarray(power), np.arange(power.shape[0]) * (SAMPLE_RATE_HZ / size)


def _hum_share(power: NDArray[np.float64], hz: NDArray[np.float64], mains_hz: int) -> float:
    """How much of all power lies within 2 Hz of the first twelve multiples of the mains."""
    lines = np.zeros(power.shape[0], bool)
    for multiple in range(1, 13):
        lines |= np.abs(hz - multiple * mains_hz) <= 2
    return float(power[lines].sum() / (power[1:].sum() + 1e-20))


def _below(sound: F32, hz: float) -> F32:
    """The part of a sound below a frequency."""
    spectrum = np.fft.rfft(sound)
    spectrum[int(hz * sound.shape[0] / SAMPLE_RATE_HZ) :] = 0
    return np.asarray(np.fft.irfft(spectrum, sound.shape[0]), np.float32)


def _stands_out(sound: F32, power: NDArray[np.float64], hz: NDArray[np.float64]) -> bool:
    """Whether there is a tone, or a rhythm: noise of a room has neither."""
    in_band = (hz > 150) & (hz < 6900)
    levels_db = _frame_levels_db(sound - _below(sound, 150.0))  # what rumbles below has no level of its own
    levels = 10 * np.log10(power[in_band] + 1e-20)
    padded = np.pad(levels, 25, mode="edge")
    around = np.median(np.lib.stride_tricks.sliding_window_view(padded, 51), axis=1)
    return bool((levels - around).max() > _TONE_DB or levels_db.std() > _SWING_DB)
