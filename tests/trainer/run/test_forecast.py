"""The plan of a run and the done marks of its stages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch.utils.flop_counter import FlopCounterMode

from asd_daemon.errors import DataSetError, StageError
from asd_trainer.cli.program import main
from asd_trainer.data.dataset import read_dataset
from asd_trainer.finetune.classification import Classifier
from asd_trainer.networks.eat import SIZES
from asd_trainer.recipe.recipe import Recipe, load_recipe
from asd_trainer.run.forecast import StageForecast, forecast, printed
from asd_trainer.run.step_cost import finetune_cost, pretrain_cost
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
    rows = forecast(tiny_recipe(), table, tmp_path / "run")
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
    pretrained, finetuned = forecast(recipe, table, tmp_path / "run")
    assert (pretrained.done, pretrained.seconds, pretrained.disk_bytes) == (True, 75.0, 0)
    assert (finetuned.done, finetuned.steps, finetuned.steps_done) == (False, 4, 3)
    assert "4 steps, 3 done" in finetuned.work


def test_cost_follows_from_the_work_and_not_from_the_piece_that_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine of one operation a second: what a step costs is then the number of operations of a step.
    def timed(work: Callable[[], object]) -> tuple[float, float]:
        with FlopCounterMode(display=False) as counter:
            work()
        return float(counter.get_total_flops()), float(counter.get_total_flops())

    monkeypatch.setattr("asd_trainer.run.step_cost._timed", timed)
    one = finetune_cost(tiny_recipe("finetune.kept_patches=1.0"), 4, 8).seconds
    size = SIZES["smoke"]
    # A token passes 12 · dim² weights a block; attention adds 2 · tokens · dim. Forwards 2 operations each, backwards twice as many.
    tokens = 513
    expected = 8 * 6 * size.depth * tokens * (12 * size.dim**2 + 2 * tokens * size.dim)
    assert one == pytest.approx(expected, rel=0.1)
    few, many = (pretrain_cost(tiny_recipe(f"pretrain.mask.clones={clones}"), 4).seconds for clones in (2, 16))
    assert 4 < many / few < 8


def test_plan_warns_of_a_disk_that_is_too_small() -> None:
    rows = (StageForecast("finetune", False, "10 clips", 125.0, 3_000_000_000),)
    assert not any("warning" in line for line in printed(rows, 4_000_000_000))
    table, warning = printed(rows, 2_000_000_000)[1], printed(rows, 2_000_000_000)[-1]
    assert "2 min 05 s" in table
    assert warning.startswith("warning: the disk has 2.0 GB free, and the run may need 3.0 GB")


def test_plan_of_data_without_anything_to_learn_is_refused(tmp_path: Path) -> None:
    table = read_dataset([write_tones(tmp_path / "data")])
    with pytest.raises(DataSetError, match="no machine has clean or noise-only clips"):
        forecast(tiny_recipe(), table, tmp_path / "run")


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
