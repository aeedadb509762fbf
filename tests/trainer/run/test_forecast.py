"""The plan of a run and the done marks of its stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from asd_daemon.errors import DataSetError, StageError
from asd_trainer.cli.program import main
from asd_trainer.data.dataset import read_dataset
from asd_trainer.finetune.classification import Classifier
from asd_trainer.networks.eat import SIZES
from asd_trainer.recipe.recipe import Recipe, load_recipe
from asd_trainer.run.devices import Device, device_here
from asd_trainer.run.forecast import StageForecast, forecast, printed
from asd_trainer.run.step_cost import finetune_cost, pretrain_cost
from asd_trainer.run.step_trace import Operation
from asd_trainer.training.stage_mark import read_mark, timed, write_mark
from rig.guided import write_guided_tones
from rig.tones import write_tones

pytestmark = pytest.mark.torch

TINY = (
    "separate.enabled=true",
    "separate.steps=3",
    "separate.batch_mixtures=1",
    "separate.crop_s=0.25",
    "synthesize.clips=20",
    "pretrain.steps=5",
    "pretrain.batch_clips=4",
    "pretrain.mask.clones=3",
    "pretrain.crop_frames=64",
    "finetune.epochs=2",
    "finetune.batch_clips=8",
    "finetune.kept_patches=0.05",
)


def tiny_recipe(*overrides: str) -> Recipe:
    return load_recipe("smoke", [*TINY, *overrides])


def test_plan_tells_every_stage_with_steps_time_and_disk(tmp_path: Path) -> None:
    table = read_dataset([write_guided_tones(tmp_path / "data")])
    rows = forecast(tiny_recipe(), table, tmp_path / "run", device_here())
    assert [(row.stage, row.steps, row.done) for row in rows] == [
        ("separate", 3, False),
        ("synthesize", 0, False),
        ("pretrain", 5, False),
        ("finetune", 2 * ((8 + 8 + 20) // 8), False),
    ]
    assert rows[0].work == "2 machines, 3 steps, 8 clips to separate"
    assert all(row.seconds is not None and 0 < row.seconds < 600 for row in rows)
    assert all(row.disk_bytes > 0 for row in rows)
    assert not (tmp_path / "run").exists()
    # Features of 36 clips, and three checkpoints with weights and two moments.
    weights = sum(p.numel() for p in Classifier(tiny_recipe(), 4).parameters())
    assert rows[3].disk_bytes == 36 * 998 * 128 * 4 + 3 * 3 * 4 * weights


def test_plan_counts_what_is_done_already(tmp_path: Path) -> None:
    table = read_dataset([write_tones(tmp_path / "data", train=4)])
    recipe = tiny_recipe("separate.enabled=false", "synthesize.clips=0")
    for stage in ("pretrain", "finetune"):
        (tmp_path / "run" / "stages" / stage).mkdir(parents=True)
    write_mark(tmp_path / "run" / "stages" / "pretrain", 75.0, "cpu", 1)
    (tmp_path / "run" / "stages" / "finetune" / "checkpoints" / "step-00000003").mkdir(parents=True)
    pretrained, finetuned = forecast(recipe, table, tmp_path / "run", device_here())
    assert (pretrained.done, pretrained.seconds, pretrained.disk_bytes) == (True, 75.0, 0)
    assert (finetuned.done, finetuned.steps, finetuned.steps_done) == (False, 4, 3)
    assert "4 steps, 3 done" in finetuned.work


def test_operations_of_a_step_are_those_of_the_formula() -> None:
    size = SIZES["smoke"]
    # A token passes 12 · dim² weights a block; attention adds 2 · tokens · dim. Forwards one MAC each, backwards twice as many.
    tokens = 513
    expected = 8 * 3 * size.depth * tokens * (12 * size.dim**2 + 2 * tokens * size.dim)
    assert finetune_cost(tiny_recipe("finetune.kept_patches=1.0"), 4, 8).macs == pytest.approx(expected, rel=0.1)
    few, many = (pretrain_cost(tiny_recipe(f"pretrain.mask.clones={clones}"), 4).macs for clones in (2, 16))
    assert 4 < many / few < 8


def test_time_on_a_device_is_bound_by_its_arithmetic_or_by_its_memory() -> None:
    kernels = (Operation(100.0, 10, low_precision=False), Operation(100.0, 90, low_precision=True))
    device = Device("d", "a device", 10.0, 50.0, 20.0, 1e9, 0.5, 0.5, 1.0)
    # 100 / (10 · 0.5) s beside 10 / (20 · 0.5); 100 / (50 · 0.5) beside 90 / (20 · 0.5); and two calls.
    assert device.seconds(kernels) == pytest.approx(20 + 9 + 2)


def test_plan_warns_of_a_disk_that_is_too_small() -> None:
    rows = (StageForecast("finetune", False, "10 clips", 125.0, 3_000_000_000),)
    device = device_here()
    assert not any("warning" in line for line in printed(rows, 4_000_000_000, device))
    table, warning = printed(rows, 2_000_000_000, device)[1], printed(rows, 2_000_000_000, device)[-1]
    assert "2 min 05 s" in table
    assert warning.startswith("warning: the disk has 2.0 GB free, and the run may need 3.0 GB")


def test_plan_of_data_without_anything_to_learn_is_refused(tmp_path: Path) -> None:
    table = read_dataset([write_tones(tmp_path / "data")])
    with pytest.raises(DataSetError, match="no machine has clean or noise-only clips"):
        forecast(tiny_recipe(), table, tmp_path / "run", device_here())


def test_dry_run_shows_the_plan_and_does_nothing(tmp_path: Path) -> None:
    data = write_guided_tones(tmp_path / "data")
    words = ["run", "smoke", "--data", str(data), "--out", str(tmp_path / "run"), "--threads", "1", "--dry-run"]
    keys = [word for key in TINY for word in ("--set", key)]
    shown = CliRunner().invoke(main, [*words, *keys])
    assert shown.exit_code == 0, shown.output
    assert [line.split()[0] for line in shown.stdout.splitlines()] == [
        "stage",
        "separate",
        "synthesize",
        "pretrain",
        "finetune",
        "to",
        "device:",
    ]
    told = json.loads(CliRunner().invoke(main, [*words, *keys, "--json"]).stdout)
    assert [row["stage"] for row in told["stages"]] == ["separate", "synthesize", "pretrain", "finetune"]
    assert told["free_bytes"] > 0
    assert not (tmp_path / "run").exists()


def test_mark_tells_time_of_all_sessions_and_versions(tmp_path: Path) -> None:
    folder = tmp_path / "finetune"
    folder.mkdir()
    assert read_mark(folder) is None
    with pytest.raises(ConnectionAbortedError), timed(folder) as first:
        raise ConnectionAbortedError
    with timed(folder) as second:
        assert second.seconds >= first.seconds - 0.5
    mark = write_mark(folder, 12.5, "cpu", 2)
    assert read_mark(folder) == mark
    assert (mark.stage, mark.seconds, mark.processes) == ("finetune", 12.5, 2)
    assert mark.versions["torch"] == torch.__version__
    assert [path.name for path in folder.iterdir()] == ["done"]


def test_mark_of_an_earlier_version_tells_that_the_stage_is_done_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "done").touch()
    mark = read_mark(tmp_path)
    assert mark is not None
    assert mark.seconds is None
    (tmp_path / "done").write_text('{"schema": 1, "sta')
    with pytest.raises(StageError, match="remove it to do the stage again"):
        read_mark(tmp_path)
    (tmp_path / "done").write_text('{"schema": 2}')
    with pytest.raises(StageError, match="too old or too new"):
        read_mark(tmp_path)
