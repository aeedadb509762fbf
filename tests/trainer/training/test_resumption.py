"""A whole run that is killed again and again ends like one that is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from time import monotonic

import pytest

from rig.guided import write_guided_tones

pytestmark = pytest.mark.torch

TINY = (
    "separate.enabled=true",
    "separate.steps=6",
    "separate.batch_mixtures=1",
    "separate.crop_s=0.25",
    "separate.optimiser.checkpoint_steps=1",
    "synthesize.clips=40",
    "pretrain.steps=6",
    "pretrain.batch_clips=4",
    "pretrain.mask.clones=2",
    "pretrain.crop_frames=64",
    "pretrain.decoder.warmup_steps=2",
    "pretrain.optimiser.checkpoint_steps=1",
    "finetune.epochs=2",
    "finetune.batch_clips=8",
    "finetune.kept_patches=0.05",
    "finetune.optimiser.checkpoint_steps=1",
)
PATIENCE_S = 900  # a machine that trains beside the tests needs minutes for what takes seconds
RESULTS = (
    "stages/separate/separator.safetensors",
    "stages/separate/history.jsonl",
    "stages/separate/machines.json",
    "stages/synthesize/clips.jsonl",
    "stages/pretrain/encoder.safetensors",
    "stages/pretrain/history.jsonl",
    "stages/finetune/embedder.safetensors",
    "stages/finetune/head.safetensors",
    "stages/finetune/history.jsonl",
)


def checkpoint(stage: str) -> Callable[[Path], bool]:
    """Whether a stage has left a checkpoint, whole or begun, since it was last looked at."""
    return lambda run: any((run / "stages" / stage).glob("checkpoints/step-*"))


MOMENTS: dict[str, Callable[[Path], bool]] = {
    "while the separator learns": checkpoint("separate"),
    "while clips are separated": lambda run: any(run.glob("separated/*/*/train/*.flac")),
    "while clips are synthesised": lambda run: any(run.glob("stages/synthesize/sound/*/train/*.flac")),
    "while the decoder learns alone": checkpoint("pretrain/decoder"),
    "while the encoder learns": checkpoint("pretrain"),
    "while features are computed": lambda run: any(run.glob("features/*.partial")),
    "while the embedder learns": checkpoint("finetune"),
    "when the embedder is there": lambda run: (run / "stages" / "finetune" / "embedder.safetensors").exists(),
}
"""When the run is killed, in the order in which a run comes to them."""


def start(data: Path, run: Path) -> subprocess.Popen[str]:
    keys = [word for key in TINY for word in ("--set", key)]
    words = ["-m", "asd_trainer", "run", "smoke", "--data", str(data), "--out", str(run), "--threads", "1", *keys]
    offered = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *words], env=offered, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finish(data: Path, run: Path) -> None:
    process = start(data, run)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, stderr


def kill_when(data: Path, run: Path, come: Callable[[Path], bool]) -> bool:
    """Start a run and kill it at a moment; whether it was killed, and not over before anyone saw the moment."""
    process, deadline, pause = start(data, run), monotonic() + PATIENCE_S, Event()
    try:
        while process.poll() is None and not come(run):
            assert monotonic() < deadline
            pause.wait(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in (0, -signal.SIGKILL), stderr
    return process.returncode != 0


@pytest.mark.timeout(4 * PATIENCE_S)
def test_run_killed_in_every_stage_ends_bit_for_bit_like_one_in_one_go(tmp_path: Path) -> None:
    data = write_guided_tones(tmp_path / "data")
    finish(data, tmp_path / "whole")
    killed = tmp_path / "killed"
    seen = {moment for moment, come in MOMENTS.items() if kill_when(data, killed, come)}
    # Features of sixteen clips are there in a moment that a look every millisecond may miss.
    assert set(MOMENTS) - seen <= {"while features are computed"}
    finish(data, killed)
    for name in RESULTS:
        whole, resumed = (tmp_path / "whole" / name).read_bytes(), (killed / name).read_bytes()
        assert whole == resumed, name
    sounds = {
        run: {path.name + path.parent.parent.name: path.read_bytes() for path in (tmp_path / run).rglob("*.flac")}
        for run in ("whole", "killed")
    }
    assert len(sounds["whole"]) == 48
    assert sounds["whole"] == sounds["killed"]
    assert not list(killed.rglob("checkpoints*"))
