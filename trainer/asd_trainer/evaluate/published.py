"""Published results to stand beside a run's: Table 1 of the paper, DCASE 2025 Task 2, development set; and when they may."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asd_trainer.data.simulation_plan import SIMULATION_NOTE
from asd_trainer.evaluate.evaluation import MachineResult

if TYPE_CHECKING:
    from asd_trainer.data.clip import Clip

# AUC (source), AUC (target), pAUC in percent: baseline with mean squared error, with Mahalanobis distance, the paper's system
_TABLE_1 = {
    "ToyCar": ((71.05, 53.52, 49.70), (73.17, 50.91, 49.05), (96.82, 78.84, 63.57)),
    "ToyTrain": ((61.76, 56.46, 50.19), (50.87, 46.15, 48.32), (57.96, 62.72, 49.89)),
    "bearing": ((66.53, 53.15, 61.12), (63.63, 59.03, 61.86), (55.80, 63.84, 53.68)),
    "fan": ((70.96, 38.75, 49.46), (77.99, 38.56, 50.82), (56.44, 58.60, 52.05)),
    "gearbox": ((64.80, 50.49, 52.49), (73.26, 51.61, 55.07), (80.16, 76.08, 62.05)),
    "slider": ((70.10, 48.77, 52.32), (73.79, 50.27, 53.61), (78.50, 62.94, 54.05)),
    "valve": ((63.53, 67.18, 57.35), (56.22, 61.00, 52.53), (78.62, 86.70, 67.94)),
}
_TOTALS = (("baseline (MSE)", 0.5626), ("baseline (Mahalanobis)", 0.5533), ("the paper", 0.6441))


@dataclass(frozen=True)
class ReferenceColumn:
    """Published results of a system; total is Ω in [0, 1] as printed."""

    name: str
    results: Mapping[str, MachineResult]
    total: float


def table_1() -> tuple[ReferenceColumn, ...]:
    """The paper's table, a system a column."""
    return tuple(
        ReferenceColumn(name, {machine: _result(rows[column]) for machine, rows in _TABLE_1.items()}, total)
        for column, (name, total) in enumerate(_TOTALS)
    )


def references(machines: Iterable[str]) -> tuple[ReferenceColumn, ...]:
    """The columns that a run on these machines can be read against: the paper's for its seven machines, otherwise none."""
    return table_1() if set(machines) == _TABLE_1.keys() else ()


def references_for(clips: Iterable[Clip], machines: Iterable[str]) -> tuple[ReferenceColumn, ...]:
    """The columns for figures of these test clips; none where they are simulated or of another year: those share machines' names only."""
    clips = tuple(clips)
    folders = {parent for folder in {clip.path.parent for clip in clips} for parent in folder.parents}
    if any(clip.shard is not None and clip.shard.simulated for clip in clips):
        return ()
    if {clip.year for clip in clips} - {None, 2025} or any((folder / SIMULATION_NOTE).exists() for folder in folders):
        return ()
    return references(machines)


def _result(percent: tuple[float, float, float]) -> MachineResult:
    source, target, pauc = (value / 100 for value in percent)
    return MachineResult(source, target, pauc)
