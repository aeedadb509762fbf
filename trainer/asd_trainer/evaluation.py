"""How well scores tell anomalies from normal sound: AUC, pAUC and Ω of DCASE Task 2, and their table.

Owns the metrics as the challenge defines them (Nishida et al., arXiv 2506.10097, and the baseline's evaluator) and evaluation.json. It
computes no score. Higher scores are more abnormal.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError, StageError

if TYPE_CHECKING:
    from asd_trainer.backend import ScoredClip

EVALUATION_FILE = "evaluation.json"
MAX_FPR = 0.1  # pAUC: the part of the curve with at most one false alarm in ten normal clips
FIGURES = {"auc_source": "AUC (source)", "auc_target": "AUC (target)", "pauc": "pAUC"}


@dataclass(frozen=True)
class MachineResult:
    """Figures of one machine (or one of its sections), as fractions in [0, 1]; None where the test clips allow none."""

    auc_source: float | None
    """Normal clips of the source domain against all anomalies of both domains; all normal clips where there are no domains."""
    auc_target: float | None
    """Normal clips of the target domain against all anomalies of both domains."""
    pauc: float | None
    """All clips, up to a false alarm rate of 0.1, standardised after McClish: 0.5 is chance."""
    note: str = ""
    """Why a figure is missing, and how many clips have no label."""

    def figures(self) -> dict[str, float]:
        """The figures that there are, by name."""
        return {name: value for name in FIGURES if (value := getattr(self, name)) is not None}


def machine_results(scored: Sequence[ScoredClip]) -> dict[str, MachineResult]:
    """Figures of every section; keys are machines, or <machine>_section_<number> for machines with several sections.

    Clips without a label are left out. A figure for which there are no clips is None and its `note` says why.

    Raises:
        DataSetError: a score is not finite, or no machine has both normal and anomalous clips.
    """
    for one in scored:
        if not math.isfinite(one.score):
            raise DataSetError(f"{one.clip.path}: its score is {one.score}; figures need finite scores")
    sections: defaultdict[tuple[str, int, str], list[ScoredClip]] = defaultdict(list)
    for one in scored:
        sections[one.clip.machine, one.clip.year or 0, one.clip.section].append(one)
    units: defaultdict[str, set[tuple[str, int, str]]] = defaultdict(set)
    for key in sections:
        units[key[0]].add(key)
    results = {_name(key, units[key[0]]): _section_result(clips) for key, clips in sorted(sections.items())}
    if not any(result.figures() for result in results.values()):
        reasons = "; ".join(f"{name}: {result.note}" for name, result in results.items()) or "there are no test clips"
        raise DataSetError(f"nothing to evaluate: {reasons}")
    return results


def omega(results: Mapping[str, MachineResult]) -> float:
    """Ω: the harmonic mean of all figures of all machines and sections, each floored at the machine epsilon.

    Raises:
        DataSetError: there is no figure.
    """
    figures = [value for result in results.values() for value in result.figures().values()]
    if not figures:
        raise DataSetError("there are no figures to take a mean of")
    return len(figures) / sum(1 / max(value, sys.float_info.epsilon) for value in figures)


def evaluation_json(results: Mapping[str, MachineResult]) -> dict[str, object]:
    """What evaluation.json holds: omega, machines with the figures that there are, and notes where some are missing."""
    notes = {name: result.note for name, result in results.items() if result.note}
    machines = {name: result.figures() for name, result in results.items()}
    return {"omega": omega(results), "machines": machines, **({"notes": notes} if notes else {})}


def write_evaluation(run: Path, results: Mapping[str, MachineResult]) -> Path:
    """Write evaluation.json into a run folder, whole or not at all.

    Raises:
        StageError: the folder is missing or can't be written.
        DataSetError: there is no figure.
    """
    path = run / EVALUATION_FILE
    text = json.dumps(evaluation_json(results), indent=2, allow_nan=False) + "\n"
    partial = path.with_name(f".{EVALUATION_FILE}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as e:
        raise StageError(f"{path}: can't be written: {e.strerror}") from e
    return path


def print_evaluation(results: Mapping[str, MachineResult], *, as_json: bool = False) -> None:
    """Print the figures on stdout: as the paper's Table 1, in percent, or as evaluation.json holds them.

    Raises:
        DataSetError: there is no figure.
    """
    import click

    if as_json:
        click.echo(json.dumps(evaluation_json(results), indent=2, allow_nan=False))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False)
    table.add_column("machine", footer="total score", no_wrap=True)
    table.add_column("", footer="Ω", no_wrap=True)
    table.add_column("%", footer=_percent(omega(results)), justify="right", no_wrap=True)
    for name, result in results.items():
        for position, (figure, title) in enumerate(FIGURES.items()):
            last = position == len(FIGURES) - 1
            table.add_row("" if position else name, title, _percent(getattr(result, figure)), end_section=last)
    console = Console(highlight=False)
    console.print(table)
    for name, result in results.items():
        if result.note:
            console.print(f"{name}: {result.note}", markup=False, soft_wrap=True)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _name(key: tuple[str, int, str], of_machine: set[tuple[str, int, str]]) -> str:
    machine, year, section = key
    parts = [machine]
    if len({other for _, other, _ in of_machine}) > 1:
        parts.append(str(year) if year else "other")
    if len({other for _, _, other in of_machine}) > 1:
        parts.append(f"section_{section}")
    return "_".join(parts)


def _section_result(scored: Sequence[ScoredClip]) -> MachineResult:
    known = [one for one in scored if one.clip.label is not None]
    scores = np.array([one.score for one in known], np.float64)
    anomalous = np.array([one.clip.label == "anomaly" for one in known], np.bool_)
    target = np.array([one.clip.domain == "target" for one in known], np.bool_)
    notes = []
    if unknown := len(scored) - len(known):
        notes.append(f"{unknown} of {len(scored)} test clips have no label and are left out")
    missing = [word for word, there in (("anomalous", anomalous.any()), ("normal", not anomalous.all())) if not there]
    if missing or not known:
        notes.append(f"no {' and no '.join(missing or ['labelled'])} test clips, so there are no figures")
        return MachineResult(None, None, None, "; ".join(notes))
    auc: dict[str, float | None] = {}
    for domain, of_domain in (("source", ~target), ("target", target)):
        normal = of_domain & ~anomalous
        auc[domain] = _auc(scores, anomalous, normal | anomalous) if normal.any() else None
    if not any(one.clip.domain for one in known):
        notes.append("no domains: the AUC of all clips stands under source")
    else:
        absent = [domain for domain, value in auc.items() if value is None]
        notes.extend(f"no normal test clips of the {domain} domain, so no AUC ({domain})" for domain in absent)
    everything = np.ones_like(anomalous)
    return MachineResult(auc["source"], auc["target"], _auc(scores, anomalous, everything, MAX_FPR), "; ".join(notes))


def _auc(
    scores: NDArray[np.float64], anomalous: NDArray[np.bool_], chosen: NDArray[np.bool_], max_fpr: float | None = None
) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(anomalous[chosen], scores[chosen], max_fpr=max_fpr))
