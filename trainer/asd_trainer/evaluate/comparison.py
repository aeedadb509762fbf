"""Several runs on the same test clips: every figure with its interval, and with its gain over the first run, paired over clips.

Owns what is compared with what, and the three forms of the table: for people, JSON and CSV. The figures are evaluation's, the draws
bootstrap's. Each interval is by itself: of many runs, some differ by chance.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asd_trainer.evaluate.bootstrap import LEVEL, RESAMPLES, Interval, interval, resampled_figures
from asd_trainer.evaluate.evaluation import (
    machine_results,
    official_scores,
    omega,
    overall_score,
    score_symbol,
)

if TYPE_CHECKING:
    from asd_trainer.evaluate.backend import ScoredClip
    from asd_trainer.evaluate.evaluation import MachineResult

F64 = NDArray[np.float64]

MEAN = "mean"
"""The figure that is one machine's official score: the mean of its others, as its year takes it."""
CSV_COLUMNS = ("run", "machine", "figure", "value", "low", "high", "gain", "gain_low", "gain_high", "better_share")


@dataclass(frozen=True)
class Gain:
    """By how much a figure is above that of the first run."""

    value: float
    interval: Interval
    better_share: float
    """In how many of the draws it is higher, ties counted by half."""


@dataclass(frozen=True)
class MeasuredFigure:
    """One figure of one run, as a fraction in [0, 1]."""

    value: float
    interval: Interval
    gain: Gain | None
    """None in the first run."""


@dataclass(frozen=True)
class ComparedRun:
    """One row of the table."""

    name: str
    omega: MeasuredFigure
    """The official score of all machines."""
    machines: Mapping[str, Mapping[str, MeasuredFigure]]
    """Machine (with year and section where there are several) → AUC, pAUC and their MEAN, those that its clips allow."""


@dataclass(frozen=True)
class Comparison:
    """Runs on the same clips; the others are measured by the first."""

    runs: tuple[ComparedRun, ...]
    symbol: str
    """What the official score is called."""
    resamples: int

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "schema": 1,
            "baseline": self.runs[0].name,
            "level": LEVEL,
            "resamples": self.resamples,
            "runs": [
                {
                    "run": run.name,
                    "omega": _figure_json(run.omega),
                    "machines": {
                        name: {figure: _figure_json(one) for figure, one in figures.items()}
                        for name, figures in run.machines.items()
                    },
                }
                for run in self.runs
            ],
        }

    def as_csv(self) -> str:
        """One row a run, machine and figure, with a heading; the official score has the machine `all`."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for run in self.runs:
            writer.writerow([run.name, "all", "omega", *_figure_cells(run.omega)])
            for name, figures in run.machines.items():
                writer.writerows([run.name, name, figure, *_figure_cells(one)] for figure, one in figures.items())
        return text.getvalue()


def compare(
    runs: Mapping[str, Sequence[ScoredClip]], rng: np.random.Generator, resamples: int = RESAMPLES
) -> Comparison:
    """Measure runs on the same clips; each draw of the clips is the same for all of them.

    Args:
        runs: name → its scores of the test clips, in the same order; the first is what the others are compared with.
        rng: draws the clips.
        resamples: how many draws.

    Raises:
        DataSetError: the runs were scored on different clips, a score is not finite, or the clips allow no figure.
    """
    results = {name: machine_results(scored) for name, scored in runs.items()}
    drawn = {
        name: _with_means(results[name], found)
        for name, found in zip(runs, resampled_figures(list(runs.values()), rng, resamples), strict=True)
    }
    values = {name: _values(of_run) for name, of_run in results.items()}
    first = next(iter(runs))
    compared = []
    for name in runs:

        def measured(machine: str, figure: str, run: str = name) -> MeasuredFigure:
            key = (machine, figure)
            base = None if run == first else (values[first][key], drawn[first][key])
            return _measured(values[run][key], drawn[run][key], base)

        machines: dict[str, dict[str, MeasuredFigure]] = {}
        for machine, figure in values[name]:
            if machine:
                machines.setdefault(machine, {})[figure] = measured(machine, figure)
        compared.append(ComparedRun(name, measured("", MEAN), machines))
    return Comparison(tuple(compared), score_symbol(results[first]), resamples)


def _values(results: Mapping[str, MachineResult]) -> dict[tuple[str, str], float]:
    """(machine, figure) → its value; the machine "" for all."""
    values = {("", MEAN): omega(results)}
    for name, result in results.items():
        if figures := result.figures():
            values |= {(name, figure): value for figure, value in figures.items()}
            values[name, MEAN] = omega({name: result})
    return values


def _with_means(
    results: Mapping[str, MachineResult], drawn: Mapping[Any, Mapping[str, F64]]
) -> dict[tuple[str, str], F64]:
    """The same of the draws, (resamples,) each."""
    names = {result.unit: name for name, result in results.items()}
    found = {("", MEAN): overall_score(official_scores(drawn))}
    for unit, figures in drawn.items():
        if figures:
            found |= {(names[unit], figure): draws for figure, draws in figures.items()}
            found[names[unit], MEAN] = overall_score(official_scores({unit: figures}))
    return found


def _measured(value: float, draws: F64, base: tuple[float, F64] | None) -> MeasuredFigure:
    gain = None
    if base is not None:
        differences = draws - base[1]
        better = float(np.mean(differences > 0) + np.mean(differences == 0) / 2)
        gain = Gain(value - base[0], interval(differences), better)
    return MeasuredFigure(value, interval(draws), gain)


def _figure_json(one: MeasuredFigure) -> dict[str, Any]:
    content: dict[str, Any] = {"value": one.value, "interval": [one.interval.low, one.interval.high]}
    if one.gain is not None:
        content["gain"] = one.gain.value
        content["gain_interval"] = [one.gain.interval.low, one.gain.interval.high]
        content["better_share"] = one.gain.better_share
    return content


def _figure_cells(one: MeasuredFigure) -> list[str]:
    numbers = [one.value, one.interval.low, one.interval.high]
    if one.gain is not None:
        numbers += [one.gain.value, one.gain.interval.low, one.gain.interval.high, one.gain.better_share]
    cells = [f"{number:.6f}" for number in numbers]
    return cells + [""] * (7 - len(cells))


def print_comparison(found: Comparison) -> None:
    """Print the table in percent: a line a run, then each machine's score."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    names = _short_names([run.name for run in found.runs])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="fold")
    for title in (f"{found.symbol} %", f"{LEVEL:.0%}", "gain", f"{LEVEL:.0%}, paired"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("")
    for run in found.runs:
        spread, gain = run.omega.interval, run.omega.gain
        cells = [names[run.name], _percent(run.omega.value), f"{_percent(spread.low)} … {_percent(spread.high)}"]
        if gain is None:
            cells += ["", "", "the baseline"]
        else:
            low, high = gain.interval.low, gain.interval.high
            cells += [f"{100 * gain.value:+.2f}", f"{100 * low:+.2f} … {100 * high:+.2f}", gain.interval.verdict]
        table.add_row(*cells)
    console.print(table)
    _print_machines(console, found, names)
    console.print(
        f"{found.resamples} draws of the test clips, the same for every run; each interval is by itself", soft_wrap=True
    )


def _print_machines(console: Any, found: Comparison, names: Mapping[str, str]) -> None:
    """Each machine's score, a line a run."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("machine, gain", overflow="fold")
    for run in found.runs:
        table.add_column(names[run.name], justify="right", overflow="fold")
    for machine in found.runs[0].machines:
        cells = [machine]
        for run in found.runs:
            one = run.machines[machine][MEAN]
            mark = ""
            if one.gain is not None:
                clear = one.gain.interval.low > 0 or one.gain.interval.high < 0
                mark = f" ({100 * one.gain.value:+.2f}{'*' if clear else ''})"
            cells.append(f"{_percent(one.value)}{mark}")
        table.add_row(*cells)
    console.print(table)
    console.print(f"* its {LEVEL:.0%} interval of the gain does not hold 0", markup=False)


def _short_names(paths: Sequence[str]) -> dict[str, str]:
    """The last part of each path, where that tells them apart."""
    last = [Path(path).name for path in paths]
    return dict(zip(paths, last if len(set(last)) == len(last) else paths, strict=True))


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f}"
