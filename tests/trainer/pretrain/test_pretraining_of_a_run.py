"""Pre-training as a stage of a run: what it learns from, where weights come from, how it is called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from safetensors.torch import load_file

from asd_daemon.errors import DataSetError, SettingsError, StageError
from asd_trainer.cli.program import main
from asd_trainer.data.dataset import ClipTable, read_dataset
from asd_trainer.finetune.first_weights import first_weights
from asd_trainer.recipe.recipe import load_recipe
from asd_trainer.run.stage_clips import pretraining_clips
from asd_trainer.run.stages import pretrain

FAST = (
    "pretrain.steps=2",
    "pretrain.batch_clips=2",
    "pretrain.crop_frames=32",
    "pretrain.mask.clones=2",
    "finetune.epochs=1",
    "finetune.kept_patches=0.05",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two machines, four clips of 5 s each, one of them anomalous."""
    rng = np.random.default_rng(1)
    for machine in ("fan", "valve"):
        for number, (split, label) in enumerate([("train", "normal")] * 3 + [("test", "anomaly")]):
            folder = tmp_path / "data" / machine / split
            folder.mkdir(parents=True, exist_ok=True)
            sound = rng.normal(0, 0.1, 80_000).astype(np.float32)
            soundfile.write(folder / f"section_00_source_{split}_{label}_{number:04d}.wav", sound, 16_000)
    return tmp_path / "data"


def settings(*more: str) -> list[str]:
    return [part for key in (*FAST, *more) for part in ("--set", key)]


def test_stage_learns_from_everything_but_test_clips_and_known_faults(data: Path) -> None:
    clips = pretraining_clips(read_dataset([data]))
    assert len(clips) == 6
    assert {clip.split for clip in clips} == {"train"}
    with pytest.raises(DataSetError, match="no recording to pre-train on"):
        pretraining_clips(ClipTable((), ()))


def test_second_stage_starts_from_the_first_and_fine_tuning_from_the_second(data: Path, tmp_path: Path) -> None:
    general, run = tmp_path / "general", tmp_path / "run"
    first = CliRunner().invoke(main, ["pretrain", str(general), "--recipe", "smoke", "--data", str(data), *settings()])
    assert first.exit_code == 0, first.output
    source = general / "stages" / "pretrain"
    second = CliRunner().invoke(
        main, ["run", "smoke", "--data", str(data), "--out", str(run), *settings(f"encoder.weights={source}")]
    )
    assert second.exit_code == 0, second.output
    origin = json.loads((run / "stages" / "pretrain" / "origin.json").read_text())
    assert origin["weights"] == str(source)
    assert origin["clips"] == 6
    # One step of fine-tuning at the end of its schedule moves weights by little: they are still those of the second stage.
    before = load_file(run / "stages" / "pretrain" / "encoder.safetensors")
    after = load_file(run / "stages" / "finetune" / "embedder.safetensors")
    for name, tensor in before.items():
        assert (after[f"encoder.{name}"] - tensor).abs().max() < 0.01, name


def test_weights_of_another_size_are_refused(data: Path, tmp_path: Path) -> None:
    general = tmp_path / "general"
    CliRunner().invoke(main, ["pretrain", str(general), "--recipe", "smoke", "--data", str(data), *settings()])
    recipe = load_recipe("smoke", ["encoder.size=edge", f"encoder.weights={general / 'stages' / 'pretrain'}"])
    with pytest.raises(StageError, match=r"weights of size smoke, but encoder\.size is edge"):
        first_weights(recipe)


def test_run_without_steps_leaves_the_stage_out_and_asking_for_it_is_an_error(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    made = CliRunner().invoke(
        main, ["run", "smoke", "--data", str(data), "--out", str(run), *settings("pretrain.steps=0")]
    )
    assert made.exit_code == 0, made.output
    assert not (run / "stages" / "pretrain").exists()
    with pytest.raises(SettingsError, match=r"pretrain\.steps: 0 leaves the stage out"):
        pretrain(load_recipe("smoke"), read_dataset([data]), tmp_path)
