"""The building blocks of simulated sound against direct formulas and scipy, and across the borders of their chunks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter, welch

from asd_daemon.hear.simulator.mechanics import (
    CHUNK_SAMPLES,
    ColouredNoise,
    Filter,
    Impacts,
    Shaft,
    SlowDrift,
    decaying_orders,
    harmonics,
    impulses,
    limit,
    modes,
    path,
    pulse,
    spectrum,
)
from asd_daemon.waveform import SAMPLE_RATE_HZ


def test_filter_over_three_chunks_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    signal = rng.standard_normal(3 * CHUNK_SAMPLES).astype(np.float32)
    taps = modes([700.0, 3100.0], [0.03, 0.004], [0.0, -6.0])
    ours = Filter(taps)
    streamed = np.concatenate([ours(part) for part in np.split(signal, 3)])
    np.testing.assert_allclose(streamed, lfilter(taps, [1.0], signal), atol=2e-5)


def test_filter_taps_longer_than_the_room_behind_a_chunk_are_refused() -> None:
    with pytest.raises(ValueError, match="5000 taps"):
        Filter(np.ones(5000, dtype=np.float32))


def test_harmonics_of_a_turning_shaft_equal_the_direct_sum_over_chunks() -> None:
    rate_hz = 24.7
    orders = decaying_orders(np.random.default_rng(1), 9, 3.0)
    shaft = Shaft(np.random.default_rng(2))
    first_turn = float(np.random.default_rng(2).random())
    steady = np.full(CHUNK_SAMPLES, rate_hz)
    streamed = np.concatenate([harmonics(shaft.chunk(steady), orders) for _ in range(3)])
    turns = first_turn + rate_hz * np.arange(1, 3 * CHUNK_SAMPLES + 1) / SAMPLE_RATE_HZ
    k = np.arange(1, 10)[:, None]
    direct = np.sum(np.abs(orders)[:, None] * np.cos(2 * np.pi * k * turns + np.angle(orders)[:, None]), axis=0)
    np.testing.assert_allclose(streamed, direct, atol=1e-4)
    assert np.sqrt(np.mean(direct**2)) == pytest.approx(1.0, abs=0.01)


def test_harmonics_above_half_the_rate_are_left_out_and_not_folded_back() -> None:
    turns = Shaft(np.random.default_rng(2)).chunk(np.full(CHUNK_SAMPLES, 3000.0))
    power = np.abs(np.fft.rfft(harmonics(turns, np.ones(5, dtype=np.complex64)))) ** 2
    lines_hz = np.flatnonzero(power > 1e-6 * power.max())
    assert lines_hz.tolist() == [3000, 6000]


def test_shaft_after_a_month_keeps_its_phase() -> None:
    shaft = Shaft(np.random.default_rng(0))
    shaft._revolutions = 30 * 86_400 * 50.0 + 0.25
    turns = shaft.chunk(np.full(CHUNK_SAMPLES, 50.0))
    exact = 0.25 + 50 * np.arange(1, CHUNK_SAMPLES + 1) / SAMPLE_RATE_HZ
    # adding to a sum of 1.3e8 revolutions loses at most half a unit in the last place
    np.testing.assert_allclose(turns - 30 * 86_400 * 50.0, exact, atol=1e-6)


def test_impacts_without_slip_fall_on_every_whole_count() -> None:
    shaft, impacts = Shaft(np.random.default_rng(3)), Impacts(np.random.default_rng(4))
    times_s: list[float] = []
    for second in range(4):
        times_s.extend(second + impacts.chunk(shaft.chunk(np.full(CHUNK_SAMPLES, 31.3))) / SAMPLE_RATE_HZ)
    np.testing.assert_allclose(np.diff(times_s), 1 / 31.3, atol=1.5 / SAMPLE_RATE_HZ)
    assert len(times_s) in (125, 126)


def test_impacts_with_slip_keep_the_mean_rate() -> None:
    shaft, impacts = Shaft(np.random.default_rng(3)), Impacts(np.random.default_rng(5), slip=0.02)
    counts = [impacts.chunk(shaft.chunk(np.full(CHUNK_SAMPLES, 80.0))).shape[0] for _ in range(20)]
    assert sum(counts) / 20 == pytest.approx(80, rel=0.01)


def test_impacts_left_idle_start_again_without_making_up_for_it() -> None:
    impacts = Impacts(np.random.default_rng(5), slip=0.02)
    count = np.arange(CHUNK_SAMPLES) * 10.0 / SAMPLE_RATE_HZ
    impacts.chunk(count)
    assert impacts.chunk(count + 5000).shape[0] <= 11


def test_impulses_between_samples_keep_strength_and_place() -> None:
    train = impulses(np.array([10.25, 4000.0]), np.array([2.0, -1.0]))
    assert train[10] == pytest.approx(1.5)
    assert train[11] == pytest.approx(0.5)
    assert train[4000] == -1.0
    assert np.count_nonzero(train) == 3
    assert not impulses(np.empty(0), 1.0).any()


def test_wander_over_a_long_time_has_unit_variance_and_no_jumps() -> None:
    wander = SlowDrift(np.random.default_rng(6), 0.2)
    drift = np.concatenate([wander.chunk() for _ in range(300)])
    assert drift.std() == pytest.approx(1.0, abs=0.08)
    assert np.abs(np.diff(drift)).max() < 0.01


def test_hiss_has_the_spectrum_that_was_asked_for() -> None:
    hiss = ColouredNoise(np.random.default_rng(7), spectrum([(100, -20), (1000, 0), (8000, -30)]))
    sound = np.concatenate([hiss.chunk() for _ in range(20)])
    assert sound.std() == pytest.approx(1.0, abs=0.03)
    frequency_hz, power = welch(sound, SAMPLE_RATE_HZ, nperseg=2048)
    level_db = 10 * np.log10(power[np.searchsorted(frequency_hz, [300, 1000, 3000, 6000])])
    asked_db = np.interp(np.log([300, 1000, 3000, 6000]), np.log([100, 1000, 8000]), [-20, 0, -30])
    np.testing.assert_allclose(level_db - level_db[1], asked_db - asked_db[1], atol=2.0)


def test_paths_with_a_tilt_hear_high_and_low_differently() -> None:
    bright, dark = (np.fft.rfft(path(np.random.default_rng(8), tilt), 16_000) for tilt in (8.0, -8.0))
    power = np.abs(bright) ** 2 / np.abs(dark) ** 2
    difference_db = 10 * np.log10(power[5000:7500].mean() / power[100:300].mean())
    assert difference_db == pytest.approx(14, abs=3)  # of 16 dB between the very ends


def test_pulse_stays_above_half_for_its_width() -> None:
    turns = np.arange(CHUNK_SAMPLES) / CHUNK_SAMPLES
    assert np.mean(pulse(turns, 0.2) > 0.5) == pytest.approx(0.2, abs=0.001)
    assert pulse(turns, 0.2).max() == pytest.approx(1.0)


def test_limit_bends_peaks_and_leaves_the_rest() -> None:
    samples = np.array([0.1, -0.69, 0.9, -30.0], dtype=np.float32)
    bent = limit(samples)
    assert bent[:2].tolist() == samples[:2].tolist()
    assert 0.7 < bent[2] < 0.9
    assert -1.0 < bent[3] < -0.98
