"""How well scores tell anomalies from normal sound: AUC, pAUC and each year's official score of DCASE Task 2.

Owns the metrics as the challenge defines them. It computes no score and writes nothing. Higher scores are more abnormal.

    2020            AUC and pAUC of each machine id; arithmetic means over ids, machines and the two (Koizumi et al., arXiv 2006.05822)
    2021            AUC and pAUC within each domain: its normal clips against its own anomalies; harmonic mean (Kawaguchi et al., arXiv
                    2106.04492)
    2022 and later  AUC of each domain's normal clips against the anomalies of both, pAUC of all clips; harmonic mean Ω (Nishida et al.,
                    arXiv 2506.10097, and the baseline's evaluator)

Recordings without a year are measured as those of 2022 and later.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_trainer.data.clip import MachineSection, unit_words
from asd_trainer.evaluate.roc import area

if TYPE_CHECKING:
    from asd_trainer.data.clip import Clip
    from asd_trainer.evaluate.backend import ScoredClip

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

MAX_FPR = 0.1  # pAUC: the part of the curve with at most one false alarm in ten normal clips
FIGURES = {"auc_source": "AUC (source)", "auc_target": "AUC (target)", "pauc": "pAUC"}
FIGURES_2021 = {**FIGURES, "pauc_source": "pAUC (source)", "pauc_target": "pAUC (target)"}


@dataclass(frozen=True)
class MachineResult:
    """Figures of one machine (or one of its sections), as fractions in [0, 1]; None where the test clips allow none."""

    auc_source: float | None
    """Of the source domain, as the year defines it; all normal clips against all anomalies where there are no domains."""
    auc_target: float | None
    """Of the target domain."""
    pauc: float | None
    """All clips, up to a false alarm rate of 0.1, standardised after McClish: 0.5 is chance. None in 2021."""
    note: str = ""
    """Why a figure is missing, and how many clips have no label."""
    pauc_source: float | None = None
    """In 2021: the source domain's clips alone."""
    pauc_target: float | None = None
    unit: MachineSection | None = field(default=None, compare=False)
    """What was measured."""
    domains: bool = field(default=True, compare=False)
    """Whether its clips have domains."""

    def figures(self) -> dict[str, float]:
        """The figures that there are, by name."""
        return {name: value for name in FIGURES_2021 if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Contrast:
    """A figure as a comparison of clips: which normal ones with which anomalous ones, and up to which false alarm rate."""

    normal: Mask
    anomalous: Mask
    max_fpr: float | None = None


def contrasts(clips: Sequence[Clip]) -> dict[str, Contrast]:
    """The official figures of one unit's clips, all of which have a label; those for which there are clips, by name."""
    anomalous = np.array([clip.label == "anomaly" for clip in clips], np.bool_)
    target = np.array([clip.domain == "target" for clip in clips], np.bool_)
    normal = ~anomalous
    if not any(clip.domain for clip in clips):
        wanted = {"auc_source": Contrast(normal, anomalous), "pauc": Contrast(normal, anomalous, MAX_FPR)}
    elif clips[0].year == 2021:
        wanted = {}
        for domain, inside in (("source", ~target), ("target", target)):
            wanted[f"auc_{domain}"] = Contrast(normal & inside, anomalous & inside)
            wanted[f"pauc_{domain}"] = Contrast(normal & inside, anomalous & inside, MAX_FPR)
    else:
        wanted = {
            "auc_source": Contrast(normal & ~target, anomalous),
            "auc_target": Contrast(normal & target, anomalous),
            "pauc": Contrast(normal, anomalous, MAX_FPR),
        }
    return {name: one for name, one in wanted.items() if one.normal.any() and one.anomalous.any()}


def machine_results(scored: Sequence[ScoredClip]) -> dict[str, MachineResult]:
    """Figures of every unit; keys are machines, with year and section_<number> where there are several of them.

    Clips without a label are left out. A figure for which there are no clips is None and its `note` says why.

    Raises:
        DataSetError: a score is not finite, or no machine has both normal and anomalous clips.
    """
    for one in scored:
        if not math.isfinite(one.score):
            raise DataSetError(f"{one.clip.path}: its score is {one.score}; figures need finite scores")
    units: defaultdict[MachineSection, list[ScoredClip]] = defaultdict(list)
    for one in scored:
        units[one.clip.unit].append(one)
    results = {unit_name(unit, units): _unit_result(unit, clips) for unit, clips in sorted(units.items())}
    if not any(result.figures() for result in results.values()):
        reasons = "; ".join(f"{name}: {result.note}" for name, result in results.items()) or "there are no test clips"
        raise DataSetError(f"nothing to evaluate: {reasons}")
    return results


def unit_name(unit: MachineSection, among: Mapping[MachineSection, object]) -> str:
    """The key of a unit in results: fan, fan_section_01, fan_2020_section_01."""
    return "_".join(unit_words(unit, among, "section_"))


def _unit_result(unit: MachineSection, scored: Sequence[ScoredClip]) -> MachineResult:
    known = [one for one in scored if one.clip.label is not None]
    labels = {one.clip.label for one in known}
    notes = []
    if unknown := len(scored) - len(known):
        notes.append(f"{unknown} of {len(scored)} test clips have no label and are left out")
    if missing := [word for word, label in (("anomalous", "anomaly"), ("normal", "normal")) if label not in labels]:
        wanting = "labelled" if not known else " and no ".join(missing)
        notes.append(f"no {wanting} test clips, so there are no figures")
        return MachineResult(None, None, None, "; ".join(notes), unit=unit)
    scores = np.array([one.score for one in known], np.float64)
    found = contrasts([one.clip for one in known])
    domains = any(one.clip.domain for one in known)
    if not domains:
        notes.append("no domains: the AUC of all clips stands under source")
    else:
        absent = [domain for domain in ("source", "target") if f"auc_{domain}" not in found]
        notes.extend(f"no normal test clips of the {domain} domain, so no AUC ({domain})" for domain in absent)
    values: dict[str, float | None] = {
        name: area(scores, one.normal, one.anomalous, one.max_fpr) for name, one in found.items()
    }
    values = {"auc_source": None, "auc_target": None, "pauc": None, **values}
    return MachineResult(**values, note="; ".join(notes), unit=unit, domains=domains)


def omega(results: Mapping[str, MachineResult]) -> float:
    """The official score of all machines and sections: Ω, for data of 2020 the arithmetic mean; over years, the harmonic mean of theirs.

    Raises:
        DataSetError: there is no figure.
    """
    return _harmonic([np.array(score) for score in year_scores(results).values()]).item()


def year_scores(results: Mapping[str, MachineResult]) -> dict[int, float]:
    """The official score of each year, 0 standing for recordings without a year.

    Raises:
        DataSetError: there is no figure.
    """
    figures = {
        (result.unit or MachineSection(name, 0, "")): {
            figure: np.array(value) for figure, value in result.figures().items()
        }
        for name, result in results.items()
    }
    return {year: score.item() for year, score in official_scores(figures).items()}


def official_scores(figures: Mapping[MachineSection, Mapping[str, F64]]) -> dict[int, F64]:
    """The official score of each year from the figures of its units; figures may be arrays of one shape, each element a case of its own.

    Harmonic means floor each figure at the machine epsilon.

    Raises:
        DataSetError: there is no figure.
    """
    by_year: defaultdict[int, list[tuple[str, list[F64]]]] = defaultdict(list)
    for unit, of_unit in sorted(figures.items()):
        if of_unit:
            by_year[unit.year].append((unit.machine, list(of_unit.values())))
    if not by_year:
        raise DataSetError("there are no figures to take a mean of")
    return {
        year: _mean_of_machines(units)
        if year == 2020
        else _harmonic([value for _, values in units for value in values])
        for year, units in by_year.items()
    }


def overall_score(scores: Mapping[int, F64]) -> F64:
    """One number for several years: the harmonic mean of their scores."""
    return _harmonic(list(scores.values()))


def _mean_of_machines(units: Sequence[tuple[str, Sequence[F64]]]) -> F64:
    ids: defaultdict[str, list[F64]] = defaultdict(list)
    for machine, values in units:
        ids[machine].append(np.mean(values, axis=0))
    return np.asarray(np.mean([np.mean(of_machine, axis=0) for of_machine in ids.values()], axis=0), np.float64)


def _harmonic(values: Sequence[F64]) -> F64:
    floored = [np.maximum(value, sys.float_info.epsilon) for value in values]
    return np.asarray(len(floored) / np.sum([1 / value for value in floored], axis=0), np.float64)


def shown_figures(results: Mapping[str, MachineResult]) -> dict[str, str]:
    """Names and titles of the figures to show: the usual three, those of 2021 where there are any; AUC alone where there are no domains."""
    if results and not any(result.domains for result in results.values()):
        return {"auc_source": "AUC", "pauc": "pAUC"}
    shown = {name for result in results.values() for name in result.figures()}
    if shown & (FIGURES_2021.keys() - FIGURES.keys()):
        return {name: title for name, title in FIGURES_2021.items() if name in shown}
    return dict(FIGURES)


def score_symbol(results: Mapping[str, MachineResult]) -> str:
    """What the official score is called in a table."""
    return "mean" if {result.unit.year for result in results.values() if result.unit} == {2020} else "Ω"


def score_words(results: Mapping[str, MachineResult]) -> str:
    """What the official score is a mean of."""
    years = {result.unit.year for result in results.values() if result.unit}
    if years == {2020}:
        return "mean of AUC and pAUC over ids and machines"
    return "Ω, harmonic mean of the years' scores" if len(years) > 1 else "Ω, harmonic mean of AUCs and pAUCs"
