"""Which bands and seconds differ from the nearest normal window."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.judge.features.log_mel import log_mel
from asd_daemon.judge.features.spectral_difference import Difference, RecentNormalWindows, coarse_spectrum

F32 = NDArray[np.float32]
N = 160_000


def hiss(seed: int, level: float = 0.05) -> F32:
    return np.random.default_rng(seed).normal(0, level, N).astype(np.float32)


def tone(hz: float, level: float = 0.2) -> F32:
    return (level * np.sin(2 * np.pi * hz * np.arange(N) / 16_000)).astype(np.float32)


def memory(*windows: F32) -> RecentNormalWindows:
    made = RecentNormalWindows()
    for window in windows:
        made.add(window)
    return made


def compared(normal: RecentNormalWindows, window: F32) -> Difference:
    found = normal.compare(window)
    assert found is not None
    return found


def test_compare_until_three_normal_windows_are_known_is_none() -> None:
    assert memory(hiss(0), hiss(1)).compare(hiss(2)) is None


def test_window_like_the_normal_ones_has_no_band_that_differs_by_more_than_the_normal_ones_do() -> None:
    found = compared(memory(*map(hiss, range(6))), hiss(9))
    assert all(abs(band.deviations) < 3 for band in found.bands)


@pytest.mark.parametrize("hz", [120.0, 500.0, 1500.0, 6000.0])
def test_tone_is_found_in_its_band_and_as_loud_as_it_is(hz: float) -> None:
    normal = memory(*map(hiss, range(6)))
    quiet, loud = (compared(normal, hiss(9) + tone(hz, level)).bands[0] for level in (0.1, 0.2))
    assert loud.low_hz <= hz <= loud.high_hz
    assert loud.difference_db - quiet.difference_db == pytest.approx(6.02, abs=0.5)


def test_band_that_fell_silent_is_told_with_a_minus() -> None:
    normal = memory(*[hiss(seed) + tone(1000) for seed in range(6)])
    band = compared(normal, hiss(9)).bands[0]
    assert band.low_hz <= 1000 <= band.high_hz
    assert band.difference_db < -10


def test_nearest_normal_window_is_compared_with_and_not_the_mean_of_two_ways_to_run() -> None:
    slow, fast = [hiss(s) + tone(400) for s in range(4)], [hiss(s) + tone(2000) for s in range(10, 14)]
    found = compared(memory(*slow, *fast), hiss(20) + tone(2000) + tone(5000))
    assert found.bands[0].low_hz <= 5000 <= found.bands[0].high_hz
    assert not any(band.low_hz <= 400 <= band.high_hz for band in found.bands)


def test_seconds_that_differ_are_those_of_the_knock() -> None:
    knocked = hiss(9)
    knocked[7 * 16_000 : 7 * 16_000 + 4000] += hiss(10, 0.5)[:4000]
    assert compared(memory(*map(hiss, range(6))), knocked).seconds[0] == 7


def test_memory_is_bounded_and_thins_out() -> None:
    normal = RecentNormalWindows(most=4, every=3)
    for seed in range(30):
        normal.add(hiss(seed % 3))
    assert len(normal) == 4


def test_coarse_spectrum_is_the_mean_power_of_the_log_mel() -> None:
    window = hiss(0) + tone(700)
    power = np.exp(log_mel(window).astype(np.float64))
    coarse = np.exp(coarse_spectrum(window).astype(np.float64))
    assert coarse.shape == (10, 32)
    first = np.array_split(power, 10)[0]
    np.testing.assert_allclose(coarse[0], [first[:, 4 * g : 4 * g + 4].mean() for g in range(32)], rtol=1e-4)
