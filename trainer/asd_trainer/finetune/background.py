"""The sound that clips are heard in while they are learned: recordings that are mixed in as noise.

Owns which recordings serve as noise, and for which clips. Mixing is asd_trainer.finetune.augmentation's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable
from asd_trainer.data.feature_rows import FeatureRows


@dataclass(frozen=True)
class Background:
    """Noise for every training clip."""

    noises: tuple[Clip, ...]
    """The recordings that serve as noise."""
    log_mels: FeatureRows
    """Their features in the same order, (M, T, 128); more may follow."""
    choices: tuple[NDArray[np.int64], ...]
    """For each training clip the rows of `log_mels` that may be its noise, never empty; clips may share an array."""

    def draw(self, clips: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """A noise for each of some training clips, all of its choices alike; both (B,)."""
        position = rng.random(clips.shape)
        own = [self.choices[clip] for clip in clips]
        return np.array([rows[int(part * len(rows))] for rows, part in zip(own, position, strict=True)], np.int64)


def noise_recordings(table: ClipTable, originals: Sequence[Clip]) -> tuple[Clip, ...]:
    """What serves as noise: the noise-only clips of a data set, of all its machines; where it has none, its training recordings.

    Raises:
        DataSetError: there is neither noise-only sound nor a second machine.
    """
    noises = table.select(split="supplemental", supplement="noise")
    if noises:
        return noises
    if len({clip.machine for clip in originals}) < 2:
        raise DataSetError(
            "finetune.augment.noise_probability: the data has no noise-only clips (supplemental/) and no second machine whose "
            "recordings could be mixed in; set it to 0"
        )
    return tuple(originals)


def noise_choices(clips: Sequence[Clip], noises: Sequence[Clip]) -> tuple[NDArray[np.int64], ...]:
    """Positions in `noises` of what may be mixed into each clip: noise-only clips into any, recordings into those of other machines.

    A hall is full of machines: a recording of another one is noise to this one, whose class must not change by it.
    """
    by_machine = {
        machine: np.array(
            [row for row, noise in enumerate(noises) if noise.supplement == "noise" or noise.machine != machine],
            np.int64,
        )
        for machine in {clip.machine for clip in clips}
    }
    return tuple(by_machine[clip.machine] for clip in clips)
