"""Inverse block masks: exact counts, and statistics against a slow reference."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_trainer.pretrain.masks import block_count, draw_masks, kept_count
from asd_trainer.recipe.pretraining import MaskRecipe

EAT = MaskRecipe()
LARGE = MaskRecipe(kept=0.25, surplus=0.1)


def slow_reference(time_patches: int, settings: MaskRecipe, rng: np.random.Generator) -> set[int]:
    """The rule patch by patch: blocks around centres, clamped to the grid, then random patches dropped or added."""
    total = time_patches * 8
    wanted = int(total * settings.kept)
    kept: set[int] = set()
    for _ in range(int(total * (settings.kept + settings.surplus) / settings.block**2)):
        centre = int(rng.integers(total))
        t0, f0 = centre // 8, centre % 8
        for dt in range(-(settings.block // 2), settings.block - settings.block // 2):
            for df in range(-(settings.block // 2), settings.block - settings.block // 2):
                kept.add(min(max(t0 + dt, 0), time_patches - 1) * 8 + min(max(f0 + df, 0), 7))
    while len(kept) > wanted:
        kept.remove(int(rng.choice(sorted(kept))))
    while len(kept) < wanted:
        kept.add(int(rng.choice(sorted(set(range(total)) - kept))))
    return kept


def neighbour_share(kept: NDArray[np.bool_]) -> float:
    """Part of pairs of patches side by side, in time or frequency, that are both kept."""
    grid = kept.reshape(kept.shape[0], -1, 8)
    pairs = [grid[:, 1:] & grid[:, :-1], grid[:, :, 1:] & grid[:, :, :-1]]
    return float(sum(both.sum() for both in pairs) / sum(both.size for both in pairs))


def as_grid(rows: NDArray[np.int64] | list[set[int]], total: int) -> NDArray[np.bool_]:
    grid = np.zeros((len(rows), total), bool)
    for line, row in zip(grid, rows, strict=True):
        line[list(row)] = True
    return grid


def test_counts_of_a_whole_clip_are_those_of_eat() -> None:
    assert kept_count(64, EAT) == 102
    assert block_count(64, EAT) == 5
    assert kept_count(64, LARGE) == 128


@pytest.mark.parametrize(
    ("time_patches", "settings"), [(64, EAT), (64, LARGE), (31, EAT), (8, EAT), (2, MaskRecipe(kept=0.9))]
)
def test_every_sequence_keeps_exactly_the_count_and_masks_all_others(time_patches: int, settings: MaskRecipe) -> None:
    masks = draw_masks(200, time_patches, settings, np.random.default_rng(1))
    total = time_patches * 8
    assert masks.kept.shape == (200, int(total * settings.kept))
    both = np.concatenate([masks.kept, masks.masked], axis=1)
    np.testing.assert_array_equal(np.sort(both, axis=1), np.broadcast_to(np.arange(total), (200, total)))
    assert (np.diff(masks.kept, axis=1) > 0).all()
    assert (np.diff(masks.masked, axis=1) > 0).all()


@pytest.mark.parametrize(("time_patches", "settings"), [(64, EAT), (16, MaskRecipe(kept=0.3, surplus=0.2, block=4))])
def test_statistics_equal_those_of_the_slow_reference(time_patches: int, settings: MaskRecipe) -> None:
    count, total = 3000, time_patches * 8
    fast = as_grid(draw_masks(count, time_patches, settings, np.random.default_rng(2)).kept, total)
    rng = np.random.default_rng(3)
    slow = as_grid([slow_reference(time_patches, settings, rng) for _ in range(count)], total)
    # How often each patch is kept: two samples of a share p differ by √(2 p (1 - p) / n); 5 deviations bound the worst of 512.
    difference = np.abs(fast.mean(axis=0) - slow.mean(axis=0))
    assert difference.max() < 5 * np.sqrt(2 * 0.25 / count)
    assert neighbour_share(fast) == pytest.approx(neighbour_share(slow), rel=0.02)
    # Blocks, not scattered patches: by chance alone the share would be the square of the kept part.
    assert neighbour_share(fast) > 2 * settings.kept**2


def test_patches_outside_blocks_are_kept_only_when_blocks_fall_short() -> None:
    # One block of 8 × 8 around any centre covers at least 16 of 32 patches, clamped at the border; 8 are wanted.
    settings = MaskRecipe(kept=0.25, surplus=0.99, block=8)
    masks = draw_masks(300, 4, settings, np.random.default_rng(4))
    assert block_count(4, settings) == 1
    spans = masks.kept.max(axis=1) // 8 - masks.kept.min(axis=1) // 8
    assert spans.max() <= 3
    dense = draw_masks(300, 64, MaskRecipe(kept=0.01, surplus=0.04, block=5), np.random.default_rng(5)).kept
    assert (dense.max(axis=1) // 8 - dense.min(axis=1) // 8).max() <= 4  # five kept patches of one block of 25


def test_same_generator_gives_the_same_masks_and_another_seed_gives_others() -> None:
    first, again, other = (draw_masks(4, 64, EAT, np.random.default_rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.kept, again.kept)
    assert (first.kept != other.kept).any()
