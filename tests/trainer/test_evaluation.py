"""AUC, pAUC and Ω against scikit-learn, against an implementation from the definitions, and against the paper's table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from asd_daemon.errors import DataSetError, StageError
from asd_trainer.backend import ScoredClip
from asd_trainer.dataset import Clip
from asd_trainer.evaluation import (
    MachineResult,
    evaluation_json,
    machine_results,
    omega,
    print_evaluation,
    write_evaluation,
)

# Table 1 of the paper, in percent: AUC source, AUC target, pAUC of each machine; baseline MSE, baseline Mahalanobis, the paper's system
TABLE_1 = {
    "ToyCar": [(71.05, 53.52, 49.70), (73.17, 50.91, 49.05), (96.82, 78.84, 63.57)],
    "ToyTrain": [(61.76, 56.46, 50.19), (50.87, 46.15, 48.32), (57.96, 62.72, 49.89)],
    "bearing": [(66.53, 53.15, 61.12), (63.63, 59.03, 61.86), (55.80, 63.84, 53.68)],
    "fan": [(70.96, 38.75, 49.46), (77.99, 38.56, 50.82), (56.44, 58.60, 52.05)],
    "gearbox": [(64.80, 50.49, 52.49), (73.26, 51.61, 55.07), (80.16, 76.08, 62.05)],
    "slider": [(70.10, 48.77, 52.32), (73.79, 50.27, 53.61), (78.50, 62.94, 54.05)],
    "valve": [(63.53, 67.18, 57.35), (56.22, 61.00, 52.53), (78.62, 86.70, 67.94)],
}


def scored(
    score: float,
    label: Literal["normal", "anomaly"] | None,
    domain: Literal["source", "target"] | None = "source",
    *,
    machine: str = "fan",
    section: str = "00",
    year: int | None = 2025,
) -> ScoredClip:
    return ScoredClip(Clip(Path(f"{machine}.wav"), machine, section, "test", domain, label, (), None, year), score)


def auc_by_pairs(normal: Sequence[float], anomalous: Sequence[float]) -> float:
    """The share of pairs in which the anomaly scores higher; a tie is half a pair."""
    wins = sum((a > n) + 0.5 * (a == n) for a in anomalous for n in normal)
    return wins / (len(normal) * len(anomalous))


def pauc_by_trapezoids(normal: Sequence[float], anomalous: Sequence[float], limit: float = 0.1) -> float:
    """Area under the ROC curve left of `limit`, scaled after McClish so that chance is 0.5 and perfection 1."""
    area, fpr, tpr = 0.0, 0.0, 0.0
    for threshold in sorted({*normal, *anomalous}, reverse=True):
        next_fpr = sum(n >= threshold for n in normal) / len(normal)
        next_tpr = sum(a >= threshold for a in anomalous) / len(anomalous)
        if next_fpr >= limit:
            at_limit = tpr + (next_tpr - tpr) * (limit - fpr) / (next_fpr - fpr)
            area += (limit - fpr) * (tpr + at_limit) / 2
            break
        area += (next_fpr - fpr) * (tpr + next_tpr) / 2
        fpr, tpr = next_fpr, next_tpr
    least = limit**2 / 2
    return 0.5 * (1 + (area - least) / (limit - least))


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 25), st.integers(0, 25)),
    levels=st.sampled_from([3, 10, 1000, 10**9]),
)
@settings(max_examples=80, deadline=None)
def test_figures_of_random_scores_with_ties_equal_their_definitions(
    seed: int, sizes: tuple[int, int, int, int], levels: int
) -> None:
    rng = np.random.default_rng(seed)
    draws = [
        (rng.integers(0, levels, size) / levels + shift).tolist()
        for size, shift in zip(sizes, (0, 0.1, 0.2, 0.1), strict=True)
    ]
    normal_source, normal_target, anomalous_source, anomalous_target = draws
    clips = [
        *(scored(s, "normal", "source") for s in normal_source),
        *(scored(s, "normal", "target") for s in normal_target),
        *(scored(s, "anomaly", "source") for s in anomalous_source),
        *(scored(s, "anomaly", "target") for s in anomalous_target),
    ]
    order = rng.permutation(len(clips))
    (result,) = machine_results([clips[i] for i in order]).values()
    anomalous = anomalous_source + anomalous_target
    assert result.auc_source == pytest.approx(auc_by_pairs(normal_source, anomalous), abs=1e-9)
    assert result.auc_target == pytest.approx(auc_by_pairs(normal_target, anomalous), abs=1e-9)
    assert result.pauc == pytest.approx(pauc_by_trapezoids(normal_source + normal_target, anomalous), abs=1e-9)
    labels: NDArray[np.int64] = np.array([0] * (sizes[0] + sizes[1]) + [1] * len(anomalous))
    expected = roc_auc_score(labels, np.array(normal_source + normal_target + anomalous), max_fpr=0.1)
    assert result.pauc == pytest.approx(expected, abs=1e-9)
    assert result.note == ""


@pytest.mark.parametrize(("column", "total"), [(0, 56.26), (1, 55.334), (2, 64.411)])
def test_omega_of_the_papers_table_is_its_total_score(column: int, total: float) -> None:
    """The table prints 55.33 for the second column and 64.41 for the third; from its rounded numbers 55.335 and 64.411 follow."""
    results = {}
    for name, columns in TABLE_1.items():
        source, target, pauc = (value / 100 for value in columns[column])
        results[name] = MachineResult(source, target, pauc)
    assert 100 * omega(results) == pytest.approx(total, abs=0.006)


def test_perfect_and_reversed_scores_give_one_and_the_floor() -> None:
    normal, anomalous = [0.1, 0.2, 0.3], [0.4, 0.5]
    clips = [scored(s, "normal") for s in normal] + [scored(s, "normal", "target") for s in normal]
    clips += [scored(s, "anomaly") for s in anomalous]
    perfect = machine_results(clips)
    assert perfect == {"fan": MachineResult(1.0, 1.0, 1.0)}
    assert omega(perfect) == 1.0
    reversed_ = machine_results([ScoredClip(one.clip, -one.score) for one in clips])
    assert reversed_["fan"].auc_source == 0.0
    assert 0 < omega(reversed_) < 1e-15


def test_sections_and_years_of_a_machine_have_results_of_their_own() -> None:
    def unit(machine: str, section: str, year: int | None) -> list[ScoredClip]:
        return [
            scored(0.1, "normal", machine=machine, section=section, year=year),
            scored(0.2, "normal", "target", machine=machine, section=section, year=year),
            scored(0.3, "anomaly", machine=machine, section=section, year=year),
        ]

    units = [
        ("fan", "01", 2022),
        ("fan", "00", 2022),
        ("valve", "00", 2025),
        ("slider", "00", 2023),
        ("slider", "00", 2024),
    ]
    clips = [clip for where in units for clip in unit(*where)]
    assert list(machine_results(clips)) == ["fan_section_00", "fan_section_01", "slider_2023", "slider_2024", "valve"]


def test_a_machine_without_target_clips_has_the_other_figures_and_says_so(tmp_path: Path) -> None:
    results = machine_results([scored(0.1, "normal"), scored(0.2, "normal"), scored(0.15, "anomaly")])
    assert results["fan"].auc_source == 0.5
    assert results["fan"].auc_target is None
    content = json.loads(write_evaluation(tmp_path, results).read_text())
    assert content["machines"]["fan"].keys() == {"auc_source", "pauc"}
    assert "target" in content["notes"]["fan"]
    assert content["omega"] == pytest.approx(omega(results))


def test_a_machine_without_anomalies_is_noted_beside_one_with_figures(capsys: pytest.CaptureFixture[str]) -> None:
    clips = [
        scored(0.1, "normal"),
        scored(0.1, "normal", "target"),
        scored(0.3, "anomaly"),
        scored(0.3, "normal", machine="lathe"),
    ]
    results = machine_results(clips)
    assert results["lathe"].figures() == {}
    assert "no anomalous test clips" in results["lathe"].note
    assert omega(results) == 1.0
    print_evaluation(results)
    printed = capsys.readouterr().out
    assert "lathe: no anomalous test clips" in printed
    assert "–" in printed


def test_clips_without_domains_stand_under_source_and_unlabelled_ones_are_counted() -> None:
    clips = [scored(0.1, "normal", None), scored(0.2, "anomaly", None), scored(0.3, None, None)]
    result = machine_results(clips)["fan"]
    assert (result.auc_source, result.auc_target, result.pauc) == (1.0, None, 1.0)
    assert "1 of 3 test clips have no label" in result.note
    assert "no domains" in result.note


@pytest.mark.parametrize(
    ("clips", "reason"),
    [
        ([], "there are no test clips"),
        ([scored(0.1, None)], "no label"),
        ([scored(0.1, "normal"), scored(0.2, "normal", "target")], "fan: no anomalous"),
        ([scored(0.1, "anomaly")], "fan: no normal"),
        ([scored(float("nan"), "anomaly"), scored(0.1, "normal")], "score is nan"),
    ],
)
def test_data_that_allows_no_figure_is_refused_with_its_reason(clips: list[ScoredClip], reason: str) -> None:
    with pytest.raises(DataSetError, match=reason):
        machine_results(clips)


RESULTS = {"fan": MachineResult(0.5644, 0.586, 0.5205), "valve": MachineResult(0.7862, 0.867, 0.6794)}


def test_evaluation_json_has_the_contract_and_replaces_an_older_one(tmp_path: Path) -> None:
    write_evaluation(tmp_path, {"old": MachineResult(0.5, 0.5, 0.5)})
    path = write_evaluation(tmp_path, RESULTS)
    assert json.loads(path.read_text()) == {
        "omega": omega(RESULTS),
        "machines": {
            "fan": {"auc_source": 0.5644, "auc_target": 0.586, "pauc": 0.5205},
            "valve": {"auc_source": 0.7862, "auc_target": 0.867, "pauc": 0.6794},
        },
    }
    assert [p.name for p in tmp_path.iterdir()] == ["evaluation.json"]


def test_evaluation_json_in_a_missing_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"gone/evaluation\.json"):
        write_evaluation(tmp_path / "gone", RESULTS)


def test_the_printed_table_has_percent_with_two_decimals_and_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    print_evaluation(RESULTS)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert ["fan", "AUC", "(source)", "56.44"] in lines
    assert ["AUC", "(target)", "58.60"] in lines
    assert ["pAUC", "52.05"] in lines
    assert ["total", "score", "Ω", f"{100 * omega(RESULTS):.2f}"] in lines


def test_the_printed_json_is_what_the_file_holds(capsys: pytest.CaptureFixture[str]) -> None:
    print_evaluation(RESULTS, as_json=True)
    assert json.loads(capsys.readouterr().out) == evaluation_json(RESULTS)


def test_omega_of_nothing_is_refused() -> None:
    with pytest.raises(DataSetError, match="no figures"):
        omega({"fan": MachineResult(None, None, None, "no anomalous test clips")})
