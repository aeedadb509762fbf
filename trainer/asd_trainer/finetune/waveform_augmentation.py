"""Augmentation of waveforms, for encoders with front ends of their own: the plan of `augmentation`, applied to sound itself.

Rolls are in samples here. Masks of frames and bands are left out: they are those of one log-mel, and every front end has another.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asd_trainer.data.feature_rows import FeatureRows
from asd_trainer.finetune.augmentation import BatchPlan

F32 = NDArray[np.float32]
SILENCE = 1e-10  # power


def render_waveforms(plan: BatchPlan, waveforms: FeatureRows, noises: FeatureRows | None = None) -> Tensor:
    """Apply a plan to the clips of a cache (N, S) → float32 (B, S); `noises` (M, S) are the background that it was drawn with."""
    batch = np.empty((plan.clips.shape[0], waveforms.shape[1]), np.float32)
    rows = zip(plan.clips, plan.partners, plan.rolls, plan.gains_db, plan.mix, strict=True)
    added = zip(plan.noises, plan.noise_rolls, plan.snr_db, strict=True)
    for out, (clip, partner, rolls, gains_db, mix), (noise, noise_roll, snr_db) in zip(batch, rows, added, strict=True):
        sound = _moved(waveforms[clip], rolls[0], gains_db[0])
        if mix < 1:
            sound = mix * sound + (1 - mix) * _moved(waveforms[partner], rolls[1], gains_db[1])
        if noises is not None and snr_db < np.inf:
            sound = with_noise(sound, np.roll(noises[noise], noise_roll), float(snr_db))
        out[:] = sound
    return torch.from_numpy(batch)


def _moved(waveform: F32, roll: int, gain_db: float) -> F32:
    return np.asarray(np.roll(waveform, roll) * np.float32(10 ** (gain_db / 20)), np.float32)


def with_noise(sound: F32, noise: F32, snr_db: float) -> F32:
    """A clip with noise of a power that is `snr_db` below its own; a silent noise leaves it as it is."""
    power = float(np.mean(np.square(noise, dtype=np.float64)))
    if power < SILENCE:
        return sound
    own = float(np.mean(np.square(sound, dtype=np.float64)))
    return np.asarray(sound + np.float32(np.sqrt(own / power) * 10 ** (-snr_db / 20)) * noise, np.float32)
