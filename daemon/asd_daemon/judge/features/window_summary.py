"""What a window of sound is like, in the figures that a change can be named from: levels, envelopes, modulation, tones, strokes.

Owns the analysis of one window; what has changed against normal windows is `sound_changes`. NumPy only, no clock.

The envelopes are those of band-pass filtered sound, and their spectra are the ones by which defects of bearings and gears are known
(Randall & Antoni, "Rolling element bearing diagnostics – a tutorial", MSSP 25, 2011).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_S, WINDOW_SAMPLES

F32 = NDArray[np.float32]
C64 = NDArray[np.complex64]

ENVELOPE_HZ = 800
"""Samples a second of an envelope."""
ENVELOPE_BANDS_HZ = ((200, 600), (600, 1400), (1400, 3000), (3000, 6200))
MODULATION_TOP_HZ = 130
MODULATION_STEP_HZ = 1 / WINDOW_S
LEVELS = (5, 20, 50, 80, 95, 99.5)
"""Percentiles over time at which the level of an envelope is told."""
TONE_FFT = 4096
"""Samples of a frame that tones are seen in: lines of 4 Hz."""
TONE_HZ = SAMPLE_RATE_HZ / TONE_FFT
THIRD_OCTAVES = 18
"""From 100 to 6400 Hz."""
FIRST_LAG, LAST_LAG, LAG_S = 20, 420, 0.01
"""Hundredths of a second after which strokes may come again."""
_BAND_FFT = 1024  # samples of a frame that third octaves are heard in: 64 ms
_QUANTILES = (10, 50, 80)
_TONE_SIDE = 25  # lines on either side that a tone must stand out from: 100 Hz
_EVENTS, _EVENT_S, _EVENTS_APART_S = 16, 0.016, 0.012
_ONSET_DB = 6.0  # rise within 20 ms that is the start of something
_FLOOR = 1e-12


@dataclass(frozen=True)
class WindowSummary:
    """One window, in figures; about 31 kB. Levels in dB of full scale."""

    third_octaves_db: F32
    """(4, 18): percentiles 10, 50 and 80 over frames of 64 ms, and the mean."""
    envelopes_db: F32
    """(4, 6): levels of each band's envelope at the percentiles `LEVELS`."""
    modulation: F32
    """(4, 1300): how deep each band's envelope swings at a rate, in steps of 0.1 Hz; 1 swings by its own mean."""
    likeness: F32
    """(4,): how alike the loudest moments of a band are in shape, 0 to 1: blows ring alike, bursts of noise do not."""
    peaks_db: F32
    """(4, 100): loudest level within each tenth of a second, falling."""
    tones_db: F32
    """(2049,): how far each line of the median spectrum stands out from its surroundings."""
    repetition: F32
    """(400,): how well sudden starts are repeated after 0.20, 0.21 … 4.19 s; 1 is fully, 0 is by chance."""


def summarise(waveform: F32) -> WindowSummary:
    """Figures of a window, float32 (160 000,) in [-1, 1]."""
    basebands = band_signals(waveform)
    squared = np.stack([_power_at_envelope_rate(band) for band in basebands])  # (4, 8000)
    tenths = squared.reshape(len(squared), -1, ENVELOPE_HZ // 10).max(axis=2)
    return WindowSummary(
        third_octaves_db=_third_octaves(_power_spectra(waveform, _BAND_FFT)),
        envelopes_db=_db(np.percentile(squared, LEVELS, axis=1).T),
        modulation=modulation_depths(squared),
        likeness=np.array([_likeness(band, power) for band, power in zip(basebands, squared, strict=True)], np.float32),
        peaks_db=_db(-np.sort(-tenths, axis=1)),
        tones_db=_above_surroundings(_db(np.median(_power_spectra(waveform, TONE_FFT), axis=0))),
        repetition=_repetition(squared),
    )


def band_signals(waveform: F32) -> list[C64]:
    """Each band by itself, moved down to 0 Hz: complex signals whose magnitude is the envelope, as long as each band is wide."""
    lines = np.fft.rfft(waveform).astype(np.complex64)
    signals = []
    for low_hz, high_hz in ENVELOPE_BANDS_HZ:
        inside = lines[int(low_hz * WINDOW_S) : int(high_hz * WINDOW_S)]
        size = max(inside.shape[0], int(ENVELOPE_HZ * WINDOW_S))
        signal = np.fft.ifft(inside, size) * (np.sqrt(2) * size / WINDOW_SAMPLES)
        signals.append(signal.astype(np.complex64))
    return signals


def modulation_depths(squared: F32) -> F32:
    """Depth of modulation by rate, of squared envelopes at 800 Hz (B, T); float32 (B, 1300)."""
    size, top = squared.shape[1], round(MODULATION_TOP_HZ / MODULATION_STEP_HZ)
    swing = np.sqrt(squared / (squared.mean(axis=1, keepdims=True) + _FLOOR))
    swing = swing - swing.mean(axis=1, keepdims=True)
    power = np.square(np.abs(np.fft.rfft(swing * _hann(size), axis=1))[:, : top + 2])
    padded = np.pad(power, ((0, 0), (2, 2)))
    around = sliding_window_view(padded, 5, axis=1).sum(axis=2)[:, :top]  # a rate that wanders by 0.2 Hz stays one
    return np.asarray(np.sqrt(around / 1.5) * 4 / size, np.float32)  # 1.5: how a Hann window spreads a line's power


@lru_cache(maxsize=1)
def third_octave_edges_hz() -> tuple[float, ...]:
    """Limits of the third octaves, 19 of them."""
    return tuple(float(100 * 2 ** (i / 3)) for i in range(THIRD_OCTAVES + 1))


def _power_at_envelope_rate(band: C64) -> F32:
    """Instantaneous power, (8000,)."""
    power = np.square(np.abs(band)).reshape(int(ENVELOPE_HZ * WINDOW_S), -1)
    return np.asarray(power.mean(axis=1), np.float32)


def _likeness(band: C64, power: F32) -> float:
    """Median of the best cross-correlations of the loudest moments with each other."""
    step = band.shape[0] // power.shape[0]
    before, length = int(step * ENVELOPE_HZ * 0.004), int(step * ENVELOPE_HZ * _EVENT_S)
    apart, left = int(_EVENTS_APART_S * ENVELOPE_HZ), power.copy()
    starts = []
    for _ in range(_EVENTS):
        loudest = int(np.argmax(left))
        left[max(loudest - apart, 0) : loudest + apart + 1] = 0
        starts.append(min(max(loudest * step - before, 0), band.shape[0] - length))
    events = np.stack([band[start : start + length] for start in starts])  # (E, L)
    events = events / (np.sqrt(np.square(np.abs(events)).sum(axis=1, keepdims=True)) + _FLOOR)
    lines = np.fft.fft(events, 2 * length, axis=1)
    first, second = np.triu_indices(_EVENTS, 1)
    correlation = np.abs(np.fft.ifft(lines[first] * lines[second].conj(), axis=1))  # (E (E - 1) / 2, 2 L)
    return float(np.median(correlation.max(axis=1)))


def _repetition(squared: F32) -> F32:
    """Autocorrelation of sudden rises of all bands together."""
    levels = _db(squared.reshape(len(squared), -1, round(ENVELOPE_HZ * LAG_S)).mean(axis=2))  # (4, 1000)
    rises = levels[:, 2:] - levels[:, :-2]
    onsets = np.convolve(np.where(rises > _ONSET_DB, rises, 0).sum(axis=0), [0.25, 0.5, 1, 0.5, 0.25], "same")
    onsets -= onsets.mean()
    count, lags = onsets.shape[0], np.arange(FIRST_LAG, LAST_LAG)
    correlation = np.fft.irfft(np.square(np.abs(np.fft.rfft(onsets, 2048))))
    return np.asarray(correlation[lags] / (correlation[0] + _FLOOR) * count / (count - lags), np.float32)


def _power_spectra(waveform: F32, size: int) -> F32:
    """Of frames that overlap by half; (T, size / 2 + 1)."""
    frames = sliding_window_view(waveform, size)[:: size // 2] * _hann(size)
    return np.square(np.abs(np.fft.rfft(frames, axis=1)).astype(np.float32))


def _third_octaves(spectra: F32) -> F32:
    lines = [round(edge_hz * _BAND_FFT / SAMPLE_RATE_HZ) for edge_hz in third_octave_edges_hz()]
    bands = np.add.reduceat(spectra, lines, axis=1)[:, :-1]  # (T, 18)
    return _db(np.stack([*np.percentile(bands, _QUANTILES, axis=0), bands.mean(axis=0)]))


def _above_surroundings(median_db: F32) -> F32:
    padded = np.pad(median_db, _TONE_SIDE, mode="edge")
    return np.asarray(median_db - np.median(sliding_window_view(padded, 2 * _TONE_SIDE + 1), axis=1), np.float32)


def _db(power: NDArray[np.floating]) -> F32:
    return np.asarray(10 * np.log10(power + _FLOOR), np.float32)


@lru_cache(maxsize=4)
def _hann(size: int) -> F32:
    return np.hanning(size).astype(np.float32)
