"""A run over two processes of the CPU against the same run in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from asd_daemon.errors import SettingsError
from asd_trainer.cli.program import main
from asd_trainer.training.loop import even_share
from asd_trainer.training.stage_mark import read_mark
from rig.tones import write_tones
from rig.waiting import PATIENT_S

pytestmark = pytest.mark.torch

TINY = (
    "pretrain.steps=3",
    "pretrain.batch_clips=4",
    "pretrain.mask.clones=2",
    "pretrain.crop_frames=64",
    "finetune.epochs=3",
    "finetune.batch_clips=4",
    "finetune.kept_patches=0.05",
    "finetune.optimiser.learning_rate=1e-4",
)


KEYS = [word for key in TINY for word in ("--set", key)]


def call(data: Path, run: Path) -> list[str]:
    return ["run", "smoke", "--data", str(data), "--out", str(run), "--threads", "1", *KEYS]


def trained(data: Path, run: Path) -> Path:
    done = CliRunner().invoke(main, call(data, run))
    assert done.exit_code == 0, done.output
    return run


def trained_by_two(data: Path, run: Path) -> Path:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "asd_trainer"]
    offered = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, *launcher, *call(data, run)]
    done = subprocess.run(command, check=False, env=offered, capture_output=True, text=True, timeout=2 * PATIENT_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained:") == 1
    return run


def history(run: Path) -> list[dict[str, Any]]:
    path = run / "stages" / "finetune" / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_two_processes_pretrain_and_finetune_like_one(tmp_path: Path) -> None:
    data = write_tones(tmp_path / "data", train=2, test=1)
    one, two = trained(data, tmp_path / "1"), trained_by_two(data, tmp_path / "2")
    marks = [read_mark(run / "stages" / "finetune") for run in (one, two)]
    assert [mark.processes for mark in marks if mark is not None] == [1, 2]
    weights = [load_file(run / "stages" / "finetune" / "embedder.safetensors") for run in (one, two)]
    for name, tensor in weights[0].items():
        # Sums of another order: where a gradient is as good as 0, Adam may move a weight by 1e-4 a step the other way, but few of them.
        apart = (weights[1][name].float() - tensor.float()).abs()
        assert float(apart.mean()) < 5e-5 + 1e-3 * float(tensor.float().abs().mean()), name
    losses = [[row["loss"] for row in history(run)] for run in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_accelerate_launch_that_starts_a_process_of_several_alone_is_told_of(tmp_path: Path) -> None:
    """Before, `--num_processes 2` trained by one and said nothing; with two hosts both trained the same run."""
    data = write_tones(tmp_path / "data", train=2, test=1)
    launcher = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1", "-m"]
    command = [sys.executable, *launcher, "asd_trainer", *call(data, tmp_path / "run")]
    offered = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HF_HOME": str(tmp_path)}
    done = subprocess.run(command, check=False, env=offered, capture_output=True, text=True, timeout=2 * PATIENT_S)
    assert done.returncode != 0
    assert "MASTER_ADDR=127.0.0.1" in done.stderr
    assert "torchrun --nnodes" in done.stderr
    assert not list((tmp_path / "run").glob("stages/*/done"))


def test_batch_that_processes_can_not_share_evenly_is_refused_by_key() -> None:
    assert even_share(8, 1, 2, "finetune.batch_clips") == slice(1, None, 2)
    with pytest.raises(SettingsError, match=r"finetune\.batch_clips: a batch of 9 can't be shared evenly by 2"):
        even_share(9, 0, 2, "finetune.batch_clips")
