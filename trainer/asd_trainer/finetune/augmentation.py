"""Augmentation of log-mels: what is drawn for a batch, and how it is applied.

A plan is drawn for a whole batch from one generator and may then be cut into parts for several processes: the same clips get the
same treatment however many there are. It defines no feature.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asd_daemon.judge.features.log_mel import EAT_FRAMES, ENERGY_FLOOR, MEL_BINS, eat_input
from asd_trainer.data.feature_rows import FeatureRows
from asd_trainer.data.features import LOG_FLOOR, NEPERS_PER_DB
from asd_trainer.finetune.background import Background
from asd_trainer.networks.eat import MEL_PATCHES, TIME_PATCHES
from asd_trainer.recipe.embedder import AugmentRecipe

F32 = NDArray[np.float32]

SMALLEST_SHARE = 1e-6  # of a clip in a mixture: its logarithm must be finite


@dataclass(frozen=True)
class BatchPlan:
    """What happens to each clip of a batch; every array has one row a clip."""

    clips: NDArray[np.int64]
    """Rows of the feature cache, (B,)."""
    partners: NDArray[np.int64]
    """Rows of the clips that are mixed in, (B,)."""
    rolls: NDArray[np.int64]
    """Frames by which clip and partner are rotated, (B, 2)."""
    gains_db: F32
    """Gain of clip and partner, (B, 2)."""
    mix: F32
    """Amplitude of the clip beside its partner, in [0, 1]; 1 where nothing is mixed in, (B,)."""
    masks: NDArray[np.int64]
    """First and last frame, first and last bin of what is blanked, last excluded, (B, 4)."""
    kept: NDArray[np.int64] | None
    """Patches that are encoded, (B, K), or all."""
    noises: NDArray[np.int64]
    """Rows of the background that are added, (B,)."""
    noise_rolls: NDArray[np.int64]
    """Frames by which noises are rotated, (B,)."""
    snr_db: F32
    """Power of the clip over its noise, infinite where none is added, (B,)."""

    def part(self, rank: int, world: int) -> BatchPlan:
        """Every world-th clip, starting at `rank`."""
        cut = slice(rank, None, world)
        kept = None if self.kept is None else self.kept[cut]
        return BatchPlan(
            self.clips[cut],
            self.partners[cut],
            self.rolls[cut],
            self.gains_db[cut],
            self.mix[cut],
            self.masks[cut],
            kept,
            self.noises[cut],
            self.noise_rolls[cut],
            self.snr_db[cut],
        )


def draw_plan(
    clips: NDArray[np.int64],
    frames: int,
    settings: AugmentRecipe,
    kept_patches: float,
    rng: np.random.Generator,
    background: Background | None = None,
) -> BatchPlan:
    """Draw the treatment of a batch of clips, given as rows of a cache whose clips have `frames` frames.

    Noise is drawn last, and only where there is a background: whether it is wanted changes nothing else of the plan.
    """
    B = clips.shape[0]
    mixed = np.less(rng.random(B), settings.mixup_probability)
    masked = np.less(rng.random(B), settings.mask_probability)
    kept = None
    if kept_patches < 1:
        count = max(1, round(kept_patches * TIME_PATCHES * MEL_PATCHES))
        kept = np.sort(rng.random((B, TIME_PATCHES * MEL_PATCHES)).argsort(axis=1)[:, :count], axis=1)
    plan = BatchPlan(
        clips=clips,
        partners=rng.permutation(clips),
        rolls=rng.integers(0, frames, (B, 2)) * int(settings.roll),
        gains_db=rng.uniform(-settings.gain_db, settings.gain_db, (B, 2)).astype(np.float32),
        mix=np.where(mixed, rng.random(B), 1.0).astype(np.float32),
        masks=np.concatenate(
            [_spans(masked, frames, settings.mask_frames, rng), _spans(masked, MEL_BINS, settings.mask_bins, rng)],
            axis=1,
        ),
        kept=kept,
        noises=np.zeros(B, np.int64),
        noise_rolls=np.zeros(B, np.int64),
        snr_db=np.full(B, np.inf, np.float32),
    )
    if background is None:
        return plan
    noisy = np.less(rng.random(B), settings.noise_probability)
    return replace(
        plan,
        noises=background.draw(clips, rng),
        noise_rolls=rng.integers(0, background.log_mels.shape[1], (B,)) * int(settings.roll),
        snr_db=np.where(noisy, rng.uniform(*settings.noise_snr_db, B), np.inf).astype(np.float32),
    )


def _spans(masked: NDArray[np.bool_], size: int, widest: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A span of 0 to `widest` inside `size` for each clip that is masked, an empty one for the others; (B, 2)."""
    width = rng.integers(0, min(widest, size) + 1, masked.shape[0]) * masked
    first = rng.integers(0, size - width + 1)
    return np.stack([first, first + width], axis=1)


def render(plan: BatchPlan, log_mels: FeatureRows, noises: FeatureRows | None = None) -> Tensor:
    """Apply a plan to the clips of a cache (N, T, 128) → EAT's normalised input, float32 (B, 1024, 128).

    `noises` are the log-mels of the background that the plan was drawn with, (M, T, 128).
    NumPy throughout: a clip is small, and torch's threads waiting for each other would cost more than the arithmetic.
    """
    batch = np.empty((plan.clips.shape[0], EAT_FRAMES, MEL_BINS), np.float32)
    rows = zip(plan.clips, plan.partners, plan.rolls, plan.gains_db, plan.mix, plan.masks, strict=True)
    added = zip(plan.noises, plan.noise_rolls, plan.snr_db, strict=True)
    for fitted, (clip, partner, rolls, gains_db, mix, mask), (noise, noise_roll, snr_db) in zip(
        batch, rows, added, strict=True
    ):
        features = _moved(log_mels[clip], rolls[0], gains_db[0])
        if mix < 1:
            features = mix_powers(features, _moved(log_mels[partner], rolls[1], gains_db[1]), float(mix))
        if noises is not None and snr_db < np.inf:
            features = add_noise(features, _moved(noises[noise], noise_roll, 0.0), float(snr_db))
        mean = features.mean()
        features[mask[0] : mask[1]] = mean
        features[:, mask[2] : mask[3]] = mean
        fitted[:] = eat_input(features)
    return torch.from_numpy(batch)


def _moved(log_mel: F32, roll: int, gain_db: float) -> F32:
    """A clip rotated in time and made louder or softer, never below the feature's floor; (T, 128)."""
    frames = log_mel.shape[0]
    moved = np.empty(log_mel.shape, np.float32)
    gain = np.float32(gain_db * NEPERS_PER_DB)
    np.add(log_mel[frames - roll :], gain, out=moved[:roll])
    np.add(log_mel[: frames - roll], gain, out=moved[roll:])
    return np.maximum(moved, np.float32(LOG_FLOOR), out=moved)


def mix_powers(clip: F32, partner: F32, amplitude: float) -> F32:
    """Log-mel of amplitude · clip + (1 - amplitude) · partner for sounds that are not correlated: their powers add up.

    Args:
        clip: log-mel (T, 128).
        partner: log-mel (T, 128).
        amplitude: in [0, 1).
    """
    share = max(amplitude, SMALLEST_SHARE)
    louder = clip + np.float32(2 * math.log(share))
    softer = partner + np.float32(2 * math.log(1 - share))
    difference = np.abs(louder - softer)
    np.negative(difference, out=difference)
    np.log1p(np.exp(difference, out=difference), out=difference)  # log(e^a + e^b) = max + log(1 + e^-|a - b|)
    difference += np.maximum(louder, softer)
    return difference


def add_noise(clip: F32, noise: F32, snr_db: float) -> F32:
    """Log-mel of a clip in a noise that has nothing to do with it, without going back to the sound.

    Powers of sounds that are not correlated add up on average, band by band: log(exp(clip) + g · exp(noise)) stands for the log-mel of
    the sum of both sounds. A single frame's power also has the product of both in it, which is as often positive as negative and is
    left out here: means over time come out within about 0.02, the logarithm on average up to 0.2 too high, most where both are
    equally loud. What lies at the feature's floor is no sound and is not amplified.

    Args:
        clip: log-mel (T, 128).
        noise: log-mel (T, 128); a silent one leaves the clip as it is.
        snr_db: mean power of the clip over that of the noise, both as the log-mel has it, that is with its pre-emphasis.
    """
    added = np.exp(noise)
    added -= np.float32(ENERGY_FLOOR)
    np.maximum(added, 0.0, out=added)
    mean = float(added.mean(dtype=np.float64))
    if mean < ENERGY_FLOOR:
        return clip
    powers = np.exp(clip)
    added *= np.float32(float(powers.mean(dtype=np.float64)) / mean * 10.0 ** (-snr_db / 10.0))
    powers += added
    return np.log(powers, out=powers)
