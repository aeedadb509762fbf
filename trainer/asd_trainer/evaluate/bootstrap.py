"""How far chance in the choice of test clips may have moved a score: the paired bootstrap.

Owns the resampling: clips are drawn anew, with replacement, within each unit, domain and label, and every run is measured on the same
draw, so that what is common to runs cancels in their difference (Efron and Tibshirani, 1993). Training is not repeated: an interval
speaks of these models on other clips of these machines, not of other machines or seeds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_trainer.data.clip import MachineSection
from asd_trainer.evaluate.evaluation import contrasts, official_scores, overall_score
from asd_trainer.evaluate.roc import weighted_area

if TYPE_CHECKING:
    from asd_trainer.data.clip import Clip
    from asd_trainer.evaluate.backend import ScoredClip

F64 = NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95
MOST_WEIGHTS = 4_000_000  # drawn at once: 32 MB of them


@dataclass(frozen=True)
class Interval:
    """Bounds between which a figure lies with the given confidence."""

    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What it says where it is of a gain."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "not told apart"


def resampled_scores(runs: Sequence[Sequence[ScoredClip]], rng: np.random.Generator, resamples: int = RESAMPLES) -> F64:
    """The overall official score of each run on each draw of the labelled test clips, (runs, resamples).

    Raises:
        DataSetError: as `resampled_figures`, or the clips allow no figure.
    """
    return np.stack([overall_score(official_scores(of_run)) for of_run in resampled_figures(runs, rng, resamples)])


def resampled_figures(
    runs: Sequence[Sequence[ScoredClip]], rng: np.random.Generator, resamples: int = RESAMPLES
) -> list[dict[MachineSection, Mapping[str, F64]]]:
    """The official figures of each run on each draw: unit → name of the figure → (resamples,).

    Args:
        runs: the scores of each run; all of the same clips, in the same order.
        rng: draws the clips.
        resamples: how many draws.

    Raises:
        DataSetError: the runs' clips differ.
    """
    for other in runs[1:]:
        if [one.clip.path for one in other] != [one.clip.path for one in runs[0]]:
            raise DataSetError("the runs were scored on different test clips; compare them on the same data")
    rows: defaultdict[MachineSection, list[int]] = defaultdict(list)
    for row, one in enumerate(runs[0]):
        if one.clip.label is not None:
            rows[one.clip.unit].append(row)
    figures: list[dict[MachineSection, Mapping[str, F64]]] = [{} for _ in runs]
    for unit, of_unit in sorted(rows.items()):
        clips = [runs[0][row].clip for row in of_unit]
        scores = np.array([[run[row].score for row in of_unit] for run in runs], np.float64)
        for found, of_run in zip(figures, _unit_figures(clips, scores, rng, resamples), strict=True):
            found[unit] = of_run
    return figures


def interval(draws: F64) -> Interval:
    """The percentile interval of the draws, (resamples,)."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def _unit_figures(clips: Sequence[Clip], scores: F64, rng: np.random.Generator, resamples: int) -> list[dict[str, F64]]:
    """Figures of one unit, of each run; `scores` has shape (runs, clips), figures (resamples,)."""
    wanted = contrasts(clips)
    strata = _strata(clips)
    each = max(1, MOST_WEIGHTS // len(clips))
    parts: list[list[dict[str, F64]]] = []
    for start in range(0, resamples, each):
        weights = _draw(strata, len(clips), rng, min(each, resamples - start))
        parts.append(
            [
                {
                    name: weighted_area(of_run, one.normal, one.anomalous, one.max_fpr, weights)
                    for name, one in wanted.items()
                }
                for of_run in scores
            ]
        )
    return [
        {name: np.concatenate([part[run][name] for part in parts]) for name in wanted} for run in range(scores.shape[0])
    ]


def _strata(clips: Sequence[Clip]) -> list[NDArray[np.int64]]:
    members: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for row, clip in enumerate(clips):
        members[clip.domain or "", clip.label or ""].append(row)
    return [np.array(rows, np.int64) for _, rows in sorted(members.items())]


def _draw(strata: Sequence[NDArray[np.int64]], clips: int, rng: np.random.Generator, resamples: int) -> F64:
    """How often each clip is drawn, (resamples, clips); each stratum keeps its size."""
    weights = np.zeros((resamples, clips), np.float64)
    for rows in strata:
        weights[:, rows] = rng.multinomial(rows.size, np.full(rows.size, 1 / rows.size), size=resamples)
    return weights
