"""The challenge's way of counting: submissions read back as the official evaluators read them give the figures that evaluate prints.

Each year's evaluator sorts the rows of a submission and of its ground truth by file name and pairs them; the figures are scikit-learn's.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import hmean
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable
from asd_trainer.data.labels import with_labels
from asd_trainer.data.naming import Domain
from asd_trainer.evaluate.backend import ScoredClip
from asd_trainer.evaluate.evaluation import machine_results, omega
from asd_trainer.evaluate.submission import write_submission
from asd_trainer.evaluate.threshold import SectionDecisions, decide_sections

MACHINES = ("ToyCar", "fan")
CLIPS = 60  # of each section (in 2021, of each domain)
F64 = NDArray[np.float64]


def rows(path: Path) -> F64:
    """The second column of a file without a header, ordered by its first."""
    with path.open(newline="") as stream:
        return np.array([float(value) for _, value in sorted(csv.reader(stream))])


def sections(year: int) -> tuple[str, ...]:
    return {2020: ("01", "03"), 2021: ("03", "04"), 2022: ("03", "04", "05")}.get(year, ("00",))


def anonymous_clips(year: int) -> list[Clip]:
    """Test clips as an evaluation set names them."""
    clips = []
    for machine in MACHINES:
        for section in sections(year):
            for number in range(CLIPS * (2 if year == 2021 else 1)):
                domain: Domain | None = ("source", "target")[number // CLIPS] if year == 2021 else None
                stem = {
                    2020: f"id_{section}_{number:08d}",
                    2021: f"section_{section}_{domain}_test_{number % CLIPS:04d}",
                }.get(year, f"section_{section}_{number:04d}")
                path = Path("eval_data") / machine / "test" / f"{stem}.wav"
                clips.append(Clip(path, machine, section, "test", domain, None, (), None, year))
    return clips


def write_truth(root: Path, clips: Sequence[Clip], year: int, rng: np.random.Generator) -> Path:
    """What the year's evaluator knows: a list in 2020, else a folder of ground truth; gives what --labels takes."""
    if year == 2020:
        lines = []
        for machine in MACHINES:
            lines.append(machine)
            for clip in (one for one in clips if one.machine == machine):
                word = rng.integers(2)
                lines.append(f"{clip.path.name},{('normal', 'anomaly')[word]}_{clip.path.name},{word}")
        listed = root / "eval_data_list.csv"
        listed.write_text("\n".join(lines) + "\n")
        return listed
    for folder in ("ground_truth_data", "ground_truth_domain"):
        (root / folder).mkdir()
    for machine in MACHINES:
        for section in sections(year):
            own = [clip for clip in clips if (clip.machine, clip.section) == (machine, section)]
            for domain in ("source_", "target_") if year == 2021 else ("",):
                chosen = [clip for clip in own if clip.domain is None or domain == f"{clip.domain}_"]
                name = f"ground_truth_{machine}_section_{section}_{domain}test.csv"
                for folder in ("ground_truth_data", "ground_truth_domain"):
                    drawn = rng.permutation(len(chosen)) % 2
                    lines = [f"{clip.path.name},{word}" for clip, word in zip(chosen, drawn, strict=True)]
                    (root / folder / name).write_text("\n".join(lines) + "\n")
    return root


def official_2020(submission: Path, truth: Path) -> float:
    with truth.open(newline="") as stream:
        listed = list(csv.reader(stream))
    figures, machine = [], ""
    labels: dict[tuple[str, str], dict[str, int]] = {}
    for row in listed:
        if len(row) == 1:
            machine = row[0]
        else:
            labels.setdefault((machine, row[0][3:5]), {})[row[0]] = int(row[2])
    for (machine, number), known in labels.items():
        scores = rows(submission / f"anomaly_score_{machine}_id_{number}.csv")
        anomalous = [known[name] for name in sorted(known)]
        figures.append([roc_auc_score(anomalous, scores), roc_auc_score(anomalous, scores, max_fpr=0.1)])
    return float(np.mean(figures))


def official_2021(submission: Path, truth: Path) -> float:
    figures = []
    for path in sorted((truth / "ground_truth_data").iterdir()):
        anomalous, scores = rows(path), rows(submission / path.name.replace("ground_truth", "anomaly_score"))
        figures += [roc_auc_score(anomalous, scores), roc_auc_score(anomalous, scores, max_fpr=0.1)]
    return float(hmean(figures))


def official_2022(submission: Path, truth: Path) -> float:
    """Of 2022 and later."""
    figures = []
    for path in sorted((truth / "ground_truth_data").iterdir()):
        anomalous, target = rows(path), rows(truth / "ground_truth_domain" / path.name)
        scores = rows(submission / path.name.replace("ground_truth", "anomaly_score"))
        figures.append(roc_auc_score(anomalous, scores, max_fpr=0.1))
        for domain in (0, 1):
            counted = (target == domain) | (anomalous == 1)
            figures.append(roc_auc_score(anomalous[counted], scores[counted]))
    return float(hmean(figures))


def official_decisions(submission: Path, truth: Path, section: SectionDecisions) -> dict[str, list[float]]:
    """Precision, recall and F1 of each domain among its own clips, of 2022 and later."""
    name = f"{section.machine}_section_{section.section}_test.csv"
    anomalous, target = (
        rows(truth / folder / f"ground_truth_{name}") for folder in ("ground_truth_data", "ground_truth_domain")
    )
    decided = rows(submission / f"decision_result_{name}")
    return {
        word: list(
            precision_recall_fscore_support(
                anomalous[target == domain], decided[target == domain], average="binary", zero_division=0
            )[:3]
        )
        for domain, word in enumerate(("source", "target"))
    }


@pytest.mark.parametrize("year", [2020, 2021, 2022, 2025])
def test_the_official_evaluator_finds_the_figures_of_evaluate(year: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(year)
    table = ClipTable(tuple(anonymous_clips(year)))
    (tmp_path / "evaluator").mkdir()
    truth = write_truth(tmp_path / "evaluator", table.clips, year, rng)
    labelled = with_labels(table, [truth])
    assert not labelled.problems
    scores = rng.integers(0, 40, len(table.clips)) / 7  # with ties
    normal = [
        ScoredClip(Clip(Path("n.wav"), machine, section, "train", "source", "normal", (), None, year), score)
        for machine in MACHINES
        for section in sections(year)
        for score in rng.gamma(4.0, 1.0, 50)
    ]
    known = [ScoredClip(clip, float(score)) for clip, score in zip(labelled.clips, scores, strict=True)]
    blind = [ScoredClip(clip, float(score)) for clip, score in zip(table.clips, scores, strict=True)]
    write_submission(tmp_path / "team", decide_sections(blind, normal), {})
    official = {2020: official_2020, 2021: official_2021}.get(year, official_2022)
    assert omega(machine_results(known)) == pytest.approx(official(tmp_path / "team", truth), abs=1e-9)
    if year >= 2022:
        for section in decide_sections(known, normal):
            found = {word: [one.precision, one.recall, one.f1] for word, one in section.quality.items()}
            for word, expected in official_decisions(tmp_path / "team", truth, section).items():
                assert found[word] == pytest.approx(expected, abs=1e-9)
