"""Batches of augmented clips: what fine-tuning and distillation are shown at a step.

Owns the order of clips. What is done to a clip is asd_trainer.finetune.augmentation's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asd_trainer.data.feature_rows import FeatureRows, at_hand
from asd_trainer.finetune.augmentation import BatchPlan, draw_plan, render
from asd_trainer.finetune.background import Background
from asd_trainer.finetune.waveform_augmentation import render_waveforms
from asd_trainer.recipe.embedder import AugmentRecipe
from asd_trainer.training.loop import even_share


@dataclass(frozen=True)
class BatchSettings:
    """How batches are made."""

    clips: int
    """Clips of a step, over all processes."""
    kept_patches: float
    """Part of a clip's patches that is encoded."""
    augment: AugmentRecipe
    key: str
    """Key of the recipe that says how many clips a batch has, for messages."""


class AugmentedClips:
    """Every clip once an epoch in a fresh order, the last short batch left out; a step's batch follows from the seed and the step.

    Args:
        log_mels: features of the clips, (N, 998, 128), or their waveforms, (N, 160 000).
        settings: how batches are made; a batch is never larger than all clips.
        seed: of the run.
        stream: parts the random numbers of one stage from those of another.
        background: what is mixed in as noise, if anything.
    """

    def __init__(
        self,
        log_mels: FeatureRows,
        settings: BatchSettings,
        seed: int,
        stream: tuple[int, ...] = (),
        background: Background | None = None,
    ) -> None:
        self._log_mels, self._settings, self._background = log_mels, settings, background
        self._seeds = (seed, *stream)
        self._batch_clips = min(settings.clips, len(log_mels))
        self.epoch_steps = len(log_mels) // self._batch_clips
        """Steps of an epoch."""

    def draw(self, step: int, rank: int, world: int) -> BatchPlan:
        """The part of a step's batch that process `rank` of `world` trains on.

        Raises:
            SettingsError: the processes can't share a batch evenly.
        """
        epoch, position = divmod(step, self.epoch_steps)
        order = np.random.default_rng([*self._seeds, 0, epoch]).permutation(len(self._log_mels))
        clips = order[position * self._batch_clips : (position + 1) * self._batch_clips]
        even_share(len(clips), rank, world, self._settings.key)
        rng = np.random.default_rng([*self._seeds, 1, step])
        frames, kept = self._log_mels.shape[1], self._settings.kept_patches
        return draw_plan(clips, frames, self._settings.augment, kept, rng, self._background).part(rank, world)

    def tensors(self, plan: BatchPlan) -> dict[str, Tensor]:
        """`features`, float32 (B, 1024, 128) or waveforms (B, 160 000), and `kept`, int64 (B, K), where not all patches are encoded."""
        heard = at_hand(self._log_mels, [*plan.clips, *plan.partners[plan.mix < 1]])
        noises = None
        if self._background is not None:
            noises = at_hand(self._background.log_mels, plan.noises[plan.snr_db < np.inf])
        rendered = render if heard.ndim == 3 else render_waveforms
        batch = {"features": rendered(plan, heard, noises)}
        if plan.kept is not None:
            batch["kept"] = torch.from_numpy(plan.kept)
        return batch
