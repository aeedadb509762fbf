"""What evaluate writes and prints: evaluation.json, the tables, decisions, and two runs side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from asd_daemon.errors import DataSetError, StageError
from asd_trainer.data.clip import Clip
from asd_trainer.data.naming import Domain, Label, Split
from asd_trainer.evaluate.backend import RunScores, ScoredClip
from asd_trainer.evaluate.evaluation import MachineResult, machine_results, omega
from asd_trainer.evaluate.scoresheet import Scoresheet, print_evaluation, scoresheet, write_evaluation

RESULTS = {"fan": MachineResult(0.5644, 0.586, 0.5205), "valve": MachineResult(0.7862, 0.867, 0.6794)}
SHEET = Scoresheet(RESULTS, None)


def run_scores(seed: int, gap: float, *, training: int = 40) -> RunScores:
    """Scores of two machines; anomalies lie `gap` standard deviations above normal clips. The noise follows from the seed alone."""
    rng = np.random.default_rng(seed)
    test, train = [], []
    domains: tuple[Domain, ...] = ("source", "target")
    labels: tuple[Label, ...] = ("normal", "anomaly")

    def clip(machine: str, split: Split, number: int, domain: Domain, label: Label) -> Clip:
        return Clip(
            Path(f"{machine}/{split}/{domain}_{label}_{number}.wav"),
            machine,
            "00",
            split,
            domain,
            label,
            (),
            None,
            2025,
        )

    for machine in ("fan", "valve"):
        for domain in domains:
            for label in labels:
                for number in range(25):
                    score = rng.gamma(9, 0.02) + gap * 0.06 * (label == "anomaly")
                    test.append(ScoredClip(clip(machine, "test", number, domain, label), float(score)))
        train += [
            ScoredClip(clip(machine, "train", number, "source", "normal"), float(rng.gamma(9, 0.02)))
            for number in range(training)
        ]
    return RunScores(tuple(test), tuple(train), {})


def sheet_of(scores: RunScores, against: RunScores | None = None) -> Scoresheet:
    return scoresheet(scores, np.random.default_rng(0), None if against is None else ("runs/b", against))


def test_evaluation_json_has_the_contract_and_replaces_an_older_one(tmp_path: Path) -> None:
    write_evaluation(tmp_path, Scoresheet({"old": MachineResult(0.5, 0.5, 0.5)}, None))
    path = write_evaluation(tmp_path, SHEET)
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
        write_evaluation(tmp_path / "gone", SHEET)


def test_the_printed_table_has_percent_with_two_decimals_and_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    print_evaluation(SHEET)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert ["fan", "AUC", "(source)", "56.44"] in lines
    assert ["AUC", "(target)", "58.60"] in lines
    assert ["pAUC", "52.05"] in lines
    assert ["total", "score", "Ω", f"{100 * omega(RESULTS):.2f}"] in lines


def test_the_printed_json_is_what_the_file_holds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sheet = sheet_of(run_scores(0, 1), run_scores(1, 1))
    print_evaluation(sheet, as_json=True)
    assert json.loads(capsys.readouterr().out) == json.loads(write_evaluation(tmp_path, sheet).read_text())


def test_a_scoresheet_has_figures_interval_and_decisions() -> None:
    scores = run_scores(0, 1)
    content = sheet_of(scores).as_json()
    assert content["omega"] == pytest.approx(omega(machine_results(scores.test)), abs=1e-12)
    low, high = content["interval"]
    assert low < content["omega"] < high
    assert content["years"] == {"2025": content["omega"]}
    assert content["decisions"]["fan"].keys() == {"threshold", "source", "target"}
    assert content["decisions"]["fan"]["source"].keys() == {"precision", "recall", "f1"}


def test_a_clearly_better_run_is_told_apart_and_an_equal_one_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = run_scores(0, 2.5), run_scores(1, 0.5)
    better = sheet_of(good, bad).as_json()["against"]
    worse = sheet_of(bad, good).as_json()["against"]
    assert better["interval"][0] > 0
    assert better["better_share"] == 1.0
    assert worse["difference"] == -better["difference"]
    assert worse["interval"] == pytest.approx([-better["interval"][1], -better["interval"][0]], abs=1e-12)
    same = sheet_of(good, good).as_json()["against"]
    assert (same["difference"], same["interval"], same["better_share"]) == (0.0, [0.0, 0.0], 0.5)
    print_evaluation(sheet_of(good, bad))
    printed = capsys.readouterr().out
    assert "against runs/b: +" in printed
    assert ": better" in printed


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    """Two runs that score alike up to small noise differ by far less than either could move."""
    one = run_scores(0, 1)
    rng = np.random.default_rng(9)
    other = RunScores(
        tuple(ScoredClip(s.clip, s.score + float(rng.normal(0, 1e-3))) for s in one.test), one.training, {}
    )
    sheet = sheet_of(one, other)
    assert sheet.comparison is not None
    assert sheet.interval is not None
    difference = sheet.comparison.difference
    assert difference.high - difference.low < 0.3 * (sheet.interval.high - sheet.interval.low)


def test_runs_on_other_clips_are_not_compared() -> None:
    fewer = run_scores(1, 1)
    with pytest.raises(DataSetError, match="different test clips"):
        sheet_of(run_scores(0, 1), RunScores(fewer.test[1:], fewer.training, {}))


def test_without_training_scores_there_are_figures_and_a_word_about_decisions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sheet = sheet_of(run_scores(0, 1, training=1))
    assert sheet.decisions == ()
    print_evaluation(sheet)
    assert "no decisions: fan: a threshold needs" in capsys.readouterr().out
    assert "no decisions" in sheet.as_json()["notes"]["decisions"]
