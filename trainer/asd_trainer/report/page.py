"""A run on one page that people look at: figures, tables, what was missed, and how it sounds.

Owns what the page shows and in which order; the page is one HTML file that asks nothing of the network. Pictures are figures.py's, numbers
are evaluation's and threshold's: nothing is scored here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from asd_daemon.errors import StageError
from asd_trainer.evaluate.evaluation import MAX_FPR, MachineResult, score_symbol, score_words, shown_figures
from asd_trainer.evaluate.published import ReferenceColumn
from asd_trainer.report.figures import Curve, DomainScores, Picture, roc, score_histogram
from asd_trainer.report.maps import EmbeddedMachine, MachineMaps, machine_maps
from asd_trainer.report.mistakes import worst_mistakes
from asd_trainer.training.progress import time_in_words

if TYPE_CHECKING:
    from asd_trainer.data.clip import Clip
    from asd_trainer.evaluate.backend import ScoredClip
    from asd_trainer.evaluate.threshold import SectionDecisions

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

WORST_CLIPS = 10
MISSES = "Anomalous clips that score furthest below their threshold."
ALARMS = "Normal clips that score furthest above their threshold."


@dataclass(frozen=True)
class StageTime:
    """How long a stage took."""

    name: str
    seconds: float


@dataclass(frozen=True)
class ReportData:
    """All that a report shows."""

    name: str
    created_at: datetime
    sections: tuple[SectionDecisions, ...]
    results: Mapping[str, MachineResult]
    """By machine, or machine_section; empty where the data has no labels."""
    omega: float | None
    interval: tuple[float, float] | None
    """95 % interval of Ω."""
    machines: tuple[EmbeddedMachine, ...]
    stages: tuple[StageTime, ...]
    settings: Mapping[str, Any]
    """The recipe, nested."""
    versions: Mapping[str, str]
    references: tuple[ReferenceColumn, ...] = ()


@dataclass(frozen=True)
class Wrong:
    """How many clips of a domain were decided wrongly, each of how many."""

    false_alarms: tuple[int, int]
    """Of the normal clips."""
    missed: tuple[int, int]
    """Of the anomalous ones."""


@dataclass(frozen=True)
class Panel:
    """What the page shows of one section of a machine."""

    section: SectionDecisions
    histogram: Picture
    roc: Picture | None
    counts: Mapping[str, Wrong]
    """By domain, as the section's decision quality."""
    maps: MachineMaps | None
    """With the machine's first section only."""


def write_report(data: ReportData, path: Path, load: Callable[[Clip], F32], rng: np.random.Generator) -> None:
    """Write the page.

    Args:
        data: what to show.
        path: the HTML file; replaced if it is there, whole or not at all.
        load: gives a clip's waveform, float32 (N,) at 16 kHz.
        rng: for the maps, which are drawn from random beginnings.

    Raises:
        RecordingError: a clip that is to be heard can't be read.
        StageError: the file can't be written.
    """
    page = render(data, load, rng)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    except OSError as e:
        raise StageError(f"{path}: the report can't be written: {e.strerror}") from e


def render(data: ReportData, load: Callable[[Clip], F32], rng: np.random.Generator) -> str:
    """The page as a string; arguments and errors as `write_report`."""
    environment = Environment(
        loader=PackageLoader("asd_trainer.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda fraction: f"{100 * fraction:.2f}"
    environment.filters["brief"] = lambda fraction: f"{100 * fraction:.1f}"
    environment.filters["spoken"] = time_in_words
    labelled = any(one.clip.label is not None for section in data.sections for one in section.scored)
    return environment.get_template("report.html").render(
        data=data,
        metrics=shown_figures(data.results),
        score=score_words(data.results),
        symbol=score_symbol(data.results),
        labelled=labelled,
        test_clips=sum(len(section.scored) for section in data.sections),
        panels=_panels(data, rng),
        mistakes=[
            ("misses", "Worst misses", MISSES, "below", worst_mistakes(data.sections, "miss", WORST_CLIPS, load)),
            (
                "alarms",
                "Worst false alarms",
                ALARMS,
                "above",
                worst_mistakes(data.sections, "false alarm", WORST_CLIPS, load),
            ),
        ],
        settings=list(flat_settings(data.settings)),
        total_s=sum(stage.seconds for stage in data.stages),
        partial=MAX_FPR,
    )


def _panels(data: ReportData, rng: np.random.Generator) -> list[Panel]:
    maps = {embedded.machine: machine_maps(embedded, rng) for embedded in data.machines}
    return [_panel(section, maps.pop(section.machine, None)) for section in data.sections]


def _panel(section: SectionDecisions, maps: MachineMaps | None) -> Panel:
    domains = sorted({one.clip.domain or "" for one in section.scored})
    parts = [_domain_scores(section, domain) for domain in domains]
    words = "; ".join(f"{p.title}: {p.normal.size} normal, {p.anomalous.size} anomalous clips" for p in parts)
    histogram = Picture.of(
        score_histogram(parts, np.array(section.training), section.threshold),
        f"Histogram of anomaly scores of {section.title}; {words}; threshold {section.threshold:.4g}",
    )
    curves = roc_curves(section)
    drawn = (
        Picture.of(roc(curves), f"ROC of {section.title}: {'; '.join(curve.label for curve in curves)}")
        if curves
        else None
    )
    counts: dict[str, Wrong] = {domain or "all": _wrong(section, domain) for domain in domains}
    return Panel(section, histogram, drawn, counts, maps)


def _wrong(section: SectionDecisions, domain: str) -> Wrong:
    decided = [
        (one.clip.label, anomalous)
        for one, anomalous in zip(section.scored, section.anomalous, strict=True)
        if (one.clip.domain or "") == domain
    ]
    of_normal = [anomalous for label, anomalous in decided if label == "normal"]
    of_anomalous = [anomalous for label, anomalous in decided if label == "anomaly"]
    return Wrong((sum(of_normal), len(of_normal)), (of_anomalous.count(False), len(of_anomalous)))


def _domain_scores(section: SectionDecisions, domain: str) -> DomainScores:
    own = [one for one in section.scored if (one.clip.domain or "") == domain]
    by_label = {
        label: _scores([one for one in own if one.clip.label == label]) for label in ("normal", "anomaly", None)
    }
    return DomainScores(
        f"{domain} domain" if domain else "all clips", by_label["normal"], by_label["anomaly"], by_label[None]
    )


def roc_curves(section: SectionDecisions) -> tuple[Curve, ...]:
    """The challenge's three views: all clips (with the region of pAUC), and each domain's normal clips against all anomalies."""
    from sklearn.metrics import roc_auc_score, roc_curve

    anomalous = _scores([one for one in section.scored if one.clip.label == "anomaly"])
    curves = []
    for domain in (None, *sorted({one.clip.domain for one in section.scored if one.clip.domain})):
        normal = _scores(
            [one for one in section.scored if one.clip.label == "normal" and domain in (None, one.clip.domain)]
        )
        if not (normal.size and anomalous.size):
            continue
        truth, scores = np.repeat([0, 1], [normal.size, anomalous.size]), np.concatenate([normal, anomalous])
        fpr, tpr, _ = roc_curve(truth, scores)
        if domain is None:
            partial = roc_auc_score(truth, scores, max_fpr=MAX_FPR)
            label = f"all clips, pAUC {100 * partial:.1f}"
        else:
            label = f"{domain} normals, AUC {100 * roc_auc_score(truth, scores):.1f}"
        curves.append(Curve(label, fpr, tpr, partial=domain is None))
    return tuple(curves)


def _scores(scored: Sequence[ScoredClip]) -> F64:
    return np.array([one.score for one in scored], np.float64)


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> Sequence[tuple[str, str]]:
    """Nested settings as dotted keys with their values."""
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            rows += flat_settings(value, f"{prefix}{key}.")
        else:
            words = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            rows.append((f"{prefix}{key}", "–" if value in (None, "") else words))
    return rows
