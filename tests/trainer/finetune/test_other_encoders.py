"""Fine-tuning of encoders with front ends of their own, and by low-rank parts alone, through the stage of all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from asd_trainer.data.dataset import load_clip, read_dataset
from asd_trainer.evaluate.backend import score_run
from asd_trainer.finetune.augmentation import draw_plan
from asd_trainer.finetune.background import Background
from asd_trainer.finetune.waveform_augmentation import render_waveforms
from asd_trainer.networks.eat import SIZES, Eat
from asd_trainer.networks.embedder import load_embedder
from asd_trainer.networks.weights import save_encoder
from asd_trainer.recipe.embedder import AugmentRecipe
from asd_trainer.recipe.recipe import load_recipe
from asd_trainer.run.devices import device_here
from asd_trainer.run.forecast import forecast
from asd_trainer.run.stages import run_stages
from rig.tones import write_tones

pytestmark = pytest.mark.torch

PLAIN = AugmentRecipe(mixup_probability=0, gain_db=0, roll=False, mask_probability=0)


def sounds(seed: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, (count, 160_000)).astype(np.float32)


def test_plain_plan_leaves_waveforms_as_they_are() -> None:
    waveforms = sounds(1)
    plan = draw_plan(np.array([2, 0]), 160_000, PLAIN, 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(render_waveforms(plan, waveforms).numpy(), waveforms[[2, 0]])


def test_waveforms_are_rolled_amplified_and_mixed_as_the_plan_says() -> None:
    waveforms = sounds(1)
    settings = AugmentRecipe(mixup_probability=1, gain_db=6, roll=True, mask_probability=0)
    plan = draw_plan(np.array([0, 1, 2]), 160_000, settings, 1.0, np.random.default_rng(3))
    found = render_waveforms(plan, waveforms).numpy()
    for row in range(3):
        own, partner = (
            np.concatenate([w[160_000 - roll :], w[: 160_000 - roll]]) * 10 ** (gain / 20)
            for w, roll, gain in zip(
                (waveforms[plan.clips[row]], waveforms[plan.partners[row]]),
                plan.rolls[row],
                plan.gains_db[row],
                strict=True,
            )
        )
        expected = plan.mix[row] * own + (1 - plan.mix[row]) * partner
        np.testing.assert_allclose(found[row], expected, atol=1e-6)


def test_noise_lies_below_the_clip_by_the_ratio_and_silence_adds_nothing() -> None:
    waveforms, noises = sounds(1), np.stack([3 * sounds(2)[0], np.zeros(160_000, np.float32)])
    settings = PLAIN.model_copy(update={"noise_probability": 1.0, "noise_snr_db": (7.0, 7.0)})
    for noise in (0, 1):
        background = Background((), noises, (np.array([noise]),) * 3)
        plan = draw_plan(np.array([0]), 160_000, settings, 1.0, np.random.default_rng(0), background)
        added = render_waveforms(plan, waveforms, noises).numpy()[0] - waveforms[0]
        if noise:
            assert not added.any()
        else:
            ratio = np.mean(waveforms[0] ** 2) / np.mean(added**2)
            assert 10 * np.log10(ratio) == pytest.approx(7.0, abs=0.01)


def test_fine_tuning_moves_an_encoder_that_hears_waveforms(tmp_path: Path) -> None:
    table = read_dataset([write_tones(tmp_path / "data", train=2, test=1)])
    overrides = ["encoder.name=mn04_as", "finetune.kept_patches=1", "finetune.epochs=2", "finetune.batch_clips=4"]
    recipe = load_recipe("smoke", [*overrides, "finetune.augment.noise_probability=0.5"])
    (row,) = forecast(recipe, table, tmp_path / "run", device_here())
    assert row.steps == 4
    run_stages(recipe, table, tmp_path / "run")
    steps = (tmp_path / "run" / "stages" / "finetune" / "history.jsonl").read_text().splitlines()
    assert len(steps) == 4
    assert all(np.isfinite(json.loads(step)["loss"]) for step in steps)
    embedder = load_embedder(tmp_path / "run")
    assert embedder.hears == "waveform"
    found = score_run(tmp_path / "run", table)
    clip, embedding = found.test[0].clip, found.embeddings[found.test[0].clip.machine]
    with torch.inference_mode():
        alone = embedder(torch.from_numpy(load_clip(clip))[None])[0].numpy()
    np.testing.assert_allclose(embedding[1][embedding[0].index(clip)], alone, atol=1e-5)


def test_low_rank_fine_tuning_leaves_a_merged_encoder_that_differs_by_a_low_rank_and_nowhere_else(
    tmp_path: Path,
) -> None:
    table = read_dataset([write_tones(tmp_path / "data", train=2, test=1)])
    encoder = Eat(SIZES["smoke"])
    encoder.initialise(torch.Generator().manual_seed(5))
    weights = save_encoder(encoder, tmp_path)
    overrides = [f"encoder.weights={weights}", "encoder.lora.rank=2", "encoder.lora.projections=[query, value]"]
    recipe = load_recipe("smoke", [*overrides, "finetune.epochs=2", "finetune.batch_clips=4"])
    run_stages(recipe, table, tmp_path / "run")
    after = load_file(tmp_path / "run" / "stages" / "finetune" / "embedder.safetensors")
    for name, tensor in encoder.state_dict().items():
        change = after[f"encoder.{name}"] - tensor
        if name.endswith("attn.qkv.weight"):
            assert 0 < torch.linalg.matrix_rank(change, rtol=1e-3) <= 2
            assert not change[128:256].any()
        else:
            assert not change.any(), name
    assert not any("parametrizations" in name for name in after)
    (planned,) = forecast(recipe, table, tmp_path / "other", device_here())
    moving = sum(t.numel() for n, t in after.items() if n.startswith(("pooling", "projection"))) / 1e6
    assert float(planned.work.split(" M parameters")[0].split()[-1]) == pytest.approx(moving, abs=0.1)
