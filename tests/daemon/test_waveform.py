"""Reading sound files: formats, rates, channels, and one clear line for each that can't be used."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from asd_daemon.errors import RecordingError
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_SAMPLES, fit_length, read_waveform, rms_level_dbfs


def tone(hz: float, rate_hz: int, seconds: float, amplitude: float = 0.5) -> NDArray[np.float64]:
    time_s = np.arange(int(seconds * rate_hz), dtype=np.float64) / rate_hz
    sound: NDArray[np.float64] = amplitude * np.sin(2 * np.pi * hz * time_s)
    return sound


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        ("wav", "PCM_U8", 1 / 128),
        ("wav", "PCM_16", 1 / 32768),
        ("wav", "PCM_24", 1e-6),
        ("wav", "PCM_32", 1e-6),
        ("wav", "FLOAT", 1e-7),
        ("wav", "DOUBLE", 1e-7),
        ("flac", "PCM_16", 1 / 32768),
        ("flac", "PCM_24", 1e-6),
        ("ogg", "VORBIS", 0.05),
    ],
)
def test_read_waveform_of_each_format_is_float32_within_its_resolution(
    tmp_path: Path, suffix: str, subtype: str, tolerance: float
) -> None:
    path, sound = tmp_path / f"clip.{suffix}", tone(440, SAMPLE_RATE_HZ, 1.0)
    soundfile.write(path, sound, SAMPLE_RATE_HZ, subtype=subtype)
    waveform = read_waveform(path)
    assert waveform.dtype == np.float32
    assert waveform.shape == (16_000,)
    assert np.abs(waveform - sound)[200:-200].max() <= tolerance


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_read_waveform_of_another_rate_is_the_same_sound_at_16_khz(tmp_path: Path, rate_hz: int) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, tone(440, rate_hz, 1.0), rate_hz, subtype="FLOAT")
    waveform = read_waveform(path)
    assert abs(waveform.shape[0] - 16_000) <= 1
    middle = slice(500, 15_500)
    assert np.abs(waveform[middle] - tone(440, SAMPLE_RATE_HZ, 1.0)[middle]).max() < 1e-3


def test_read_waveform_at_48_khz_does_not_fold_what_16_khz_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    soundfile.write(path, tone(12_000, 48_000, 1.0), 48_000, subtype="FLOAT")
    assert np.abs(read_waveform(path)[500:-500]).max() < 1e-3


def test_read_waveform_takes_the_channel_asked_for_and_never_averages(tmp_path: Path) -> None:
    path = tmp_path / "stereo.flac"
    left = tone(300, SAMPLE_RATE_HZ, 0.5)
    soundfile.write(path, np.stack([left, -left, 0 * left], axis=1), SAMPLE_RATE_HZ)
    assert np.abs(read_waveform(path) - left).max() < 1e-4
    assert np.abs(read_waveform(path, channel=1) + left).max() < 1e-4
    assert not read_waveform(path, channel=2).any()
    assert read_waveform(path, channel=1).flags.c_contiguous


@pytest.mark.parametrize("channel", [-1, 1, 7])
def test_read_waveform_of_a_channel_that_is_not_there_is_refused(tmp_path: Path, channel: int) -> None:
    path = tmp_path / "mono.wav"
    soundfile.write(path, np.zeros(100), SAMPLE_RATE_HZ)
    with pytest.raises(RecordingError, match=rf"mono\.wav: has 1 channel, no channel {channel}"):
        read_waveform(path, channel=channel)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_read_waveform_with_a_sample_that_is_no_number_is_refused_and_names_it(tmp_path: Path, bad: float) -> None:
    path, sound = tmp_path / "clip.wav", np.zeros(1000, np.float32)
    sound[637] = bad
    soundfile.write(path, sound, SAMPLE_RATE_HZ, subtype="FLOAT")
    with pytest.raises(RecordingError, match=rf"clip\.wav: sample 637 is {bad}"):
        read_waveform(path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.wav", b"", "can't be read as sound"),
        ("text.wav", b"this is no sound", "Format not recognised"),
        ("cut.wav", b"RIFF\x24\x00\x00\x00WAVE", "can't be read as sound"),
        ("headerless.raw", b"\x00" * 100, "can't be read as sound"),
    ],
)
def test_read_waveform_of_what_is_no_sound_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(RecordingError) as caught:
        read_waveform(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert reason in message
    assert message.count(str(path)) == 1
    assert "\n" not in message


def test_read_waveform_of_a_flac_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 16_000), SAMPLE_RATE_HZ)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RecordingError, match=r"clip\.flac"):
        read_waveform(path)


def test_read_waveform_of_no_samples_too_few_samples_folders_and_missing_files_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(0), SAMPLE_RATE_HZ)
    soundfile.write(tmp_path / "one.wav", np.zeros(1), 96_000)
    for path, reason in [
        (tmp_path / "none.wav", r"0 samples"),
        (tmp_path / "one.wav", r"too short \(1 samples at 96000 Hz\)"),
        (tmp_path, "it is a folder"),
        (tmp_path / "gone.wav", "there is no such file"),
    ]:
        with pytest.raises(RecordingError, match=reason):
            read_waveform(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_read_waveform_without_the_right_to_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "secret.wav"
    soundfile.write(path, np.zeros(100), SAMPLE_RATE_HZ)
    path.chmod(0)
    with pytest.raises(RecordingError, match="no right to read it"):
        read_waveform(path)


@given(length=st.integers(0, 500), samples=st.integers(1, 500))
def test_fit_length_repeats_from_the_beginning_or_cuts(length: int, samples: int) -> None:
    waveform = np.arange(1, length + 1, dtype=np.float32)
    fitted = fit_length(waveform, samples)
    assert fitted.shape == (samples,)
    assert fitted.dtype == np.float32
    assert np.array_equal(fitted[:length], waveform[:samples])
    assert length == 0 or all(fitted[n] == waveform[n % length] for n in range(samples))


def test_fit_length_makes_windows_of_ten_seconds() -> None:
    assert WINDOW_SAMPLES == 160_000
    assert fit_length(np.ones(3, np.float32)).shape == (160_000,)
    assert fit_length(np.ones(192_000, np.float32)).shape == (160_000,)


def test_level_is_the_root_mean_square_in_db_below_full_scale() -> None:
    t = np.arange(16_000) / 16_000
    sine = np.sin(2 * np.pi * 100 * t).astype(np.float32)
    assert rms_level_dbfs(sine) == pytest.approx(-3.01, abs=0.01)
    assert rms_level_dbfs(np.zeros(10, np.float32)) == -200
