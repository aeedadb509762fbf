"""Views by which earlier versions judged."""

from __future__ import annotations

import numpy as np
import pytest

from asd_daemon.judge.features.earlier_views import EARLIER_VIEW_NAMES, Spectrogram, floor
from asd_daemon.judge.features.views import view_vectors


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_floor_of_random_power_equals_a_plain_loop(rng: np.random.Generator) -> None:
    power = rng.gamma(1.0, size=(50, 7)).astype(np.float32)
    plain = [np.log(min(power[t : t + 4, f].mean() for t in range(47)) + 1e-9) for f in range(7)]
    np.testing.assert_allclose(floor(power, 4), plain, rtol=1e-4)


def test_floor_of_steady_sound_under_passing_noise_is_that_of_the_sound(rng: np.random.Generator) -> None:
    steady = np.full((100, 5), 2.0, np.float32)
    noisy = steady.copy()
    noisy[:60] += rng.gamma(1.0, 50, size=(60, 5)).astype(np.float32)
    np.testing.assert_allclose(floor(noisy, 8), floor(steady, 8), atol=1e-5)


def test_quantiles_of_a_spectrogram_equal_numpys(rng: np.random.Generator) -> None:
    mel = rng.standard_normal((101, 128)).astype(np.float32)
    expected = np.percentile(mel, (1, 10, 99), axis=0).ravel()
    np.testing.assert_allclose(Spectrogram.of(mel).quantiles(1, 10, 99), expected - expected.mean(), atol=1e-5)


def test_rhythm_of_two_knocking_rates_differs_where_floors_do_not(rng: np.random.Generator) -> None:
    noise = 0.01 * rng.standard_normal(160_000)
    seconds = np.arange(160_000) / 16_000
    slow, fast = (
        view_vectors(
            (noise * (1 + 3 * (np.sin(2 * np.pi * hz * seconds) > 0.9))).astype(np.float32), views=EARLIER_VIEW_NAMES
        )
        for hz in (3, 7)
    )
    apart = {name: float(np.abs(slow[name][0] - fast[name][0]).mean()) for name in ("rhythm", "quiet")}
    assert apart["rhythm"] > 5 * apart["quiet"]
