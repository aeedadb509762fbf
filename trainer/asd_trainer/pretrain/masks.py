"""Inverse block masks over the grid of patches: what the student of pre-training sees of a clip.

Owns the drawing of kept and masked patches (EAT, arXiv 2401.03497; data2vec 2.0, arXiv 2212.07525). It knows no sound and no model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asd_trainer.networks.eat import MEL_PATCHES
from asd_trainer.recipe.pretraining import MaskRecipe


class Masks(NamedTuple):
    """Every patch of S sequences, parted in two; indices rise within a row."""

    kept: NDArray[np.int64]
    """What is seen, (S, K)."""
    masked: NDArray[np.int64]
    """All the others, (S, L - K)."""


def kept_count(time_patches: int, settings: MaskRecipe) -> int:
    """Patches of a sequence that are kept, the same number in each: 102 of 512 in EAT; at least one, and never all."""
    patches = time_patches * MEL_PATCHES
    return min(max(int(patches * settings.kept), 1), patches - 1)


def block_count(time_patches: int, settings: MaskRecipe) -> int:
    """Blocks that are drawn in a sequence: as many as would cover the kept part and the surplus if they lay apart; at least one."""
    return max(int(time_patches * MEL_PATCHES * (settings.kept + settings.surplus) / settings.block**2), 1)


def draw_masks(sequences: int, time_patches: int, settings: MaskRecipe, rng: np.random.Generator) -> Masks:
    """Draw the masks of a number of sequences of time_patches × 8 patches, patch (t, f) being number t · 8 + f.

    Square blocks around random centres are kept, those at a border pressed against it. Where they cover too much, random patches
    of theirs are masked; where they cover too little, random patches are kept besides.
    """
    blocks = _covered(sequences, time_patches, settings, rng)
    # Chance decides among the patches inside blocks, and among those outside, but all inside come before any outside.
    rank = (rng.random(blocks.shape) - blocks).argsort(axis=1)
    count = kept_count(time_patches, settings)
    return Masks(np.sort(rank[:, :count], axis=1), np.sort(rank[:, count:], axis=1))


def _covered(sequences: int, time_patches: int, settings: MaskRecipe, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Patches that lie inside a block, (S, L)."""
    count = block_count(time_patches, settings)
    centres = rng.integers(0, time_patches * MEL_PATCHES, (sequences, count, 1))
    reach = np.arange(settings.block) - settings.block // 2
    time_step, mel_step = (step.flatten() for step in np.meshgrid(reach, reach, indexing="ij"))
    time = (centres // MEL_PATCHES + time_step).clip(0, time_patches - 1)  # (S, blocks, block²)
    mel = (centres % MEL_PATCHES + mel_step).clip(0, MEL_PATCHES - 1)
    covered = np.zeros((sequences, time_patches * MEL_PATCHES), bool)
    np.put_along_axis(covered, (time * MEL_PATCHES + mel).reshape(sequences, -1), True, axis=1)
    return covered
