"""Augmentation against what the same treatment of the sound itself gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from asd_daemon.judge.features.log_mel import eat_input, log_mel
from asd_trainer.data.features import LOG_FLOOR
from asd_trainer.finetune.augmentation import add_noise, draw_plan, mix_powers, render
from asd_trainer.finetune.background import Background
from asd_trainer.recipe.embedder import AugmentRecipe

NOTHING = AugmentRecipe(mixup_probability=0, gain_db=0, roll=False, mask_probability=0)


def log_mels(clips: int = 6, frames: int = 998) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(-8, 1, (clips, frames, 128)).astype(np.float32)


def rendered(settings: AugmentRecipe, seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All clips of a cache without and with augmentation, as (clips, 998, 128) in the log domain."""
    cache = log_mels()
    plan = draw_plan(np.arange(6), 998, settings, 1.0, np.random.default_rng(seed))
    return cache, render(plan, cache).numpy()[:, :998] * np.float32(2 * 4.569) - np.float32(4.268)


def test_rendering_without_augmentation_is_the_edge_input() -> None:
    cache = log_mels()
    plan = draw_plan(np.arange(6), 998, NOTHING, 1.0, np.random.default_rng(0))
    assert plan.kept is None
    np.testing.assert_allclose(render(plan, cache).numpy(), [eat_input(clip) for clip in cache], rtol=0, atol=1e-6)


def test_gain_moves_a_log_mel_as_it_moves_the_sound() -> None:
    sound = (0.1 * np.random.default_rng(2).standard_normal(16_000)).astype(np.float32)
    cache = log_mel(sound)[None]
    plan = draw_plan(np.array([0]), 98, NOTHING.model_copy(update={"gain_db": 12.0}), 1.0, np.random.default_rng(4))
    gain_db = float(plan.gains_db[0, 0])
    assert abs(gain_db) > 1
    expected = eat_input(log_mel((sound * 10 ** (gain_db / 20)).astype(np.float32)))
    np.testing.assert_allclose(render(plan, cache).numpy()[0], expected, atol=1e-4)


def test_gain_never_goes_below_the_floor_of_the_feature() -> None:
    cache = np.full((1, 98, 128), LOG_FLOOR, np.float32)
    plan = draw_plan(np.array([0]), 98, NOTHING.model_copy(update={"gain_db": 40.0}), 1.0, np.random.default_rng(1))
    plan.gains_db[:] = -30.0
    np.testing.assert_allclose(render(plan, cache).numpy()[0], eat_input(cache[0]), atol=1e-6)


def test_mixing_log_mels_is_mixing_independent_sounds() -> None:
    rng = np.random.default_rng(5)
    noise, other = (0.1 * rng.standard_normal((2, 160_000))).astype(np.float32)
    other *= 0.3
    mixed = log_mel((0.7 * noise + 0.3 * other).astype(np.float32))
    first, second = (log_mel(sound) for sound in (noise, other))
    predicted = mix_powers(first, second, 0.7)
    np.testing.assert_allclose(predicted.mean(), mixed.mean(), atol=0.02)


def test_mixing_equals_the_formula() -> None:
    clip, partner = log_mels(2)
    for share in (0.25, 0.9):
        expected = np.logaddexp(clip + 2 * np.log(share), partner + 2 * np.log(1 - share))
        np.testing.assert_allclose(mix_powers(clip, partner, share), expected, rtol=1e-5)


def test_roll_rotates_each_clip_by_its_own_offset() -> None:
    cache, moved = rendered(NOTHING.model_copy(update={"roll": True}))
    plan = draw_plan(np.arange(6), 998, NOTHING.model_copy(update={"roll": True}), 1.0, np.random.default_rng(1))
    assert len(set(plan.rolls[:, 0].tolist())) > 1
    for before, after, roll in zip(cache, moved, plan.rolls[:, 0], strict=True):
        np.testing.assert_allclose(after, np.roll(before, roll, axis=0), atol=1e-4)


def test_masks_blank_a_span_of_time_and_a_span_of_bins_and_leave_the_rest() -> None:
    settings = NOTHING.model_copy(update={"mask_probability": 1.0})
    cache, masked = rendered(settings)
    plan = draw_plan(np.arange(6), 998, settings, 1.0, np.random.default_rng(1))
    assert (plan.masks[:, 1] - plan.masks[:, 0]).max() > 0
    for before, after, (t0, t1, f0, f1) in zip(cache, masked, plan.masks, strict=True):
        assert t1 - t0 <= 80
        assert f1 - f0 <= 80
        hidden = np.zeros((998, 128), bool)
        hidden[t0:t1] = hidden[:, f0:f1] = True
        np.testing.assert_allclose(after[~hidden], before[~hidden], atol=1e-4)
        np.testing.assert_allclose(after[hidden], before.mean(), atol=0.3)


@pytest.mark.parametrize("kept", [0.2, 0.5])
def test_kept_patches_are_different_ones_for_each_clip_and_none_twice(kept: float) -> None:
    plan = draw_plan(np.arange(6), 998, NOTHING, kept, np.random.default_rng(1))
    assert plan.kept is not None
    assert plan.kept.shape == (6, round(512 * kept))
    assert all(len(set(row.tolist())) == len(row) for row in plan.kept)
    assert plan.kept.min() >= 0
    assert plan.kept.max() < 512
    assert (plan.kept[0] != plan.kept[1]).any()


def test_parts_of_a_plan_give_what_the_whole_plan_gives() -> None:
    cache = log_mels()
    plan = draw_plan(np.arange(6), 998, AugmentRecipe(mixup_probability=1.0), 0.5, np.random.default_rng(1))
    whole = render(plan, cache)
    for rank in range(2):
        part = plan.part(rank, 2)
        assert torch.equal(render(part, cache), whole[rank::2])
        assert part.kept is not None
        assert plan.kept is not None
        np.testing.assert_array_equal(part.kept, plan.kept[rank::2])


NOISY = NOTHING.model_copy(update={"noise_probability": 1.0, "noise_snr_db": (0.0, 10.0)})


def background(choices: int = 3) -> Background:
    sound = np.random.default_rng(8).normal(-6, 2, (3, 998, 128)).astype(np.float32)
    return Background((), sound, (np.arange(choices),) * 6)


def tilted(rng: np.random.Generator, slope: float) -> NDArray[np.float32]:
    """Noise whose spectrum falls (slope > 0) or rises, float32 (160 000,)."""
    spectrum = np.fft.rfft(rng.standard_normal(160_000))
    spectrum *= (1.0 + np.arange(spectrum.size)) ** -slope
    sound = np.fft.irfft(spectrum)
    return np.asarray(0.1 * sound / sound.std(), np.float32)


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 5.0, 20.0])
def test_noise_added_to_a_log_mel_is_noise_added_to_the_sound(snr_db: float) -> None:
    rng = np.random.default_rng(9)
    time_s = np.arange(160_000) / 16_000
    hum = np.sum([np.sin(2 * np.pi * 120 * k * time_s + k) / k for k in range(1, 40)], axis=0)
    machine = np.asarray(0.05 * hum + 0.3 * tilted(rng, 0.3), np.float32)
    for noise in (tilted(rng, 0.5), tilted(rng, 0.0), 0.1 * tilted(rng, -0.3)):
        clip, other = log_mel(machine), log_mel(noise)
        gain = np.sqrt(np.exp(clip).mean() / np.exp(other).mean() / 10 ** (snr_db / 10))
        true = log_mel((machine + gain * noise).astype(np.float32))
        added = add_noise(clip, other, snr_db)
        assert 0 <= float((added - true).mean()) < 0.2
        # Powers over time, band by band: what a machine's steady sound is known by. Without the noise they would be far off.
        expected, found, without = (np.log(np.exp(sound).mean(axis=0)) for sound in (true, added, clip))
        error = float(np.abs(found - expected).mean())
        assert error < 0.03
        assert error < 0.4 * float(np.abs(without - expected).mean())


def test_noise_is_as_loud_as_its_ratio_says_and_silence_adds_nothing() -> None:
    clip, noise = log_mels(2)
    for snr_db in (-10.0, 0.0, 13.0):
        added = np.exp(add_noise(clip, noise, snr_db).astype(np.float64)) - np.exp(clip.astype(np.float64))
        assert 10 * np.log10(np.exp(clip.astype(np.float64)).mean() / added.mean()) == pytest.approx(snr_db, abs=0.01)
    silent = np.full_like(clip, LOG_FLOOR)
    np.testing.assert_array_equal(add_noise(clip, silent, -20.0), clip)
    half = noise.copy()
    half[499:] = LOG_FLOOR  # a short clip, filled up with silence: nothing is added there
    np.testing.assert_allclose(add_noise(clip, half, 0.0)[499:], clip[499:], atol=1e-5)


def test_noise_of_a_plan_lies_within_its_ratio_and_changes_nothing_else_of_the_plan() -> None:
    plain, noisy = (
        draw_plan(np.arange(6), 998, NOISY, 0.5, np.random.default_rng(1), sound) for sound in (None, background())
    )
    assert np.isinf(plain.snr_db).all()
    assert (noisy.snr_db >= 0).all()
    assert (noisy.snr_db <= 10).all()
    assert set(noisy.noises.tolist()) <= {0, 1, 2}
    for name in ("clips", "partners", "rolls", "gains_db", "mix", "masks", "kept"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(noisy, name))
    cache, sound = log_mels(), background().log_mels
    assert torch.equal(render(plain, cache, sound), render(plain, cache))
    rendered_noisy = render(noisy, cache, sound).numpy()[:, :998] * np.float32(2 * 4.569) - np.float32(4.268)
    for row in range(6):
        expected = add_noise(cache[row], sound[noisy.noises[row]], float(noisy.snr_db[row]))
        np.testing.assert_allclose(rendered_noisy[row], expected, atol=1e-4)
    half = draw_plan(
        np.arange(600) % 6,
        998,
        NOISY.model_copy(update={"noise_probability": 0.5}),
        1,
        np.random.default_rng(1),
        background(),
    )
    assert 0.4 < np.isfinite(half.snr_db).mean() < 0.6


def test_parts_of_a_noisy_plan_give_what_the_whole_plan_gives() -> None:
    cache, sound = log_mels(), background()
    plan = draw_plan(np.arange(6), 998, AugmentRecipe(noise_probability=0.7), 0.5, np.random.default_rng(1), sound)
    whole = render(plan, cache, sound.log_mels)
    for rank in range(2):
        assert torch.equal(render(plan.part(rank, 2), cache, sound.log_mels), whole[rank::2])
