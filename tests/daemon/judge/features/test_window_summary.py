"""Figures of windows whose figures are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.judge.features.window_summary import ENVELOPE_BANDS_HZ, FIRST_LAG, LAG_S, TONE_HZ, summarise

F32 = NDArray[np.float32]
N = 160_000
TIME_S = np.arange(N) / 16_000


def hiss(seed: int, level: float = 0.02) -> F32:
    return np.random.default_rng(seed).normal(0, level, N).astype(np.float32)


def rung_at(times_s: NDArray[np.floating], hz: float = 4000, level: float = 0.5) -> F32:
    """Blows that ring at one frequency for some milliseconds."""
    sound = np.zeros(N + 800)
    ring = level * np.exp(-np.arange(800) / 32) * np.sin(2 * np.pi * hz * np.arange(800) / 16_000)
    for at in (times_s * 16_000).astype(int):
        sound[at : at + 800] += ring
    return sound[:N].astype(np.float32)


@pytest.mark.parametrize("hz", [400.0, 1000.0, 2000.0, 4000.0])
def test_envelope_of_a_tone_lies_in_its_band_at_its_level(hz: float) -> None:
    levels = summarise((0.1 * np.sin(2 * np.pi * hz * TIME_S)).astype(np.float32)).envelopes_db
    own = next(i for i, (low, high) in enumerate(ENVELOPE_BANDS_HZ) if low <= hz < high)
    np.testing.assert_allclose(levels[own], 10 * np.log10(0.1**2 / 2), atol=0.2)
    assert (np.delete(levels, own, axis=0)[:, 3] < -50).all()


@pytest.mark.parametrize("rate_hz", [2.0, 14.3, 83.1])
def test_depth_of_modulation_is_the_one_put_in(rate_hz: float) -> None:
    swelling = (hiss(1) * (1 + 0.5 * np.cos(2 * np.pi * rate_hz * TIME_S))).astype(np.float32)
    depths = summarise(swelling).modulation[3, 5:]
    assert (int(np.argmax(depths)) + 5) / 10 == pytest.approx(rate_hz, abs=0.11)
    assert depths.max() == pytest.approx(0.5, rel=0.2)


def test_blows_are_alike_and_bursts_of_noise_are_not() -> None:
    times_s = np.arange(0.05, 9.9, 0.1)
    gate = np.zeros(N)
    for at in (times_s * 16_000).astype(int):
        gate[at : at + 160] = 1
    blows, bursts = summarise(hiss(1) + rung_at(times_s)), summarise(hiss(1) + (hiss(2, 0.3) * gate).astype(np.float32))
    assert blows.likeness[3] > 0.8
    assert bursts.likeness[3] < 0.5


def test_tone_stands_out_on_its_line_and_hiss_nowhere() -> None:
    window = summarise(hiss(1) + (0.01 * np.sin(2 * np.pi * 1234 * TIME_S)).astype(np.float32))
    assert int(np.argmax(window.tones_db)) * TONE_HZ == pytest.approx(1234, abs=TONE_HZ)
    assert window.tones_db.max() > 15
    assert summarise(hiss(1)).tones_db[5:].max() < 6


def test_repetition_is_highest_at_the_period_of_the_strokes() -> None:
    window = summarise(hiss(1) + rung_at(np.arange(0.3, 9.9, 0.9)))
    assert window.repetition.max() > 0.6
    assert (int(np.argmax(window.repetition[:100])) + FIRST_LAG) * LAG_S == pytest.approx(0.9, abs=0.011)


def test_silence_and_full_scale_have_figures_too() -> None:
    for window in (np.zeros(N, np.float32), np.ones(N, np.float32)):
        summary = summarise(window)
        assert all(np.isfinite(value).all() for value in vars(summary).values())
