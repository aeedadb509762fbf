"""A whole run that is killed again and again ends like one that is not."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from rig.guided import write_guided_tones
from rig.trainer import ForkingTrainer, TrainerCall

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


def start(trainer: ForkingTrainer, data: Path, run: Path) -> TrainerCall:
    keys = [word for key in TINY for word in ("--set", key)]
    return trainer.start("run", "smoke", "--data", data, "--out", run, "--threads", 1, *keys)


def finish(trainer: ForkingTrainer, data: Path, run: Path) -> None:
    call = start(trainer, data, run)
    assert call.wait() == 0, call.log.read_text()


def kill_when(trainer: ForkingTrainer, data: Path, run: Path, come: Callable[[Path], bool]) -> bool:
    """Start a run and kill it at a moment; whether it was killed, and not over before anyone saw the moment."""
    call, pause = start(trainer, data, run), Event()
    while call.runs and not come(run):
        pause.wait(0.001)
    call.send(signal.SIGKILL)
    code = call.wait()
    assert code in (0, -signal.SIGKILL), call.log.read_text()
    return code != 0


def test_run_killed_in_every_stage_ends_bit_for_bit_like_one_in_one_go(trainer: ForkingTrainer, tmp_path: Path) -> None:
    data = write_guided_tones(tmp_path / "data")
    finish(trainer, data, tmp_path / "whole")
    killed = tmp_path / "killed"
    seen = {moment for moment, come in MOMENTS.items() if kill_when(trainer, data, killed, come)}
    # Features of sixteen clips are there in a moment that a look every millisecond may miss.
    assert set(MOMENTS) - seen <= {"while features are computed"}
    finish(trainer, data, killed)
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
