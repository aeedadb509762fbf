"""Views that need no training: what of a window they show, and what they do not."""

from __future__ import annotations

import numpy as np
import pytest

from asd_daemon.judge.features.moving_views import MOVING_VIEWS
from asd_daemon.judge.features.steady_part import LevelledLogMels, steady_part
from asd_daemon.judge.features.steady_views import STEADY_VIEWS
from asd_daemon.judge.features.views import ALL_VIEW_NAMES, FRAMES_NEEDED, PARTS, view_sizes, view_vectors


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_describe_of_a_louder_recording_gives_the_same_vectors(rng: np.random.Generator) -> None:
    waveform = (0.1 * rng.standard_normal(160_000)).astype(np.float32)
    quiet, loud = (view_vectors(np.float32(gain) * waveform, views=ALL_VIEW_NAMES) for gain in (1, 4))
    assert tuple(quiet) == ALL_VIEW_NAMES
    assert {name: own.shape[1] for name, own in quiet.items()} == view_sizes()
    for name in ALL_VIEW_NAMES:
        assert quiet[name].shape[0] == (1 if name in MOVING_VIEWS else 1 + PARTS)
        assert quiet[name].dtype == np.float32
        np.testing.assert_allclose(loud[name], quiet[name], atol=2e-2, err_msg=name)


def test_describe_of_silence_is_finite() -> None:
    assert all(
        np.isfinite(vectors).all()
        for vectors in view_vectors(np.zeros(160_000, np.float32), views=ALL_VIEW_NAMES).values()
    )


def test_describe_of_a_short_piece_raises_value_error() -> None:
    with pytest.raises(ValueError, match=str(FRAMES_NEEDED)):
        view_vectors(np.zeros(8_000, np.float32))


def test_steady_part_is_the_hum_and_not_the_bursts(rng: np.random.Generator) -> None:
    t = np.arange(160_000) / 16_000
    hum = (0.05 * np.sin(2 * np.pi * 437.5 * t)).astype(np.float32)
    bursts = (0.3 * rng.standard_normal(160_000) * (t % 1 < 0.5)).astype(np.float32)
    steady = steady_part(hum + bursts)
    assert np.corrcoef(steady, hum)[0, 1] > 0.8
    assert np.std(steady) < 1.3 * np.std(hum)


def _knocking(rng: np.random.Generator, hz: float, noise: float = 0.01) -> np.ndarray:
    """A steady hum with a decaying blow `hz` times a second."""
    seconds = np.arange(160_000) / 16_000
    blow = np.exp(-60 * (seconds * hz % 1) / hz) * rng.standard_normal(160_000)
    return (0.02 * np.sin(2 * np.pi * 437.5 * seconds) + 0.1 * blow + noise * rng.standard_normal(160_000)).astype(
        np.float32
    )


def _apart(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    a, b = (view_vectors(sound, parts=False) for sound in (one, other))
    return {name: float(np.sqrt(np.mean((a[name] - b[name]) ** 2))) for name in a}


def test_movement_at_another_rate_shows_in_moving_views_and_not_in_steady_ones(rng: np.random.Generator) -> None:
    same, changed = _apart(_knocking(rng, 3), _knocking(rng, 3)), _apart(_knocking(rng, 3), _knocking(rng, 7))
    for name in ("moving-rhythm", "moving-texture"):
        assert changed[name] > 3 * same[name], name
    assert changed["steady-quiet"] < 3 * same["steady-quiet"]


def test_a_hum_at_another_pitch_shows_in_every_steady_view(rng: np.random.Generator) -> None:
    seconds = np.arange(160_000) / 16_000
    low, again, high = (
        (0.05 * np.sin(2 * np.pi * hz * seconds) + 0.01 * rng.standard_normal(160_000)).astype(np.float32)
        for hz in (437.5, 437.5, 900)
    )
    same, changed = _apart(low, again), _apart(low, high)
    for name in STEADY_VIEWS:
        assert changed[name] > 4 * same[name], name


def test_bursts_of_foreign_noise_leave_the_steady_views_where_they_are(rng: np.random.Generator) -> None:
    """The level is that of the steady part: foreign noise that comes and goes does not move it."""
    hum = (0.05 * np.sin(2 * np.pi * 437.5 * np.arange(160_000) / 16_000)).astype(np.float32)
    hum += 0.01 * rng.standard_normal(160_000).astype(np.float32)
    noisy = hum + (0.3 * rng.standard_normal(160_000) * (np.arange(160_000) % 32_000 < 12_000)).astype(np.float32)
    quiet, loud = (LevelledLogMels.of(sound).steady[:, 10:30].mean() for sound in (hum, noisy))
    assert abs(quiet - loud) < 0.5  # nepers
