"""The log-mel against kaldi-native-fbank, sound by sound and length by length."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from asd_daemon.errors import RecordingError
from asd_daemon.judge.features import log_mel as mel
from asd_daemon.judge.features.power_spectrum import POWER_SCALE, power_spectra
from asd_daemon.waveform import WINDOW_SAMPLES, read_waveform

F32 = NDArray[np.float32]

TOLERANCE = 1e-3  # log scale, maximum absolute difference
SHARED_AUDIO = Path(__file__).resolve().parents[4].parent / "shared" / "audio"


def kaldi(waveform: F32) -> F32:
    """The reference: the same clip, its mean removed, through kaldi-native-fbank."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = 16_000
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hanning"
    options.mel_opts.num_bins = 128
    options.use_energy = False
    options.htk_compat = True
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(16_000, (waveform - waveform.mean()).tolist())
    bank.input_finished()
    return np.stack([bank.get_frame(frame) for frame in range(bank.num_frames_ready)])


def difference(waveform: F32) -> float:
    ours, reference = mel.log_mel(waveform), kaldi(waveform)
    assert ours.shape == reference.shape
    assert ours.dtype == np.float32
    return float(np.abs(ours - reference).max())


def _sound(formula: Callable[[NDArray[np.int64], np.random.Generator], NDArray[np.floating]]) -> F32:
    n = np.arange(WINDOW_SAMPLES)
    return formula(n, np.random.default_rng(7)).astype(np.float32)


SOUNDS: dict[str, Callable[[NDArray[np.int64], np.random.Generator], NDArray[np.floating]]] = {
    "noise": lambda n, rng: 0.1 * rng.standard_normal(n.size),
    "full-scale noise": lambda n, rng: rng.uniform(-1, 1, n.size),
    "silence": lambda n, rng: np.zeros(n.size),
    "constant": lambda n, rng: np.full(n.size, 0.7),
    "very quiet noise": lambda n, rng: 1e-5 * rng.standard_normal(n.size),
    "inaudible noise": lambda n, rng: 1e-9 * rng.standard_normal(n.size),
    "one bit of 16": lambda n, rng: np.sign(rng.standard_normal(n.size)) / 32768,
    "noise on a large offset": lambda n, rng: 0.9 + 1e-3 * rng.standard_normal(n.size),
    "clicks": lambda n, rng: np.where(n % 4001 == 7, 1.0, 0.0),
    "clicks in noise": lambda n, rng: np.where(n % 1999 == 3, -1.0, 0.0) + 1e-3 * rng.standard_normal(n.size),
    "chirp": lambda n, rng: np.sin(2 * np.pi * (50 * n / 16_000 + 395 * (n / 16_000) ** 2)),
    "square 100.3 Hz": lambda n, rng: np.sign(np.sin(2 * np.pi * 100.3 / 16_000 * n)),
    "square 3 Hz": lambda n, rng: np.sign(np.sin(2 * np.pi * 3 / 16_000 * n)),
    "sawtooth": lambda n, rng: 2 * ((n * 0.0123) % 1) - 1,
    "step": lambda n, rng: np.where(n > 80_000, 1.0, -1.0),
    "loud, then quiet": lambda n, rng: np.where(n < 80_000, 0.5, 1e-4) * rng.standard_normal(n.size),
    "alternating": lambda n, rng: np.where(n % 2 == 0, 1.0, -1.0),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_log_mel_of_a_made_sound_equals_kaldi(name: str) -> None:
    assert difference(_sound(SOUNDS[name])) <= TOLERANCE


@pytest.mark.parametrize("amplitude", [0.003, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("hz", [20, 50, 440, 763.9437268410977, 1000, 1234.5, 3995, 7900])
def test_log_mel_of_a_tone_equals_kaldi(hz: float, amplitude: float) -> None:
    """Far from the tone Kaldi shows the rounding of its own FFT: an exact FFT is off by up to 1e-2 here."""
    assert difference(_sound(lambda n, rng: amplitude * np.sin(2 * np.pi * hz / 16_000 * n))) <= TOLERANCE


@given(
    samples=st.integers(400, 40_000),
    seed=st.integers(0, 2**32 - 1),
    level=st.sampled_from([1.0, 0.1, 1e-3, 1e-6]),
    tone=st.floats(0, 3.1),
)
@settings(max_examples=60, deadline=None)
def test_log_mel_of_any_length_equals_kaldi(samples: int, seed: int, level: float, tone: float) -> None:
    noise = np.random.default_rng(seed).standard_normal(samples)
    waveform = (level * (0.1 * noise + 0.5 * np.sin(tone * np.arange(samples)))).astype(np.float32)
    assert difference(waveform) <= TOLERANCE


@pytest.mark.parametrize(
    "samples", [400, 401, 559, 560, 561, 719, 720, 144 * 160 + 239, 144 * 160 + 240, 144 * 160 + 400, 480_000]
)
def test_log_mel_at_the_edges_of_frames_and_blocks_equals_kaldi(samples: int) -> None:
    waveform = np.random.default_rng(samples).uniform(-1, 1, samples).astype(np.float32)
    assert mel.log_mel(waveform).shape == (1 + (samples - 400) // 160, 128)
    assert difference(waveform) <= TOLERANCE


def test_log_mel_of_recordings_equals_kaldi() -> None:
    recordings = [
        *sorted(SHARED_AUDIO.glob("dcase2023_clips/*/*/*.wav"))[::3],
        *sorted(SHARED_AUDIO.glob("general/*.ogg"))[::100],
        *sorted(SHARED_AUDIO.glob("vroom/*"))[::10],
    ]
    if not recordings:
        pytest.skip("no recordings in ../shared/audio")
    worst = max((difference(read_waveform(path)), path.name) for path in recordings)
    assert worst[0] <= TOLERANCE, worst


def test_log_mel_of_ten_seconds_has_998_frames_and_one_empty_band() -> None:
    features = mel.log_mel(_sound(SOUNDS["noise"]))
    assert features.shape == (998, 128)
    empty = np.flatnonzero((features == np.log(np.float32(mel.ENERGY_FLOOR))).all(axis=0))
    assert empty.tolist() == [3]  # 65 Hz lies between the bins at 62.5 and 93.75 Hz


@pytest.mark.parametrize("shape", [(399,), (0,), (2, 16_000)])
def test_log_mel_of_less_than_a_frame_or_two_channels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(RecordingError, match="at least 400 samples"):
        mel.log_mel(np.zeros(shape, np.float32))


def test_log_mel_leaves_its_input_alone_and_takes_views_and_doubles() -> None:
    stereo = np.random.default_rng(3).uniform(-1, 1, (20_000, 2)).astype(np.float32)
    before, view = stereo.copy(), stereo[:, 0]
    expected = mel.log_mel(np.ascontiguousarray(view))
    assert np.array_equal(mel.log_mel(view), expected)
    assert np.array_equal(mel.log_mel(view.astype(np.float64)), expected)
    assert np.array_equal(stereo, before)


def test_log_mel_in_two_threads_gives_what_one_gives() -> None:
    clips = np.random.default_rng(5).uniform(-1, 1, (8, 48_000)).astype(np.float32)
    expected = [mel.log_mel(clip) for clip in clips]
    found: dict[int, list[F32]] = {}

    def analyse(thread: int) -> None:
        found[thread] = [mel.log_mel(clip) for clip in clips for _ in range(5)]

    threads = [threading.Thread(target=analyse, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results in found.values():
        assert all(np.array_equal(result, expected[i // 5]) for i, result in enumerate(results))
    assert len(found) == 2


def test_two_clips_analysed_in_turns_do_not_disturb_each_other() -> None:
    first, second = (np.random.default_rng(seed).uniform(-1, 1, 40_000).astype(np.float32) for seed in (1, 2))
    expected = [power.copy() for _, power in power_spectra(first, np.float32(0))]
    found = []
    for (_, power), _ in zip(power_spectra(first, np.float32(0)), power_spectra(second, np.float32(0)), strict=True):
        found.append(power.copy())
    assert len(found) > 1
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_threads_that_analyse_one_after_the_other_share_their_memory() -> None:
    waveform = np.random.default_rng(1).uniform(-1, 1, 4_000).astype(np.float32)
    used: set[int] = set()

    def analyse() -> None:
        used.update(power.ctypes.data for _, power in power_spectra(waveform, np.float32(0)))

    for _ in range(20):
        thread = threading.Thread(target=analyse)
        thread.start()
        thread.join()
    assert len(used) == 1


def test_power_spectra_of_noise_equal_a_double_precision_fft() -> None:
    waveform = np.random.default_rng(1).uniform(-1, 1, 30_000).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(waveform.astype(np.float64), 400)[::160]
    frames = frames - frames.mean(axis=1, keepdims=True)
    emphasised = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    expected = np.abs(np.fft.rfft(emphasised * np.hanning(400), 512, axis=1)) ** 2
    found = np.concatenate([power.T.copy() for _, power in power_spectra(waveform, np.float32(0))]) / POWER_SCALE
    np.testing.assert_allclose(found, expected[:, 1:256], rtol=1e-3, atol=1e-6)


def test_filters_are_triangles_that_share_their_feet() -> None:
    weights = mel.filter_weights()
    assert weights.shape == (255, 128)
    assert ((weights >= 0) & (weights <= 1)).all()
    between_the_centres = weights[4:-8].sum(axis=1)  # neighbouring triangles add up to one
    assert np.abs(between_the_centres - 1).max() < 1e-3


def test_eat_input_pads_raw_zeros_and_cuts() -> None:
    long = np.random.default_rng(2).standard_normal((1030, 128)).astype(np.float32)
    expected = (long.astype(np.float64) + 4.268) / 9.138
    np.testing.assert_allclose(mel.eat_input(long), expected[:1024], atol=1e-6)
    short = mel.eat_input(long[:998])
    np.testing.assert_allclose(short[:998], expected[:998], atol=1e-6)
    np.testing.assert_allclose(short[998:], 4.268 / 9.138, atol=1e-6)
    assert short.shape == (1024, 128)
    assert short.dtype == np.float32
