"""asd-train evaluate and report as people use them, on runs with fresh weights: files, figures, labels, comparisons, and mistakes."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from asd_trainer.cli.program import main
from asd_trainer.data.clip import Clip
from asd_trainer.data.naming import Domain, Label
from asd_trainer.evaluate import embeddings
from asd_trainer.evaluate.backend import RunScores, ScoredClip
from asd_trainer.evaluate.published import references, table_1
from asd_trainer.evaluate.scoresheet import print_evaluation, scoresheet
from asd_trainer.networks.embedder import load_embedder
from asd_trainer.recipe.recipe import load_recipe
from asd_trainer.report.summary import report_data, stage_times, versions
from asd_trainer.training.run_folder import claim_run
from asd_trainer.training.stage_mark import write_mark
from rig.recordings import write_trained_run
from rig.tones import write_tones


def invoke(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones"), train=6, test=4)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "one"
    run.mkdir()
    claim_run(run, load_recipe("smoke", []))
    return write_trained_run(run, data)


@pytest.fixture
def unlabelled(data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The recordings with anonymous test names, and the list that tells what they are."""
    root, lines = tmp_path / "anonymous", []
    for machine in ("hummer", "singer"):
        lines.append(machine)
        (root / machine).mkdir(parents=True)
        (root / machine / "train").symlink_to(data / machine / "train")
        (root / machine / "test").mkdir()
        for number, path in enumerate(sorted((data / machine / "test").iterdir())):
            name = f"section_00_{number:04d}.wav"
            (root / machine / "test" / name).symlink_to(path)
            lines.append(f"{name},{path.name}")
    listed = tmp_path / "eval_data_list.csv"
    listed.write_text("\n".join(lines) + "\n")
    return root, listed


def test_evaluate_gives_interval_decisions_and_the_same_again(run: Path) -> None:
    first = invoke("evaluate", run, "--threads", "1")
    assert first.exit_code == 0, first.output
    assert "95% interval of Ω" in first.output
    assert "precision %" in first.output
    content = json.loads((run / "evaluation.json").read_text())
    assert content["interval"][0] <= content["omega"] <= content["interval"][1]
    assert set(content["decisions"]) == set(content["machines"]) == {"hummer", "singer"}
    again = invoke("evaluate", run, "--json", "--threads", "1")
    assert json.loads(again.stdout) == content


def test_evaluate_against_another_run_compares_on_the_same_clips(run: Path, data: Path, tmp_path: Path) -> None:
    other = write_trained_run(tmp_path / "other", data)
    result = invoke("evaluate", run, "--against", other, "--json", "--threads", "1")
    assert result.exit_code == 0, result.output
    against = json.loads(result.stdout)["against"]
    assert against["run"] == str(other)
    assert against["difference"] == 0  # the same weights
    assert against["interval"] == [0, 0]
    missing = invoke("evaluate", run, "--against", tmp_path / "none", "--threads", "1")
    assert missing.exit_code == 2
    assert "none" in missing.stderr


def test_labels_give_anonymous_clips_the_figures_of_labelled_ones(run: Path, unlabelled: tuple[Path, Path]) -> None:
    root, listed = unlabelled
    expected = json.loads(invoke("evaluate", run, "--json", "--threads", "1").stdout)
    result = invoke("evaluate", run, "--data", root, "--labels", listed, "--json", "--threads", "1")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["machines"] == expected["machines"]
    assert found["omega"] == expected["omega"]


def test_unlabelled_clips_can_be_submitted_but_not_measured(
    run: Path, unlabelled: tuple[Path, Path], tmp_path: Path
) -> None:
    root, _ = unlabelled
    refused = invoke("evaluate", run, "--data", root, "--threads", "1")
    assert refused.exit_code == 2
    assert "nothing to evaluate: hummer: 16 of 16 test clips have no label" in refused.stderr
    result = invoke("evaluate", run, "--data", root, "--submission", tmp_path / "out", "--threads", "1")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "Unnamed_NONE_task2_1.meta.yaml",
        "anomaly_score_hummer_section_00_test.csv",
        "anomaly_score_singer_section_00_test.csv",
        "decision_result_hummer_section_00_test.csv",
        "decision_result_singer_section_00_test.csv",
    ]
    meta = yaml.safe_load((tmp_path / "out" / "Unnamed_NONE_task2_1.meta.yaml").read_text())
    embedder = load_embedder(run)
    complexity = meta["system"]["complexity"]
    assert complexity["total_parameters"] == sum(parameter.numel() for parameter in embedder.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        embedder(torch.zeros(1, 1024, 128))
    assert complexity["MACS"] == pytest.approx(counter.get_total_flops() / 2)
    with (tmp_path / "out" / "anomaly_score_hummer_section_00_test.csv").open() as stream:
        rows = list(csv.reader(stream))
    assert [name for name, _ in rows] == [f"section_00_{n:04d}.wav" for n in range(16)]


def test_a_submission_of_labelled_clips_prints_figures_and_carries_the_description(run: Path, tmp_path: Path) -> None:
    described = tmp_path / "who.yaml"
    described.write_text("label: Doe_ACME_task2_2\nname: ours\n")
    result = invoke(
        "evaluate", run, "--submission", tmp_path / "out", "--description", described, "--json", "--threads", "1"
    )
    assert result.exit_code == 0, result.output
    assert "omega" in json.loads(result.stdout)
    assert "label: Doe_ACME_task2_2" in (tmp_path / "out" / "Doe_ACME_task2_2.meta.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--description", "who.yaml"], "give that too"),
        (["--submission", "out", "--description", "gone.yaml"], "gone.yaml: can't be read"),
        (["--labels", "gone.csv"], "gone.csv: can't be read as a label list"),
    ],
)
def test_a_wrong_word_gives_one_line(
    run: Path, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("evaluate", run, *arguments, "--threads", "1")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_report_after_evaluate_embeds_nothing_and_shows_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = json.loads(invoke("evaluate", run, "--json", "--threads", "1").stdout)
    write_mark(run / "stages" / "finetune", 83.0, "cpu", 1)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("embedded again")

    monkeypatch.setattr(embeddings, "embed_clips", refuse)
    result = invoke("report", run, "--threads", "1")
    assert result.exit_code == 0, result.output
    assert f"report: {run / 'report.html'}" in result.stdout
    page = (run / "report.html").read_text()
    for part in ("hummer", "singer", f"{100 * content['omega']:.2f}", "1 min 23 s", "finetune.arcface.margin", "torch"):
        assert part in page
    assert "the paper" not in page  # its machines are others


def test_stage_times_come_in_order_and_only_from_marks_that_tell(tmp_path: Path) -> None:
    for stage, seconds in (("finetune", 12.5), ("pretrain", 3.0)):
        (tmp_path / "stages" / stage).mkdir(parents=True)
        write_mark(tmp_path / "stages" / stage, seconds, "cpu", 1)
    for stage, text in (("separate", ""), ("odd", "[1]"), ("none", '{"schema": 1, "stage": "none", "seconds": null}')):
        (tmp_path / "stages" / stage).mkdir(parents=True)
        (tmp_path / "stages" / stage / "done").write_text(text)
    assert [(time.name, time.seconds) for time in stage_times(tmp_path)] == [("pretrain", 3.0), ("finetune", 12.5)]
    assert versions()["asd-edge"] != "not installed"


@pytest.mark.parametrize(("simulated", "year", "columns"), [(False, 2025, 3), (True, 2025, 0), (False, 2023, 0)])
def test_published_columns_stand_beside_the_papers_recordings_only(
    simulated: bool, year: int, columns: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "dev_data" / "raw"
    folder.mkdir(parents=True)
    if simulated:
        (tmp_path / "simulation.json").touch()
    domains: tuple[Domain, ...] = ("source", "target")
    labels: tuple[Label, ...] = ("normal", "anomaly")
    test = tuple(
        ScoredClip(
            Clip(folder / m / "test" / f"{d}{w}.wav", m, "00", "test", d, w, (), None, year), float(w == "anomaly")
        )
        for m in table_1()[0].results
        for d in domains
        for w in labels
    )
    train = tuple(
        ScoredClip(Clip(folder / m / "train" / f"{n}.wav", m, "00", "train", None, "normal", (), None, year), 0.1 * n)
        for m in table_1()[0].results
        for n in range(3)
    )
    run = tmp_path / "run"
    run.mkdir()
    claim_run(run, load_recipe("smoke", []))
    scores = RunScores(test, train, {})
    sheet = scoresheet(scores, np.random.default_rng(0))
    data = report_data(run, scores, sheet, datetime.now(UTC))
    assert len(data.references) == columns
    assert data.omega == 1.0
    print_evaluation(sheet)
    printed = capsys.readouterr().out
    assert ("64.41" in printed) == ("56.26" in printed) == ("55.33" in printed) == (columns == 3)
    assert ("96.82" in printed) == (columns == 3)  # the paper's ToyCar in the source domain


def test_published_columns_stand_beside_the_papers_machines_only() -> None:
    machines = list(table_1()[0].results)
    assert [column.name for column in references(machines)] == ["baseline (MSE)", "baseline (Mahalanobis)", "the paper"]
    assert references(machines[1:]) == ()
    assert references([*machines, "lathe"]) == ()
