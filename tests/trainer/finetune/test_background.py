"""Noise in fine-tuning: which recordings serve, and a run that learns with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asd_daemon.errors import DataSetError, StageError
from asd_trainer.data.dataset import ClipTable, read_dataset, training_clips
from asd_trainer.finetune.background import Background, noise_choices, noise_recordings
from asd_trainer.finetune.classification import ClassificationTask
from asd_trainer.recipe.recipe import Recipe, load_recipe
from asd_trainer.run.devices import device_here
from asd_trainer.run.forecast import LOG_MEL_BYTES, forecast
from asd_trainer.run.stages import run_stages
from asd_trainer.training.checkpoint import Checkpoints
from asd_trainer.training.loop import build_optimiser
from rig.guided import write_guided_tones
from rig.tones import write_tones

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    return read_dataset([write_guided_tones(tmp_path_factory.mktemp("guided"))])


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    return read_dataset([write_tones(tmp_path_factory.mktemp("tones"), train=2, test=1)])


def noisy_recipe(*overrides: str) -> Recipe:
    return load_recipe(
        "smoke",
        [
            "finetune.epochs=2",
            "finetune.batch_clips=4",
            "finetune.kept_patches=0.05",
            "finetune.augment.noise_probability=0.8",
            *overrides,
        ],
    )


def test_noise_only_clips_of_all_machines_serve_every_clip(guided: ClipTable) -> None:
    clips = training_clips(guided)
    noises = noise_recordings(guided, clips)
    assert [(noise.machine, noise.supplement) for noise in noises] == [("singer", "noise")] * 2
    assert all(rows.tolist() == [0, 1] for rows in noise_choices(clips, noises))


def test_without_noise_only_clips_recordings_of_other_machines_serve(tones: ClipTable) -> None:
    clips = training_clips(tones)
    noises = noise_recordings(tones, clips)
    assert noises == clips
    choices = noise_choices(clips, noises)
    assert all(noises[row].machine != clip.machine for clip, rows in zip(clips, choices, strict=True) for row in rows)
    drawn = Background(noises, np.zeros((8, 998, 128), np.float32), choices).draw(
        np.arange(8).repeat(50), np.random.default_rng(0)
    )
    for clip, rows in zip(range(8), drawn.reshape(8, 50), strict=True):
        assert set(rows.tolist()) == set(choices[clip].tolist())


def test_one_machine_without_noise_is_refused_with_the_key(tones: ClipTable, tmp_path: Path) -> None:
    alone = ClipTable(tones.select(machine="hummer"))
    with pytest.raises(DataSetError, match=r"finetune\.augment\.noise_probability: .* set it to 0"):
        run_stages(noisy_recipe(), alone, tmp_path / "run")


@pytest.mark.parametrize("kind", ["guided", "tones"])
def test_run_with_noise_learns_and_ends_alike_twice(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    table: ClipTable = request.getfixturevalue(kind)
    for name, recipe in (("a", noisy_recipe()), ("b", noisy_recipe()), ("plain", load_recipe("smoke", PLAIN))):
        run_stages(recipe, table, tmp_path / name)
    a, b, plain = (
        (tmp_path / name / "stages" / "finetune" / "embedder.safetensors").read_bytes() for name in ("a", "b", "plain")
    )
    assert a == b
    assert a != plain
    # Recordings that serve as noise are in the cache already; noise-only clips get one of their own.
    assert len(list((tmp_path / "a" / "features").glob("*.npy"))) == (2 if kind == "guided" else 1)


PLAIN = ("finetune.epochs=2", "finetune.batch_clips=4", "finetune.kept_patches=0.05")


def test_checkpoint_with_other_noise_is_refused(guided: ClipTable, tmp_path: Path) -> None:
    clips, recipe = training_clips(guided), noisy_recipe()
    noises = noise_recordings(guided, clips)
    silent = np.zeros((8, 998, 128), np.float32)
    task = ClassificationTask(recipe, clips, silent, Background(noises[:1], silent, noise_choices(clips, noises[:1])))
    optimiser = build_optimiser(task.model, recipe.finetune.optimiser)
    Checkpoints(tmp_path / "stages" / "finetune", task.fingerprint).save(1, task.model, optimiser)
    with pytest.raises(StageError, match="other clips"):
        run_stages(recipe, guided, tmp_path)


def test_plan_counts_the_features_of_noise_only_clips(guided: ClipTable, tmp_path: Path) -> None:
    (noisy,) = forecast(noisy_recipe(), guided, tmp_path / "run", device_here())
    (plain,) = forecast(load_recipe("smoke", PLAIN), guided, tmp_path / "run", device_here())
    assert noisy.disk_bytes - plain.disk_bytes == 2 * LOG_MEL_BYTES
