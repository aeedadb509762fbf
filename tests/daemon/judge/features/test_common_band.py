"""The band that is judged: what lies above it never shows, nothing in it is dead, and what is below is as it was."""

from __future__ import annotations

import numpy as np
import soxr

from asd_daemon.judge.features.common_band import COMMON_BANDS, common_mel
from asd_daemon.judge.features.log_mel import log_mel
from asd_daemon.judge.features.views import VIEW_NAMES, view_vectors
from asd_daemon.waveform import WINDOW_SAMPLES

NOISE = np.random.default_rng(5).normal(0, 0.05, WINDOW_SAMPLES).astype(np.float32)


def low_passed(sound: np.ndarray, end_hz: float) -> np.ndarray:
    spectrum = np.fft.rfft(sound)
    hz = np.fft.rfftfreq(sound.shape[0], 1 / 16_000)
    return np.asarray(np.fft.irfft(spectrum * (hz < end_hz), sound.shape[0]), np.float32)


def test_bands_above_repeat_the_last_one_below_and_the_rest_stays() -> None:
    mel = log_mel(NOISE)
    judged = common_mel(mel)
    assert COMMON_BANDS == 121
    assert np.array_equal(judged[:, :121], mel[:, :121])
    assert np.array_equal(judged[:, 121:], np.repeat(mel[:, 120:121], 7, axis=1))


def test_no_view_hears_what_lies_above_the_common_band() -> None:
    full = view_vectors(NOISE)
    for name, vectors in view_vectors(low_passed(NOISE, 7050)).items():
        assert np.abs(vectors - full[name]).max() < 0.02 * np.abs(full[name]).max(), name
    assert set(full) == set(VIEW_NAMES)


def test_no_band_is_dead_whatever_the_resampler_has_left_of_it() -> None:
    rolled_off = soxr.resample(soxr.resample(NOISE, 16_000, 22_050), 22_050, 16_000)
    mel = log_mel(rolled_off)
    assert mel[:, 127].max() < log_mel(NOISE)[:, 127].min(), "this is what must not show"
    judged = common_mel(mel)
    assert abs(judged[:, 110:].mean() - judged[:, 100:110].mean()) < 1
