"""What `asd-train evaluate` says of a run: figures, the official score with its interval, decisions, and another run beside it.

Owns evaluation.json and the printed tables. The numbers are evaluation's, resampling's and threshold's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asd_daemon.errors import DataSetError, StageError
from asd_trainer.evaluate.bootstrap import LEVEL, RESAMPLES, Interval, interval, resampled_scores
from asd_trainer.evaluate.evaluation import (
    MachineResult,
    machine_results,
    omega,
    score_symbol,
    shown_figures,
    unit_name,
    year_scores,
)
from asd_trainer.evaluate.published import ReferenceColumn, references_for
from asd_trainer.evaluate.threshold import SectionDecisions, decide_sections
from asd_trainer.training.whole_file import write_whole

if TYPE_CHECKING:
    from rich.console import Console

    from asd_trainer.evaluate.backend import RunScores

EVALUATION_FILE = "evaluation.json"
NEAR_ALONE = "near alone"
"""What the scores of the near microphone are called beside those of the residual."""


@dataclass(frozen=True)
class Comparison:
    """Another run on the same clips."""

    run: str
    results: Mapping[str, MachineResult]
    difference: Interval
    """Of this run's score minus the other's."""
    better_share: float
    """In how many of the draws this run scores higher."""


@dataclass(frozen=True)
class Scoresheet:
    """All that is said of a run's scores."""

    results: Mapping[str, MachineResult]
    interval: Interval | None
    """Of the official score; None where nothing was drawn."""
    decisions: tuple[SectionDecisions, ...] = ()
    undecided: str = ""
    """Why there are no decisions."""
    comparison: Comparison | None = None
    references: tuple[ReferenceColumn, ...] = ()
    """Published results on the same clips."""

    @property
    def omega(self) -> float:
        """The official score."""
        return omega(self.results)

    def as_json(self) -> dict[str, Any]:
        """What evaluation.json holds."""
        sheet: dict[str, Any] = {
            "omega": self.omega,
            "machines": {name: result.figures() for name, result in self.results.items()},
        }
        years = year_scores(self.results)
        if any(years):
            sheet["years"] = {str(year) if year else "none": score for year, score in years.items()}
        if self.interval is not None:
            sheet["interval"] = [self.interval.low, self.interval.high]
            sheet["resamples"] = RESAMPLES
        if self.decisions:
            units = {one.scored[0].clip.unit: one for one in self.decisions}
            sheet["decisions"] = {
                unit_name(unit, units): {
                    "threshold": one.threshold,
                    **{domain: asdict(quality) for domain, quality in one.quality.items()},
                }
                for unit, one in units.items()
            }
        notes = {name: result.note for name, result in self.results.items() if result.note}
        if self.undecided:
            notes["decisions"] = self.undecided
        if notes:
            sheet["notes"] = notes
        if self.comparison is not None:
            other = omega(self.comparison.results)
            sheet["against"] = {
                "run": self.comparison.run,
                "omega": other,
                "machines": {name: result.figures() for name, result in self.comparison.results.items()},
                "difference": self.omega - other,
                "interval": [self.comparison.difference.low, self.comparison.difference.high],
                "better_share": self.comparison.better_share,
            }
        return sheet


def scoresheet(scores: RunScores, rng: np.random.Generator, against: tuple[str, RunScores] | None = None) -> Scoresheet:
    """Measure a run, and another one on the same clips; residuals of two microphones, where no other is given, beside the near one alone.

    Raises:
        DataSetError: the test clips allow no figure, or the other run was scored on other clips.
    """
    if against is None and scores.near_alone is not None:
        against = (NEAR_ALONE, scores.near_alone)
    results = machine_results(scores.test)
    runs = [scores.test] if against is None else [scores.test, against[1].test]
    draws = resampled_scores(runs, rng)
    decisions: tuple[SectionDecisions, ...] = ()
    undecided = ""
    try:
        decisions = decide_sections(scores.test, scores.training)
    except DataSetError as e:
        undecided = f"no decisions: {e}"
    comparison = None
    if against is not None:
        difference = draws[0] - draws[1]
        better = float(np.mean(difference > 0) + np.mean(difference == 0) / 2)
        comparison = Comparison(against[0], machine_results(against[1].test), interval(difference), better)
    published = references_for((one.clip for one in scores.test), results)
    return Scoresheet(results, interval(draws[0]), decisions, undecided, comparison, published)


def write_evaluation(run: Path, sheet: Scoresheet) -> Path:
    """Write evaluation.json into a run folder, whole or not at all.

    Raises:
        StageError: the folder is missing or can't be written.
        DataSetError: there is no figure.
    """
    path = run / EVALUATION_FILE
    try:
        write_whole(path, json.dumps(sheet.as_json(), indent=2, allow_nan=False) + "\n")
    except OSError as e:
        raise StageError(f"{path}: can't be written: {e.strerror}") from e
    return path


def print_evaluation(sheet: Scoresheet, *, as_json: bool = False) -> None:
    """Print the figures on stdout: as the paper's Table 1, in percent, or as evaluation.json holds them.

    Raises:
        DataSetError: there is no figure.
    """
    import click

    if as_json:
        click.echo(json.dumps(sheet.as_json(), indent=2, allow_nan=False))
        return
    from rich.console import Console

    console = Console(highlight=False)
    _print_figures(console, sheet)
    _print_decisions(console, sheet)
    for line in _sentences(sheet):
        console.print(line, markup=False, soft_wrap=True)


def _print_figures(console: Console, sheet: Scoresheet) -> None:
    from rich import box
    from rich.table import Table

    other = sheet.comparison
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
    table.add_column("machine", footer="total score", no_wrap=True)
    table.add_column("", footer=score_symbol(sheet.results), no_wrap=True)
    table.add_column("%", footer=_percent(sheet.omega), justify="right", no_wrap=True)
    if other is not None:
        total = omega(other.results)
        table.add_column(Path(other.run).name, footer=_percent(total), justify="right", no_wrap=True)
        table.add_column("change", footer=_change(sheet.omega, total), justify="right", no_wrap=True)
    published = sheet.references[::-1]  # the paper first
    for column in published:
        title = column.name.replace(" (", "\n(").replace("the ", "the\n")
        table.add_column(title, footer=_percent(column.total), justify="right", no_wrap=True)
    figures = shown_figures(sheet.results)
    for name, result in sheet.results.items():
        for position, (figure, title) in enumerate(figures.items()):
            value = getattr(result, figure)
            cells = ["" if position else name, title, _percent(value)]
            if other is not None:
                theirs = getattr(other.results[name], figure)
                cells += [_percent(theirs), _change(value, theirs)]
            cells += [_percent(getattr(column.results[name], figure)) for column in published]
            table.add_row(*cells, end_section=position == len(figures) - 1)
    console.print(table)


def _print_decisions(console: Console, sheet: Scoresheet) -> None:
    from rich import box
    from rich.table import Table

    if not any(one.quality for one in sheet.decisions):
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("machine", "threshold", "domain"):
        table.add_column(title, no_wrap=True, justify="right" if title == "threshold" else "left")
    for title in ("precision", "recall", "F1"):
        table.add_column(f"{title} %", justify="right", no_wrap=True)
    for one in sheet.decisions:
        for position, (domain, quality) in enumerate(one.quality.items()):
            first = ["", ""] if position else [one.title, f"{one.threshold:.4g}"]
            table.add_row(*first, domain, *map(_percent, (quality.precision, quality.recall, quality.f1)))
    console.print(table)


def _sentences(sheet: Scoresheet) -> list[str]:
    lines = [f"{name}: {result.note}" for name, result in sheet.results.items() if result.note]
    if sheet.undecided:
        lines.append(sheet.undecided)
    years = year_scores(sheet.results)
    if len(years) > 1:
        lines += [f"{year or 'no year'}: {_percent(score)} %" for year, score in years.items()]
    if sheet.interval is not None:
        lines.append(
            f"{LEVEL:.0%} interval of {score_symbol(sheet.results)}: {_percent(sheet.interval.low)} to "
            f"{_percent(sheet.interval.high)} % ({RESAMPLES} draws of the test clips)"
        )
    if (other := sheet.comparison) is not None:
        low, high = other.difference.low, other.difference.high
        lines.append(
            f"against {other.run}: {100 * (sheet.omega - omega(other.results)):+.2f}, {LEVEL:.0%} interval {100 * low:+.2f} to "
            f"{100 * high:+.2f}: {other.difference.verdict} by these clips"
        )
    return lines


def _percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{100 * value:.2f}"


def _change(value: float | None, other: float | None) -> str:
    return "–" if value is None or other is None else f"{100 * (value - other):+.2f}"
