"""The utterance-frame objective of EAT as formulas (Chen et al., arXiv 2401.03497, after data2vec 2.0, arXiv 2212.07525).

Owns targets, losses, the teacher's decay and the figure that shows a collapse. It holds no weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from asd_trainer.networks.decoder import pick
from asd_trainer.networks.eat import Layer
from asd_trainer.recipe.pretraining import TeacherRecipe

DEVIATION_FLOOR = 1e-6


class Losses(NamedTuple):
    """The two parts of the objective, float32 scalars."""

    frame: Tensor
    """Squared error of a masked patch, summed over channels, over √dim; mean over masked patches."""
    utterance: Tensor
    """The same for the class token and the mean of all targets of its clip; mean over masked clips."""


def utterance_frame_losses(predictions: Tensor, cls: Tensor, targets: Tensor, masked: Tensor) -> Losses:
    """Both losses of S sequences, computed in float32.

    Args:
        predictions: the decoder's, (S, M, dim).
        cls: the student's class token, (S, dim).
        targets: of the clips that the sequences are masked from, (B, L, dim); each clip has S / B sequences in a row.
        masked: the patches that were predicted, int64 (S, M).
    """
    clones = masked.shape[0] // targets.shape[0]
    expected = pick(targets.repeat_interleave(clones, dim=0), masked)  # (S, M, dim)
    whole = targets.mean(dim=1).repeat_interleave(clones, dim=0)  # (S, dim)
    scale = 1 / math.sqrt(targets.shape[-1])
    frame = (predictions.float() - expected).square().sum(dim=-1).mean() * scale
    utterance = (cls.float() - whole).square().sum(dim=-1).mean() * scale
    return Losses(frame, utterance)


def layer_targets(layers: Iterable[Layer]) -> Tensor:
    """What the student shall predict, float32 (B, L, dim): from the feed-forward output of every block, without class token.

    Each layer is normalised over the patches of a clip, channel by channel; then their mean, over its channels. The student can
    thus neither win by a constant nor by what all clips share.
    """
    total, count = torch.zeros(()), 0
    for layer in layers:
        ffn = layer.ffn[:, 1:].float().transpose(1, 2)  # (B, dim, L)
        total = F.instance_norm(ffn) + total.to(ffn.device)
        count += 1
    mean = (total / count).transpose(1, 2)
    return F.layer_norm(mean, mean.shape[-1:])


def teacher_decay(updates: int, settings: TeacherRecipe) -> float:
    """Part of the teacher that stays when it takes in the student after a number of updates."""
    risen = min(updates / settings.rise_steps, 1.0)
    return settings.decay + (settings.final_decay - settings.decay) * risen


def patch_deviation(tokens: Tensor) -> Tensor:
    """Deviation of a channel over all patches of a batch (…, dim), mean over channels; near 0.001 when the patches are all alike.

    The released code's counter: √(variance + 1e-6).
    """
    return (tokens.detach().float().flatten(0, -2).var(dim=0) + DEVIATION_FLOOR).sqrt().mean()
