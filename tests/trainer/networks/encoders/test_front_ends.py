"""Front ends against Kaldi, soxr, and the same arithmetic step by step in NumPy."""

from __future__ import annotations

import kaldi_native_fbank as kaldi
import numpy as np
import pytest
import soxr
import torch
from numpy.typing import NDArray

from asd_trainer.networks.encoders.front_ends import (
    DecibelFrontEnd,
    DoubledRateFrontEnd,
    KaldiFrontEnd,
    YamnetFrontEnd,
)

pytestmark = pytest.mark.torch

F64 = NDArray[np.float64]


@pytest.fixture(scope="module")
def window() -> NDArray[np.float32]:
    rng = np.random.default_rng(5)
    t = np.arange(160_000) / 16_000
    sweep = 0.2 * np.sin(2 * np.pi * (200 + 150 * t) * t)
    return (sweep + rng.normal(0, 0.01, t.size)).astype(np.float32)


def run(front_end: torch.nn.Module, window: NDArray[np.float32]) -> F64:
    with torch.inference_mode():
        return np.asarray(front_end(torch.from_numpy(window)[None])[0].numpy(), np.float64)


def test_kaldi_front_end_is_kaldis_filter_bank_of_16_bit_samples_normalised(window: NDArray[np.float32]) -> None:
    options = kaldi.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "povey"
    options.mel_opts.num_bins = 128
    computed = kaldi.OnlineFbank(options)
    computed.accept_waveform(16_000, (window * 2**15).tolist())
    computed.input_finished()
    fbank = np.stack([computed.get_frame(n) for n in range(computed.num_frames_ready)])
    expected = (fbank - 15.41663) / (2 * 6.55582)
    found = run(KaldiFrontEnd(), window)
    assert found.shape == (998, 128)
    np.testing.assert_allclose(found, expected, atol=2e-3)
    np.testing.assert_allclose(found.mean(), expected.mean(), atol=1e-5)


def centred_power(sound: F64, window: F64, hop: int) -> F64:
    """Power (frames, bins) of frames around every hop-th sample, the ends mirrored; one FFT a frame."""
    size = window.size
    padded = np.pad(sound, size // 2, mode="reflect")
    frames = [padded[start : start + size] * window for start in range(0, padded.size - size + 1, hop)]
    return np.asarray(np.abs(np.fft.rfft(frames)) ** 2, np.float64)


def triangles(edges: F64, at: F64) -> F64:
    """Filters (bands, bins) that rise from each edge to the next and fall to the one after."""
    filters = np.zeros((edges.size - 2, at.size))
    for band, (left, centre, right) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for place, x in enumerate(at):
            if left < x <= centre:
                filters[band, place] = (x - left) / (centre - left)
            elif centre < x < right:
                filters[band, place] = (right - x) / (right - centre)
    return filters


def test_decibel_front_end_is_htk_mel_in_decibel_not_more_than_120_below_the_loudest(
    window: NDArray[np.float32],
) -> None:
    quiet_end = window.copy()
    quiet_end[80_000:] = 0  # floor at -100 dB, where the range of 120 dB does not reach; the loudest frame is at 40
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    hz = np.arange(257) * 16_000 / 512
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 66) / 2595) - 1)
    mel = centred_power(quiet_end.astype(np.float64), hann, 160) @ triangles(edges, hz).T
    decibel = 10 * np.log10(np.maximum(mel, 1e-10))
    expected = np.maximum(decibel, decibel.max() - 120)
    found = run(DecibelFrontEnd(), quiet_end)
    assert found.shape == (1001, 64)
    assert (expected == decibel.max() - 120).any()
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_doubled_rate_front_end_is_efficientats_log_mel_at_32_khz(window: NDArray[np.float32]) -> None:
    front_end = DoubledRateFrontEnd()
    fast = front_end.doubled(torch.from_numpy(window)[None])[0].numpy()
    low = soxr.resample(soxr.resample(window, 16_000, 12_000), 12_000, 16_000).astype(np.float32)[:160_000]
    fast_low = front_end.doubled(torch.from_numpy(low)[None])[0].numpy()
    np.testing.assert_allclose(
        fast_low[2000:-2000], soxr.resample(low, 16_000, 32_000, quality="VHQ")[2000:-2000], atol=1e-4
    )
    emphasised = fast[1:].astype(np.float64) - 0.97 * fast[:-1]
    hann = np.zeros(1024)
    hann[112:912] = np.hanning(800)
    mel_of_bins = 1127 * np.log(1 + np.arange(513) * 32_000 / 1024 / 700)
    filters = triangles(np.linspace(0, 1127 * np.log(1 + 15_000 / 700), 130), mel_of_bins)
    expected = (np.log(centred_power(emphasised, hann, 320) @ filters.T + 1e-5) + 4.5) / 5
    found = run(front_end, window)
    assert found.shape == (1000, 128)
    np.testing.assert_allclose(found[:, :105], expected[:, :105], atol=2e-3)  # to 8.6 kHz
    np.testing.assert_allclose(
        found[2:-2], expected[2:-2], atol=0.1
    )  # above, little but the mirrored ends leaves a trace


def test_yamnet_front_end_gives_patches_of_log_mel_magnitudes(window: NDArray[np.float32]) -> None:
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([window[start : start + 400] * hann for start in range(0, 160_000 - 400 + 1, 160)])
    mel_of_bins = 1127 * np.log(1 + np.arange(257) * 16_000 / 512 / 700)
    low, high = (1127 * np.log(1 + hz / 700) for hz in (125, 7500))
    log_mel = np.log(np.abs(np.fft.rfft(frames, 512)) @ triangles(np.linspace(low, high, 66), mel_of_bins).T + 0.001)
    expected = np.stack([log_mel[start : start + 96] for start in range(0, log_mel.shape[0] - 95, 48)])
    found = run(YamnetFrontEnd(), window)
    assert found.shape == expected.shape == (19, 96, 64)
    np.testing.assert_allclose(found, expected, atol=1e-3)
