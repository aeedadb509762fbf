"""Several runs as one: the mean of their scores, each standardised by what the run makes of normal training clips.

Owns the joining. It embeds nothing; no test clip has a say in how runs are scaled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from asd_daemon.errors import DataSetError
from asd_trainer.data.clip import Clip, MachineSection
from asd_trainer.evaluate.backend import RunScores, ScoredClip

Scale = tuple[float, float]
"""Mean and deviation of a unit's normal scores."""


def joined(runs: Mapping[str, RunScores]) -> RunScores:
    """The ensemble of at least two runs that scored the same clips; its embeddings are the first run's.

    Raises:
        DataSetError: a run has no two training scores of a unit, or none that differ, to standardise its scores by; names both.
    """
    standard = {name: _standardised(name, scores) for name, scores in runs.items()}
    first = next(iter(runs.values()))
    test, training = (
        tuple(
            ScoredClip(one.clip, float(np.mean([scores[one.clip] for scores in standard.values()])))
            for one in part
            if all(one.clip in scores for scores in standard.values())
        )
        for part in (first.test, first.training)
    )
    return RunScores(test=test, training=training, embeddings=first.embeddings)


def _standardised(name: str, scores: RunScores) -> dict[Clip, float]:
    """Scores of all clips in deviations of their unit's normal ones."""
    scales = _scales(scores.training)
    found = {}
    for one in (*scores.test, *scores.training):
        scale = scales.get(one.clip.unit) or scales.get(MachineSection(one.clip.machine, one.clip.year or 0, ""))
        if scale is None or scale[1] == 0.0:
            raise DataSetError(
                f"{name}: has no two training scores of {one.clip.machine} that differ, so its scores can't be joined with others"
            )
        found[one.clip] = (one.score - scale[0]) / scale[1]
    return found


def _scales(training: Sequence[ScoredClip]) -> dict[MachineSection, Scale]:
    """Of each unit, and of each machine and year over its sections for those that have no training clips."""
    groups: defaultdict[MachineSection, list[float]] = defaultdict(list)
    for one in training:
        groups[one.clip.unit].append(one.score)
        groups[MachineSection(one.clip.machine, one.clip.year or 0, "")].append(one.score)
    return {unit: (float(np.mean(own)), float(np.std(own))) for unit, own in groups.items() if len(own) > 1}
