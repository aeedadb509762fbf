from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from asd_daemon.errors import RecordingError
from asd_trainer.networks.separator import SIZES, Separation, Separator, SeparatorSize
from asd_trainer.recipe.recipe import load_recipe, shipped_recipes
from asd_trainer.separate.losses import (
    CLAMP_DB,
    auxiliary_weight,
    separate,
    separation_loss,
    si_snr_db,
    snr_db,
    spectral_si_snr_db,
)
from asd_trainer.separate.stream import SeparationStream
from rig.ratios import si_sdr_db

pytestmark = pytest.mark.torch

SMALL = SeparatorSize(
    "small", "fourier", 64, 32, 33, 16, 2, heads=2, local_frames=5, reach_frames=40, dropout=0.0, layer_scale=0.1
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tones_and_hiss(seconds: float) -> NDArray[np.float32]:
    """A machine of two tones, one of them pulsing, under low-passed noise 5 dB louder: float32 (2, samples)."""
    rng = np.random.default_rng(0)
    time_s = np.arange(round(seconds * 16_000)) / 16_000
    machine = np.sin(2 * np.pi * 120 * time_s) + 0.5 * np.sin(2 * np.pi * 1370 * time_s) * (
        np.sin(2 * np.pi * 7 * time_s) > 0
    )
    hiss = np.convolve(rng.standard_normal(len(time_s) + 7), np.ones(8) / 8, "valid")
    hiss *= np.sqrt(np.mean(machine**2) / np.mean(hiss**2)) * 10 ** (5 / 20)
    return (0.05 * np.stack([machine, hiss])).astype(np.float32)


@pytest.fixture(scope="module")
def overfitted() -> Separator:
    """The edge size after it has seen one second of one mixture over and over."""
    torch.manual_seed(0)
    sources = torch.from_numpy(tones_and_hiss(1.0))[None]
    network = Separator(SIZES["edge"])
    optimiser = torch.optim.Adam(network.parameters(), 4e-3)
    steps = 120
    falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.1, steps)
    for _ in range(steps):
        loss = separation_loss(network.with_stages(sources.sum(dim=1)), sources, auxiliary=0.4)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        falling.step()
    return network.eval()


def test_si_snr_equals_formula_in_numpy() -> None:
    rng = np.random.default_rng(1)
    target = rng.standard_normal((3, 2, 500)) + 0.3
    estimate = 0.2 * target + rng.standard_normal((3, 2, 500)) * np.array([0.01, 0.1, 3.0])[:, None, None] - 1.0
    ours = si_snr_db(torch.from_numpy(estimate), torch.from_numpy(target)).numpy()
    for index in np.ndindex(3, 2):
        assert ours[index] == pytest.approx(si_sdr_db(estimate[index], target[index]), abs=1e-5)


def test_si_snr_of_scaled_or_shifted_estimate_is_the_same() -> None:
    target, estimate = noise(4, 900), noise(4, 900) + 0.5 * noise(4, 900, seed=1)
    reference = si_snr_db(estimate, target)
    torch.testing.assert_close(si_snr_db(-0.03 * estimate + 2.0, target), reference, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(si_snr_db(estimate, 40.0 * target - 1.0), reference, rtol=1e-4, atol=1e-3)


def test_snr_of_half_the_target_is_six_decibels() -> None:
    target = noise(2, 400)
    torch.testing.assert_close(snr_db(0.5 * target, target), torch.full((2,), 20 * math.log10(2.0)))


def test_si_snr_of_silent_target_is_finite_with_finite_gradient() -> None:
    estimate = noise(1, 300).requires_grad_()
    ratio = si_snr_db(estimate, torch.zeros(1, 300))
    torch.autograd.backward(ratio.sum())
    assert torch.isfinite(ratio).all()
    assert estimate.grad is not None
    assert torch.isfinite(estimate.grad).all()


def test_spectral_ratio_of_delayed_tone_is_high_where_the_waveform_ratio_is_low() -> None:
    tone = torch.sin(2 * math.pi * 40 / 512 * torch.arange(8192))  # 40 periods in a frame
    quarter_period_later = torch.sin(2 * math.pi * 40 / 512 * torch.arange(8192) - math.pi / 2)
    assert spectral_si_snr_db(quarter_period_later, tone, 512) > 40
    assert si_snr_db(quarter_period_later, tone) < -20


def test_spectral_ratio_equals_magnitudes_in_numpy() -> None:
    estimate, target = noise(2048), noise(2048, seed=1)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    spectra = [
        np.abs(
            np.stack([np.fft.rfft(window * sound.numpy()[start : start + 512]) for start in range(0, 2048 - 511, 256)])
        ).ravel()
        for sound in (estimate, target)
    ]
    assert spectral_si_snr_db(estimate, target, 512).item() == pytest.approx(si_sdr_db(*spectra), abs=1e-3)


def test_spectral_ratio_of_less_than_a_frame_is_refused() -> None:
    with pytest.raises(RecordingError, match="400 samples are too short"):
        spectral_si_snr_db(noise(400), noise(400), 512)


def test_loss_of_truth_is_the_clamp() -> None:
    sources = noise(2, 2, 4096)
    perfect = Separation(sources, (sources, sources))
    assert separation_loss(perfect, sources, auxiliary=0.4).item() == pytest.approx(-CLAMP_DB)


def test_loss_with_other_auxiliary_weight_moves_between_direct_and_spectral() -> None:
    sources, estimate, stage = noise(2, 2, 4096), noise(2, 2, 4096, seed=1), noise(2, 2, 4096, seed=2)
    separation = Separation(estimate, (stage,))
    direct = separation_loss(separation, sources, 0.0)
    spectral = separation_loss(separation, sources, 1.0)
    torch.testing.assert_close(direct, -0.5 * (si_snr_db(estimate, sources) + snr_db(estimate, sources)).mean())
    resolutions = [spectral_si_snr_db(stage, sources, frame).mean() for frame in (512, 2048)]
    torch.testing.assert_close(spectral, -0.5 * (resolutions[0] + resolutions[1]))
    torch.testing.assert_close(separation_loss(separation, sources, 0.4), 0.6 * direct + 0.4 * spectral)


def test_loss_of_swapped_outputs_is_worse() -> None:
    sources = noise(1, 2, 4096)
    estimate = sources + 0.1 * noise(1, 2, 4096, seed=1)
    right = separation_loss(Separation(estimate, ()), sources, 0.4)
    assert right < separation_loss(Separation(estimate.flip(1), ()), sources, 0.4) - 10


def test_auxiliary_weight_fades_every_five_epochs_after_a_hundred() -> None:
    assert [auxiliary_weight(epoch, 200) for epoch in (0, 99)] == [0.4, 0.4]
    assert [auxiliary_weight(epoch, 200) for epoch in (100, 104, 105, 112)] == pytest.approx(
        [0.32, 0.32, 0.256, 0.2048]
    )


def test_auxiliary_heads_fade_within_the_steps_of_every_recipe() -> None:
    for name in shipped_recipes():
        steps = load_recipe(name).separate.steps
        assert auxiliary_weight(steps // 2 - 1, steps) == 0.4
        assert auxiliary_weight(steps - 1, steps) < 0.01


def test_edge_size_on_one_mixture_overfits_beyond_25_db(overfitted: Separator) -> None:
    sources = tones_and_hiss(1.0)
    separated = separate(overfitted, sources.sum(axis=0))
    assert si_sdr_db(separated[0], sources[0]) > 25.0
    assert si_sdr_db(separated[1], sources[1]) > 25.0


def test_separated_machine_keeps_its_level(overfitted: Separator) -> None:
    sources = 0.05 * tones_and_hiss(1.0)
    separated = separate(overfitted, sources.sum(axis=0))
    assert 20 * np.log10(np.std(separated[0]) / np.std(sources[0])) == pytest.approx(0.0, abs=0.3)


def test_separate_leaves_training_mode_as_it_was() -> None:
    network = Separator(SMALL).train()
    separate(network, noise(1000).numpy())
    assert network.training


@pytest.mark.parametrize(
    ("recording", "complaint"),
    [
        (np.zeros(16_000, np.float32), "all 16000 samples are zero"),
        (np.ones(100, np.float32), "100 samples .* too short"),
        (np.r_[np.ones(9000), np.nan, np.ones(9000)].astype(np.float32), "sample 9000 is nan"),
        (np.r_[np.ones(900), -np.inf, np.ones(9000)].astype(np.float32), "sample 900 is -inf"),
        (np.ones((2, 16_000), np.float32), r"shape \(2, 16000\)"),
    ],
    ids=["silent", "short", "nan", "infinite", "stereo"],
)
def test_separate_of_bad_recording_names_what_is_wrong(recording: NDArray[np.float32], complaint: str) -> None:
    with pytest.raises(RecordingError, match=complaint):
        separate(Separator(SIZES["edge"]), recording)


@pytest.mark.parametrize("block", [1, 333, 4000, 100_000])
def test_stream_of_any_blocks_gives_all_samples_that_sum_to_the_sound(block: int) -> None:
    torch.manual_seed(0)
    stream = SeparationStream(Separator(SMALL), piece_samples=1000, context_samples=400)
    sound = noise(5_017).numpy() if block > 1 else noise(1_417).numpy()
    given = [stream.feed(sound[start : start + block]) for start in range(0, len(sound), block)]
    sources = np.concatenate([*given, stream.flush()], axis=1)
    assert sources.shape == (2, len(sound))
    np.testing.assert_allclose(sources.sum(axis=0), sound, atol=1e-5)


def test_stream_with_context_of_everything_equals_the_whole() -> None:
    torch.manual_seed(0)
    network, sound = Separator(SMALL).eval(), noise(3000).numpy()
    stream = SeparationStream(network, piece_samples=3000, context_samples=3000)
    assert stream.feed(sound).shape == (2, 0)
    np.testing.assert_allclose(stream.flush(), separate(network, sound), atol=1e-6)


def test_stream_of_overfitted_network_is_the_whole_within_tolerance(overfitted: Separator) -> None:
    sources = tones_and_hiss(6.0)
    mixture = sources.sum(axis=0)
    stream = SeparationStream(overfitted, piece_samples=16_000, context_samples=16_000)
    streamed = np.concatenate([stream.feed(mixture), stream.flush()], axis=1)
    whole = separate(overfitted, mixture)
    assert si_sdr_db(streamed[0], whole[0]) > 10.0
    assert si_sdr_db(streamed[0], sources[0]) > si_sdr_db(whole[0], sources[0]) - 1.0


def test_stream_of_pause_is_silence_and_goes_on() -> None:
    torch.manual_seed(0)
    stream = SeparationStream(Separator(SMALL), piece_samples=500, context_samples=400)
    quiet = stream.feed(np.zeros(5000, np.float32))
    assert quiet.shape[1] == 4500
    assert not quiet.any()
    assert stream.feed(noise(2000).numpy()).any()


def test_stream_of_nan_is_refused() -> None:
    stream = SeparationStream(Separator(SMALL), piece_samples=500, context_samples=400)
    with pytest.raises(RecordingError, match="stream: sample 3 is nan"):
        stream.feed(np.array([0, 0, 0, np.nan], np.float32))


def test_stream_with_context_below_the_network_is_refused() -> None:
    with pytest.raises(ValueError, match="context of 10 samples"):
        SeparationStream(Separator(SMALL), piece_samples=500, context_samples=10)
