"""Which windows are fit to judge."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from asd_daemon.hear.windows.quality import QualityLimits, UnfitReason, longest_run, unfit_reason

F32 = NDArray[np.float32]
N = 160_000


def noise(level: float = 0.05) -> F32:
    return np.random.default_rng(0).normal(0, level, N).astype(np.float32)


def changed(where: slice, value: float) -> F32:
    samples = noise()
    samples[where] = value
    return samples


@pytest.mark.parametrize("samples", [noise(), noise(2e-4), noise(0.2), noise() + np.float32(0.05)])
def test_unfit_reason_of_ordinary_sound_is_none(samples: F32) -> None:
    assert unfit_reason(samples) is None


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(N, np.float32), UnfitReason.SILENCE),
        (np.random.default_rng(0).integers(-1, 2, N).astype(np.float32) / 32768, UnfitReason.SILENCE),
        (changed(slice(5000, 15_000), 0.0), UnfitReason.SILENCE),
        (changed(slice(5000, 15_000), 0.01), UnfitReason.STUCK),
        (np.full(N, 0.02, np.float32), UnfitReason.STUCK),
        (changed(slice(7, 8), np.nan), UnfitReason.NOT_FINITE),
        (changed(slice(7, 8), -np.inf), UnfitReason.NOT_FINITE),
        (np.clip(noise(0.6), -1, 1), UnfitReason.CLIPPING),
        (np.full(N, 1.0, np.float32), UnfitReason.CLIPPING),
        (noise() + np.float32(0.3), UnfitReason.DC_OFFSET),
        (noise() - np.float32(0.3), UnfitReason.DC_OFFSET),
        (np.empty(0, np.float32), UnfitReason.GAP),
    ],
)
def test_unfit_reason_of_a_broken_microphone_names_it(samples: F32, reason: UnfitReason) -> None:
    assert unfit_reason(samples) is reason


def test_unfit_reason_with_a_gap_is_the_gap_whatever_the_sound() -> None:
    assert unfit_reason(noise(), gap_samples=1) is UnfitReason.GAP
    assert unfit_reason(np.zeros(N, np.float32), gap_samples=1) is UnfitReason.GAP


def test_unfit_reason_just_inside_the_limits_is_none() -> None:
    assert unfit_reason(changed(slice(0, 4000), 0.01)) is None  # 0.25 s
    limits = QualityLimits(clipped_fraction=0.5)
    assert unfit_reason(np.clip(noise(0.6), -1, 1), limits=limits) is None


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 12_000])
@pytest.mark.parametrize("level", [0.003, 0.2])
def test_unfit_reason_of_sound_of_a_lower_rate_is_its_band(rate_hz: int, level: float) -> None:
    low = np.round(soxr.resample(noise(level), 16_000, rate_hz) * 32768) / 32768
    assert unfit_reason(soxr.resample(low, rate_hz, 16_000).astype(np.float32)) is UnfitReason.BAND


def test_unfit_reason_of_tones_slopes_and_a_low_pass_above_what_is_judged_is_none() -> None:
    t, spectrum, hz = np.arange(N) / 16_000, np.fft.rfft(noise()), np.fft.rfftfreq(N, 1 / 16_000)
    hums = np.stack([0.1 * np.sin(2 * np.pi * f * t) for f in (120, 1900, 3900)]).sum(axis=0)
    tones = hums.astype(np.float32) + noise(1e-4)
    dull = np.fft.irfft(spectrum / (1 + (hz / 200) ** 2), N).astype(np.float32)
    steep = np.fft.irfft(spectrum * np.linspace(1, 0.05, spectrum.shape[0]) ** 9, N).astype(np.float32)
    passed = np.fft.irfft(spectrum * (hz < 7_000), N).astype(np.float32)
    assert [unfit_reason(sound) for sound in (tones, dull, 5 * steep, passed)] == [None] * 4


@pytest.mark.parametrize("seconds", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("resampled", [False, True])
def test_unfit_reason_of_padded_sound_is_silence(seconds: float, resampled: bool) -> None:
    sound = noise()
    sound[N - round(16_000 * seconds) :] = 0
    if resampled:
        sound = soxr.resample(soxr.resample(sound, 16_000, 48_000), 48_000, 16_000)
    assert unfit_reason(sound) is UnfitReason.SILENCE


def test_unfit_reason_of_too_little_sound_is_short_unless_less_is_wanted() -> None:
    assert unfit_reason(noise()[:79_999]) is UnfitReason.SHORT
    assert unfit_reason(noise()[:80_000]) is None
    assert unfit_reason(noise()[:8_000], limits=QualityLimits(least_s=0.0)) is None


def test_unfit_reason_of_a_few_clipped_peaks_is_none() -> None:
    assert unfit_reason(changed(slice(0, N, 200), 1.0)) is None


@given(st.lists(st.sampled_from([0.0, 0.5, -0.5]), min_size=1, max_size=60))
def test_longest_run_agrees_with_counting(values: list[float]) -> None:
    length, value = longest_run(np.array(values, np.float32))
    runs = [(len(list(group)), key) for key, group in groupby(values)]
    assert length == max(n for n, _ in runs)
    assert (length, value) in runs
