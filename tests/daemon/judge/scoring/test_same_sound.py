"""The same sound gets the same score whatever it came as: rate, resampler, channels, format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from asd_daemon.hear.simulator import SimulatedMachine
from asd_daemon.hear.simulator.scene import DOMAINS, SceneStream, draw_scene
from asd_daemon.judge.distances.fusion import Candidate, Family, Fusion
from asd_daemon.judge.features.views import VIEW_NAMES, view_vectors
from asd_daemon.waveform import WINDOW_SAMPLES, fit_length, read_waveform

F32 = NDArray[np.float32]
MOST = 0.05  # of the threshold


@dataclass(frozen=True)
class Ear:
    """A machine judged by each view alone."""

    views: dict[str, Fusion]
    thresholds: dict[str, float]
    test: F32

    def scores(self, sound: F32) -> dict[str, float]:
        vectors = view_vectors(fit_length(sound), parts=False)
        return {view: float(fusion.score({view: vectors[view]})[0]) for view, fusion in self.views.items()}


@pytest.fixture(scope="module")
def ear() -> Ear:
    rng = np.random.default_rng(3)
    stream = SceneStream(SimulatedMachine("fan"), draw_scene(DOMAINS["fan"]["source"], rng), rng, 10.0)
    windows = np.stack([next(stream) for _ in range(25)])
    windows = np.asarray(0.5 * windows / np.abs(windows).max(), np.float32)
    described = [view_vectors(window) for window in windows[:-1]]
    views, thresholds = {}, {}
    for view in VIEW_NAMES:
        vectors = {view: np.stack([one[view] for one in described])}
        views[view], held_out = Fusion.fit_held_out([Family({Candidate(view): 1.0})], vectors, np.zeros(24, np.int64))
        thresholds[view] = float(held_out.max())
    return Ear(views, thresholds, windows[-1])


def by_soxr(sound: F32, rate_hz: int) -> F32:
    return np.asarray(soxr.resample(sound, 16_000, rate_hz, quality="HQ"), np.float32)


def by_fourier(sound: F32, rate_hz: int) -> F32:
    """Exact interpolation: nothing is lost up to 8 kHz."""
    count = sound.shape[0] * rate_hz // 16_000
    return np.asarray(np.fft.irfft(np.fft.rfft(sound), count) * (count / sound.shape[0]), np.float32)


def compare(ear: Ear, heard: F32) -> Iterator[tuple[str, float]]:
    expected, found = ear.scores(ear.test), ear.scores(heard)
    for view, score in expected.items():
        yield view, abs(found[view] - score) / ear.thresholds[view]


@pytest.mark.parametrize("interpolate", [by_soxr, by_fourier])
@pytest.mark.parametrize("rate_hz", [22_050, 32_000, 44_100, 48_000, 96_000])
def test_score_at_another_rate_is_that_at_16_khz(
    ear: Ear, interpolate: Callable[[F32, int], F32], rate_hz: int, tmp_path: Path
) -> None:
    file = tmp_path / "other.wav"
    soundfile.write(file, interpolate(ear.test, rate_hz), rate_hz, subtype="PCM_16")
    for view, difference in compare(ear, read_waveform(file)):
        assert difference < MOST, (view, difference)


@pytest.mark.parametrize("channel", [0, 1])
def test_score_of_one_of_two_channels_in_flac_is_that_of_it_alone(ear: Ear, channel: int, tmp_path: Path) -> None:
    file, other = tmp_path / "two.flac", np.random.default_rng(0).normal(0, 0.1, WINDOW_SAMPLES)
    pair = [ear.test, other] if channel == 0 else [other, ear.test]
    soundfile.write(file, np.stack([by_soxr(np.asarray(one, np.float32), 44_100) for one in pair], axis=1), 44_100)
    for view, difference in compare(ear, read_waveform(file, channel)):
        assert difference < MOST, (view, difference)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
def test_score_of_mp3_of_128_kbit_is_that_of_the_original(ear: Ear, rate_hz: int, tmp_path: Path) -> None:
    file = tmp_path / "lossy.mp3"
    least, most = (32, 320) if rate_hz >= 32_000 else (8, 160)  # of MPEG 1 and 2
    level = (most - 128) / (most - least)
    soundfile.write(file, by_soxr(ear.test, rate_hz), rate_hz, compression_level=level, bitrate_mode="CONSTANT")
    assert file.stat().st_size / 16_000 == pytest.approx(10, abs=1.5)
    for view, difference in compare(ear, read_waveform(file)[:WINDOW_SAMPLES]):
        assert difference < MOST, (view, difference)


@pytest.mark.parametrize("loudness", [0.3, 1.0, 3.0])
def test_score_of_one_of_two_channels_in_mp3_of_256_kbit_is_that_of_it_alone(
    ear: Ear, loudness: float, tmp_path: Path
) -> None:
    """128 kbit for two different channels is 64 for each, which single views hear (up to 30 % of a threshold, decision 15)."""
    file, rms = tmp_path / "lossy.mp3", float(np.sqrt(np.mean(np.square(ear.test))))
    other = np.random.default_rng(0).normal(0, loudness * rms, WINDOW_SAMPLES).astype(np.float32)
    pair = np.stack([by_soxr(ear.test, 44_100), np.clip(by_soxr(other, 44_100), -1, 1)], axis=1)
    level = (320 - 256) / (320 - 32)
    soundfile.write(file, pair, 44_100, compression_level=level, bitrate_mode="CONSTANT")
    for view, difference in compare(ear, read_waveform(file, 0)[:WINDOW_SAMPLES]):
        assert difference < MOST, (view, difference)


def test_score_of_what_is_low_passed_at_7_khz_is_that_of_the_original(ear: Ear) -> None:
    spectrum, hz = np.fft.rfft(ear.test), np.fft.rfftfreq(WINDOW_SAMPLES, 1 / 16_000)
    heard = np.asarray(np.fft.irfft(spectrum * (hz < 7_000), WINDOW_SAMPLES), np.float32)
    for view, difference in compare(ear, heard):
        assert difference < MOST, (view, difference)


@pytest.mark.parametrize("seconds", [7.5, 9.0, 9.9])
def test_a_shorter_piece_of_healthy_sound_is_healthy_to_every_view(ear: Ear, seconds: float) -> None:
    """Padded with zeros it would be some threshold or ten."""
    piece = ear.test[: round(seconds * 16_000)]
    found = ear.scores(piece)
    assert [view for view, score in found.items() if score > ear.thresholds[view]] == []
