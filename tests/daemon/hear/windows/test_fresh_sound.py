"""Sound of overlapping windows is taken once, sample by sample; windows that stand alone are taken whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from asd_daemon.hear.windows.fresh_sound import FreshSound
from asd_daemon.hear.windows.window import Window

START = datetime(2026, 1, 31, tzinfo=UTC)
SOUND = np.arange(5 * 160_000, dtype=np.float32)


def window(first_sample: int, late_s: float = 0.0, *, gap_samples: int = 0, padded_samples: int = 0) -> Window:
    at = START + timedelta(seconds=first_sample / 16_000 + late_s)
    return Window(SOUND[first_sample : first_sample + 160_000], at, gap_samples, padded_samples)


def test_overlapping_windows_give_every_sample_once_whenever_blocks_come() -> None:
    fresh = FreshSound(hop_samples=40_000)
    jitter_s = (0.0, 0.1, -0.1, 0.05)
    parts = [fresh.of(window(40_000 * n, late_s)) for n, late_s in enumerate(jitter_s)]
    assert np.array_equal(np.concatenate(parts), SOUND[: 160_000 + 3 * 40_000])


def test_window_after_an_interruption_is_fresh_as_a_whole() -> None:
    fresh = FreshSound(hop_samples=40_000)
    fresh.of(window(0))
    assert np.array_equal(fresh.of(window(320_000)), SOUND[320_000:480_000])


def test_padding_and_what_is_missing_are_no_sound() -> None:
    assert len(FreshSound().of(window(0, padded_samples=60_000))) == 100_000
    assert len(FreshSound().of(window(0, gap_samples=50_000))) == 110_000
    assert len(FreshSound().of(window(0, gap_samples=400_000))) == 0
