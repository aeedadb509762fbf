"""asd-train as people use it: commands, exit codes, messages, stopping and going on."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from asd_trainer.cli.program import main
from asd_trainer.networks import catalogue
from rig.tones import write_tones
from rig.trainer import ForkingTrainer
from rig.waiting import wait_until

TINY = ["--set", "finetune.epochs=2", "--set", "finetune.batch_clips=8", "--set", "finetune.kept_patches=0.05"]


def invoke(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "tiny"
    result = invoke("run", "smoke", "--data", data, "--out", run, *TINY)
    assert result.exit_code == 0, result.output
    assert f"trained: {run}" in result.output
    assert "took: finetune " in result.output
    assert f"next: asd-train evaluate {run} --data {data}" in result.output
    return run


def test_run_then_evaluate_prints_and_writes_the_same_figures(trained: Path, data: Path) -> None:
    shown = invoke("evaluate", trained, "--data", data, "--json")
    assert shown.exit_code == 0, shown.output
    figures = json.loads(shown.stdout)
    assert figures == json.loads((trained / "evaluation.json").read_text())
    assert set(figures["machines"]) == {"hummer", "singer"}
    assert set(figures["machines"]["hummer"]) == {"auc_source", "auc_target", "pauc"}
    assert 0 < figures["omega"] <= 1


def test_evaluate_without_data_takes_those_of_the_run(trained: Path) -> None:
    result = invoke("evaluate", trained)
    assert result.exit_code == 0, result.output
    assert "hummer" in result.output


def test_run_again_is_well_and_changes_nothing(trained: Path, data: Path) -> None:
    weights = trained / "stages" / "finetune" / "embedder.safetensors"
    before = weights.stat().st_mtime_ns
    assert invoke("run", "smoke", "--data", data, "--out", trained, *TINY).exit_code == 0
    assert weights.stat().st_mtime_ns == before


def test_finetune_alone_redoes_a_stage_without_its_mark_on_the_data_of_the_run(trained: Path) -> None:
    folder = trained / "stages" / "finetune"
    before = (folder / "embedder.safetensors").read_bytes()
    (folder / "done").unlink()
    result = invoke("finetune", trained)
    assert result.exit_code == 0, result.output
    assert (folder / "embedder.safetensors").read_bytes() == before


def test_run_with_another_recipe_into_the_same_folder_is_refused(trained: Path, data: Path) -> None:
    result = invoke("run", "smoke", "--data", data, "--out", trained, *TINY, "--set", "seed=3")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {trained}: was made with another recipe: seed is 0 there, 3 here")


def wrong_usages(tmp_path: Path, data: Path) -> dict[str, tuple[list[str | Path], str]]:
    empty = tmp_path / "empty"
    empty.mkdir()
    return {
        "unknown recipe": (["run", "smok", "--data", data, "--out", tmp_path / "r"], "smok: neither a recipe"),
        "unknown key": (
            ["run", "smoke", "--data", data, "--out", tmp_path / "r", "--set", "sed=1"],
            "did you mean seed",
        ),
        "bad value": (["run", "smoke", "--data", data, "--out", tmp_path / "r", "--set", "seed=-1"], "seed: -1"),
        "missing data": (["run", "smoke", "--data", tmp_path / "none", "--out", tmp_path / "r"], "none"),
        "empty data": (["run", "smoke", "--data", empty, "--out", tmp_path / "r"], "empty"),
        "no run": (["evaluate", tmp_path / "none", "--data", data], "there is no such run folder"),
        "no run for its data": (["evaluate", tmp_path / "none"], "there is no such run folder"),
        "no run that says": (["evaluate", tmp_path], "give them with --data DIR"),
        "run that is not finished": (["evaluate", tmp_path, "--data", data], "asd-train finetune"),
        "no data": (["run", "smoke", "--out", tmp_path / "r"], "--data DIR"),
        "unknown option": (["run", "smoke", "--dat", data], "No such option '--dat'"),
        "value of an option": (["models", "--threads", "2"], "models --help)"),
        "no run to finetune": (["finetune", tmp_path / "none"], "not a run folder"),
        "out is a file": (["run", "smoke", "--data", data, "--out", __file__], "can't be written"),
        "no such machine": (["simulate", tmp_path / "sim", "--machine", "kettle"], "kettle"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "unknown recipe",
        "unknown key",
        "bad value",
        "missing data",
        "empty data",
        "no run",
        "no run for its data",
        "no run that says",
        "run that is not finished",
        "no data",
        "unknown option",
        "value of an option",
        "no run to finetune",
        "out is a file",
        "no such machine",
    ],
)
def test_mistake_gives_one_line_and_exit_code_2(case: str, tmp_path: Path, data: Path) -> None:
    arguments, part = wrong_usages(tmp_path, data)[case]
    result = invoke(*arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert part in line
    assert "Traceback" not in result.output


def test_threads_are_those_of_the_environment_unless_the_command_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    invoke("evaluate", tmp_path / "none")
    assert asked == []
    invoke("evaluate", tmp_path / "none", "--threads", "3")
    assert asked == [3]


def test_files_that_can_not_be_used_are_reported_and_left_out(tmp_path: Path) -> None:
    data = write_tones(tmp_path / "data", train=2, test=1)
    broken = data / "hummer" / "train" / "section_00_source_train_normal_0099_pitch_s.wav"
    broken.write_bytes(b"no sound")
    result = invoke("run", "smoke", "--data", data, "--out", tmp_path / "run", *TINY)
    assert result.exit_code == 0, result.output
    assert str(broken) in result.stderr
    assert "1 file" in result.stderr


def test_simulate_writes_a_data_set_that_run_reads(tmp_path: Path) -> None:
    sizes = ["--source-train", "2", "--target-train", "1", "--test", "1", "--supplemental", "1"]
    result = invoke("simulate", tmp_path / "sim", "--machine", "fan", *sizes, "--jobs", "1")
    assert result.exit_code == 0, result.output
    assert "8 clips written, 0 kept" in result.output
    again = invoke("simulate", tmp_path / "sim", "--machine", "fan", *sizes, "--jobs", "1")
    assert "0 clips written, 8 kept" in again.output


def test_models_lists_every_size_with_its_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = catalogue.catalogue()  # once: large networks take their time even on paper
    monkeypatch.setattr(catalogue, "catalogue", lambda: counted)
    rows = json.loads(invoke("models", "--json").stdout)
    assert {row["size"] for row in rows if row["network"] == "embedder"} == {"smoke", "edge", "small", "base", "large"}
    base = next(row for row in rows if (row["network"], row["size"]) == ("embedder", "base"))
    assert 85e6 < base["parameters"] < 88e6
    assert base["gmac_per_second"] == pytest.approx(4.37, rel=0.15)  # FIELD A.2: 43.7 GMAC per 10 s without attention
    assert {row["network"] for row in rows} == {"embedder", "encoder", "separator"}
    assert all(row["parameters"] > 0 and row["gmac_per_second"] > 0 for row in rows)
    assert len(invoke("models").stdout.splitlines()) == 1 + len(rows)


@pytest.mark.parametrize("command", sorted(main.commands))
def test_help_of_each_command_says_what_it_does_and_gives_an_example(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"asd-train {command}" in result.output.split("Options:")[0].split("\n", 1)[1]


@pytest.mark.parametrize(("sent", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_during_training_saves_and_says_so_in_one_line(
    sent: signal.Signals, exit_code: int, trainer: ForkingTrainer, data: Path, tmp_path: Path
) -> None:
    longer = ["--set", "finetune.epochs=400", "--set", "finetune.optimiser.checkpoint_steps=1"]
    call = trainer.start("run", "smoke", "--data", data, "--out", tmp_path / "run", "--threads", 1, *TINY, *longer)
    checkpoints = tmp_path / "run" / "stages" / "finetune" / "checkpoints"
    wait_until(lambda: bool(list(checkpoints.glob("step-*[0-9]"))) or not call.runs, "a checkpoint")
    call.send(sent)
    assert call.wait() == exit_code
    said = call.log.read_text()
    assert said.splitlines()[-1].startswith(f"stopped: finetune stopped by {sent.name} after step ")
    assert "Traceback" not in said
    assert list(checkpoints.glob("step-*[0-9]"))
