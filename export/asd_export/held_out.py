"""Ω of several models on a data set's test split, by the nearest neighbour: what rounding costs where labels tell.

Owns which clips are compared. Each clip is read once and heard by all models in turn, so a large split takes no more memory than its
embeddings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError, RecordingError
from asd_trainer.data.dataset import Clip, ClipTable, load_clip
from asd_trainer.evaluate.back_ends import BackEnds
from asd_trainer.evaluate.backend import ScoredClip, Separated, scores_of
from asd_trainer.evaluate.evaluation import machine_results, omega

F32 = NDArray[np.float32]
LEAST_CLIPS = 10  # of each label and machine; with fewer, one pair that changes its order moves Ω by points

Hear = Callable[[F32], Mapping[str, F32]]
"""A window (160 000,) to each model's embeddings (P, D): of the heard sound, and of the separated one where P is 2."""


@dataclass(frozen=True)
class TestSplit:
    """Labelled test clips, and the normal training clips they are compared with."""

    __test__ = False  # no test of pytest's

    train: tuple[Clip, ...]
    test: tuple[Clip, ...]

    @classmethod
    def of(cls, table: ClipTable) -> TestSplit | None:
        """The table's test split; None where no machine has normal and anomalous test clips and a bank to compare them with."""
        train = table.select(split="train", label="normal")
        banks = {(clip.machine, clip.year) for clip in train}
        labelled = [c for c in table.select(split="test") if c.label is not None and (c.machine, c.year) in banks]
        both = {c.machine for c in labelled if c.label == "normal"} & {
            c.machine for c in labelled if c.label == "anomaly"
        }
        test = tuple(clip for clip in labelled if clip.machine in both)
        return cls(tuple(clip for clip in train if clip.machine in both), test) if test else None

    @property
    def decides(self) -> bool:
        """Whether there are enough clips to hold a difference of Ω to a budget."""
        counts = Counter((clip.machine, clip.label) for clip in self.test)
        return min(counts.values()) >= LEAST_CLIPS

    def omegas(
        self, hear: Hear, unread: list[str], told: Callable[[int, int], None], bands: int = 1
    ) -> dict[str, float]:
        """Model → Ω in percent; empty where too little could be read.

        Args:
            hear: the models.
            unread: clips that can't be read are added here.
            told: told how many clips were heard, of how many.
            bands: of an embedding, that look for neighbours each by itself.
        """
        heard: dict[Clip, Mapping[str, F32]] = {}
        clips = (*self.train, *self.test)
        for number, clip in enumerate(clips):
            told(number, len(clips))
            try:
                heard[clip] = hear(load_clip(clip))
            except RecordingError as e:
                unread.append(str(e))
        told(len(clips), len(clips))
        train, test = ([clip for clip in part if clip in heard] for part in (self.train, self.test))
        if not train or not test:
            return {}
        try:
            return {model: _omega(train, test, heard, model, bands) for model in heard[train[0]]}
        except (DataSetError, KeyError):  # what could be read has no normal or no anomalous clips, or no bank
            return {}


def _omega(
    train: list[Clip], test: list[Clip], heard: Mapping[Clip, Mapping[str, F32]], model: str, bands: int
) -> float:
    clips = (*train, *test)
    vectors = np.stack([heard[clip][model] for clip in clips])  # (N, P, D)
    separated = Separated(clips, vectors[:, 1]) if vectors.shape[1] > 1 else None
    scored: tuple[ScoredClip, ...] = scores_of(train, test, vectors[:, 0], separated, BackEnds(bands=bands)).test
    return 100 * omega(machine_results(scored))
