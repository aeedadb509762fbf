from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from asd_daemon.errors import StageError
from asd_trainer.networks.separator import Separator, SeparatorSize
from asd_trainer.recipe.keys import OptimiserRecipe
from asd_trainer.separate.mixtures import Material, MixtureRule
from asd_trainer.separate.training import (
    AUXILIARY_EVERY_STEPS,
    SeparationTask,
    SeparatorTraining,
    SupervisedSeparator,
    load_separator,
    save_separator,
)
from asd_trainer.training.loop import train

pytestmark = pytest.mark.torch

SIZE = SeparatorSize("small", "fourier", 128, 64, 65, 16, 1, 1, 1, 2, 5, 40, dropout=0.1, layer_scale=0.1)
RULE = MixtureRule(crop_samples=4096, snr_db=(-5.0, 5.0), level_dbfs=(-30.0, -20.0))
SETTINGS = OptimiserRecipe(learning_rate=5e-3, warmup_ratio=0.0, checkpoint_steps=3)


def task(steps: int = 6, seed: int = 0) -> SeparationTask:
    rng = np.random.default_rng(0)
    time_s = np.arange(20_000) / 16_000
    tone = (0.1 * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)
    hiss = (0.1 * rng.standard_normal(20_000)).astype(np.float32)
    torch.manual_seed(1)
    return SeparationTask(
        Separator(SIZE),
        SeparatorTraining((Material((tone,), (hiss,)),), RULE, batch_mixtures=4, steps=steps, seed=seed),
    )


def test_batch_follows_from_step_and_rank_alone() -> None:
    first, second = task().batch(5, 0, 1), task().batch(5, 0, 1)
    assert first["sources"].shape == (4, 2, 4096)
    torch.testing.assert_close(first["sources"], second["sources"], rtol=0, atol=0)
    for other in (task().batch(6, 0, 1), task().batch(5, 1, 2), task(seed=1).batch(5, 0, 1)):
        assert not torch.equal(first["sources"][: len(other["sources"])], other["sources"])
    assert task().batch(5, 1, 2)["sources"].shape[0] == 2


def test_batch_takes_auxiliary_heads_in_turn() -> None:
    weights = [float(task().batch(step, 0, 1)["auxiliary"]) for step in range(2 * AUXILIARY_EVERY_STEPS)]
    assert [weight > 0 for weight in weights] == ([True] + [False] * (AUXILIARY_EVERY_STEPS - 1)) * 2


def test_batch_mixes_the_machines_of_all_materials() -> None:
    noise = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    steady, turning = np.ones(5000, np.float32), np.resize(np.array([1, -1], np.float32), 5000)
    lesson = SeparatorTraining(
        (Material((steady,), (noise,)), Material((turning,), (noise,))), RULE, batch_mixtures=16, steps=1, seed=0
    )
    machines = SeparationTask(Separator(SIZE), lesson).batch(0, 0, 1)["sources"][:, 0]
    assert 0 < int((machines[:, 0] * machines[:, 1] > 0).sum()) < 16


def test_noisy_material_keeps_the_mixture_and_moves_its_truth() -> None:
    recording, noise = np.full(5000, 0.5, np.float32), np.full(5000, 0.1, np.float32)
    rule = MixtureRule(4096, (0.0, 0.0), (-20.0, -20.0), second_noise=0.0, noisy_snr_db=(6.0, 6.0))
    for seed in range(8):  # the signs are random
        task_of = SeparationTask(
            Separator(SIZE), SeparatorTraining((Material((recording,), (noise,), noisy=True),), rule, 1, 1, seed)
        )
        machine, noise_twice = task_of.batch(0, 0, 1)["sources"][0].numpy()
        heard, added = machine + noise_twice / 2, noise_twice / 2
        assert np.mean(heard**2) / np.mean(added**2) == pytest.approx(10**0.6, rel=1e-3)
        assert np.mean((machine + noise_twice) ** 2) == pytest.approx(0.01, rel=1e-3)


def test_training_lowers_the_loss_and_same_seed_gives_same_weights(tmp_path: Path) -> None:
    first, second = task(steps=40), task(steps=40)
    train(first, SETTINGS, _folder(tmp_path, "first"))
    train(second, SETTINGS, _folder(tmp_path, "second"))
    for name, tensor in first.model.state_dict().items():
        torch.testing.assert_close(tensor, second.model.state_dict()[name], rtol=0, atol=0)
    history = [json.loads(line) for line in (tmp_path / "first" / "history.jsonl").read_text().splitlines()]
    gained = [figures["gained_db"] for figures in history]
    assert np.mean(gained[-8:]) > np.mean(gained[:8]) + 3.0


def test_every_parameter_gets_a_gradient_in_steps_without_auxiliary_heads() -> None:
    one = task()
    batch = one.batch(1, 0, 1)
    assert batch["auxiliary"] == 0
    torch.autograd.backward(SupervisedSeparator(one.model.separator)(**batch)["loss"])
    assert all(parameter.grad is not None for parameter in one.model.parameters())


def test_fingerprint_changes_with_the_sound() -> None:
    other = task()
    changed = Material((other.lesson.materials[0].machines[0] * 2,), other.lesson.materials[0].noises)
    moved = SeparationTask(Separator(SIZE), SeparatorTraining((changed,), RULE, 4, 6, 0))
    assert task().fingerprint == other.fingerprint != moved.fingerprint


def test_saved_separator_loads_and_separates_alike(tmp_path: Path) -> None:
    network = Separator(SIZE).eval()
    save_separator(network, tmp_path)
    loaded = load_separator(tmp_path)
    mixture = torch.randn(1, 5000)
    torch.testing.assert_close(loaded(mixture), network(mixture), rtol=0, atol=0)
    assert loaded.size == SIZE
    assert not loaded.training
    assert not any(name.startswith("auxiliary") for name in load_file(tmp_path / "separator.safetensors"))


def test_load_separator_from_empty_folder_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"separator\.json is missing\); run asd-train separate"):
        load_separator(tmp_path)


def test_load_separator_of_other_size_names_the_file(tmp_path: Path) -> None:
    save_separator(Separator(SIZE), tmp_path)
    weights = load_file(tmp_path / "separator.safetensors")
    del weights["split.norm.bias"]
    save_file(weights, tmp_path / "separator.safetensors")
    with pytest.raises(StageError, match=r"separator\.safetensors: does not fit size small: split\.norm\.bias"):
        load_separator(tmp_path)


@pytest.mark.parametrize("text", ["{", '{"schema": 9, "size": {}}', '{"schema": 1, "size": {"name": "x"}}'])
def test_load_separator_with_broken_description_is_refused(tmp_path: Path, text: str) -> None:
    save_separator(Separator(SIZE), tmp_path)
    (tmp_path / "separator.json").write_text(text)
    with pytest.raises(StageError):
        load_separator(tmp_path)


def _folder(parent: Path, name: str) -> Path:
    folder = parent / name
    folder.mkdir()
    return folder
