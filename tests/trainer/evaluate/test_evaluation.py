"""AUC, pAUC and Ω against scikit-learn, against an implementation from the definitions, and against the paper's table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from asd_daemon.errors import DataSetError
from asd_trainer.data.dataset import Clip
from asd_trainer.data.naming import Domain, Label
from asd_trainer.evaluate.backend import ScoredClip
from asd_trainer.evaluate.evaluation import (
    MachineResult,
    machine_results,
    omega,
    score_symbol,
    score_words,
    shown_figures,
    year_scores,
)
from asd_trainer.evaluate.published import table_1


def scored(
    score: float,
    label: Label | None,
    domain: Domain | None = "source",
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
    published = table_1()[column]
    assert 100 * omega(published.results) == pytest.approx(total, abs=0.006)
    assert published.total == pytest.approx(total / 100, abs=6e-5)


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


def test_a_machine_without_target_clips_has_the_other_figures_and_says_so() -> None:
    result = machine_results([scored(0.1, "normal"), scored(0.2, "normal"), scored(0.15, "anomaly")])["fan"]
    assert result.figures().keys() == {"auc_source", "pauc"}
    assert result.auc_source == 0.5
    assert "target" in result.note


def test_a_machine_without_anomalies_is_noted_beside_one_with_figures() -> None:
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


def random_unit(
    rng: np.random.Generator, machine: str, year: int | None, section: str, domains: Sequence[Domain | None]
) -> list[ScoredClip]:
    labels: tuple[Label, ...] = ("normal", "anomaly")
    return [
        scored(
            float(rng.integers(0, 12)) + (label == "anomaly"),
            label,
            domain,
            machine=machine,
            section=section,
            year=year,
        )
        for domain in domains
        for label in labels
        for _ in range(15)
    ]


def of(clips: Sequence[ScoredClip], label: Label, *domains: Domain | None) -> list[float]:
    return [
        one.score for one in clips if one.clip.label == label and one.clip.domain in (domains or (one.clip.domain,))
    ]


def test_the_score_of_2020_is_the_mean_over_ids_then_machines_of_auc_and_pauc() -> None:
    rng = np.random.default_rng(0)
    units = {
        ("fan", "00"): random_unit(rng, "fan", 2020, "00", [None]),
        ("fan", "02"): random_unit(rng, "fan", 2020, "02", [None]),
        ("pump", "00"): random_unit(rng, "pump", 2020, "00", [None]),
    }
    means = {}
    for key, clips in units.items():
        normal, anomalous = of(clips, "normal"), of(clips, "anomaly")
        means[key] = (auc_by_pairs(normal, anomalous) + pauc_by_trapezoids(normal, anomalous)) / 2
    expected = ((means["fan", "00"] + means["fan", "02"]) / 2 + means["pump", "00"]) / 2
    results = machine_results([one for clips in units.values() for one in clips])
    assert omega(results) == pytest.approx(expected, abs=1e-9)
    assert year_scores(results) == {2020: omega(results)}
    assert shown_figures(results) == {"auc_source": "AUC", "pauc": "pAUC"}
    assert score_symbol(results) == "mean"
    assert score_words(results).startswith("mean of AUC and pAUC")


def test_figures_of_2021_stay_within_each_domain() -> None:
    clips = random_unit(np.random.default_rng(1), "fan", 2021, "00", ["source", "target"])
    results = machine_results(clips)
    figures = results["fan"].figures()
    expected = {}
    domains: tuple[Domain, ...] = ("source", "target")
    for domain in domains:
        expected[f"auc_{domain}"] = auc_by_pairs(of(clips, "normal", domain), of(clips, "anomaly", domain))
        expected[f"pauc_{domain}"] = pauc_by_trapezoids(of(clips, "normal", domain), of(clips, "anomaly", domain))
    assert figures == pytest.approx(expected, abs=1e-9)
    assert omega(results) == pytest.approx(4 / sum(1 / value for value in expected.values()), abs=1e-9)
    assert list(shown_figures(results)) == ["auc_source", "auc_target", "pauc_source", "pauc_target"]


def test_several_years_have_a_score_each_and_one_machine_name_is_two_machines() -> None:
    rng = np.random.default_rng(2)
    old, new = random_unit(rng, "fan", 2020, "00", [None]), random_unit(rng, "fan", 2023, "00", ["source", "target"])
    results = machine_results([*old, *new])
    assert list(results) == ["fan_2020", "fan_2023"]
    years = year_scores(results)
    assert years[2020] == pytest.approx(omega(machine_results(old)), abs=1e-12)
    assert years[2023] == pytest.approx(omega(machine_results(new)), abs=1e-12)
    assert omega(results) == pytest.approx(2 / (1 / years[2020] + 1 / years[2023]), abs=1e-12)


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


def test_omega_of_nothing_is_refused() -> None:
    with pytest.raises(DataSetError, match="no figures"):
        omega({"fan": MachineResult(None, None, None, "no anomalous test clips")})
