"""What a plan says of memory, against torch's allocator at work; and how a stage is made to fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asd_daemon.errors import StageError
from asd_trainer.data.dataset import read_dataset
from asd_trainer.finetune.classification import Classifier, embedder_shape
from asd_trainer.finetune.distillation import Distiller, PatchMean, Teacher
from asd_trainer.networks.eat import SIZES, Eat
from asd_trainer.networks.embedder import Embedder
from asd_trainer.networks.separator import SIZES as SEPARATOR_SIZES
from asd_trainer.networks.separator import Separator
from asd_trainer.networks.weights import save_encoder
from asd_trainer.pretrain.masks import draw_masks
from asd_trainer.pretrain.stage import Pretrainer
from asd_trainer.recipe.keys import OptimiserRecipe
from asd_trainer.recipe.recipe import Recipe, load_recipe
from asd_trainer.run.devices import GB, Device, device_here
from asd_trainer.run.fitting import fitted, needed_bytes
from asd_trainer.run.forecast import forecast, printed
from asd_trainer.run.stages import run_stage, run_stages
from asd_trainer.run.step_cost import distil_cost, finetune_cost, pretrain_cost, separate_cost
from asd_trainer.separate.training import SupervisedSeparator
from asd_trainer.training.loop import build_optimiser, parts_of
from asd_trainer.training.recomputation import recomputed
from rig.allocations import peak_bytes
from rig.tones import write_tones

pytestmark = pytest.mark.torch

SMALL = (
    "separate.crop_s=1",
    "pretrain.steps=1",
    "pretrain.crop_frames=256",
    "pretrain.mask.clones=4",
    "finetune.kept_patches=0.5",
    "distil.kept_patches=0.5",
)
WAYS = {"plain": (), "recomputed": ("recompute=true",), "half": ("mixed_precision=bf16",)}


def small_recipe(way: str = "plain", *more: str) -> Recipe:
    stages = ("separate", "pretrain", "distil", "finetune")
    keys = [f"{stage}.optimiser.{key}" for stage in stages for key in WAYS[way]]
    return load_recipe("smoke", [*SMALL, *keys, *more])


def taken_bytes(
    whole: nn.Module,
    loss: Callable[[Mapping[str, Tensor]], Tensor],
    batch: dict[str, Tensor],
    settings: OptimiserRecipe,
    at_once: int = 0,
) -> int:
    """Weights and moments, and what the second of two training steps takes besides."""
    optimiser = build_optimiser(whole, settings)

    def step() -> None:
        optimiser.zero_grad()
        for _, part in parts_of(batch, at_once):
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.mixed_precision == "bf16"):
                value = loss(part)
            value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    with recomputed(whole, wanted=settings.recompute):
        step()
        optimiser.zero_grad()
        state = [
            *whole.parameters(),
            *whole.buffers(),
            *(t for slots in optimiser.state.values() for t in slots.values()),
        ]
        kept: int = sum(tensor.nbytes for tensor in state)
        return kept + peak_bytes(step)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("way", ["plain", "recomputed"])
def test_memory_of_separation_is_what_its_steps_take(way: str) -> None:
    recipe = small_recipe(way)
    model = SupervisedSeparator(Separator(SEPARATOR_SIZES["edge"])).train()
    batch = {"sources": torch.randn(2, 2, 16_000, generator=seeded()) * 0.1}
    taken = taken_bytes(
        model, lambda part: model.judged(part["sources"], 0.4)["loss"], batch, recipe.separate.optimiser
    )
    assert separate_cost(recipe, 2).fullest.peak_bytes == pytest.approx(taken, rel=0.15)


@pytest.mark.parametrize("micro_clips", [0, 1])
@pytest.mark.parametrize("way", WAYS)
def test_memory_of_pre_training_is_what_its_steps_take(way: str, micro_clips: int) -> None:
    recipe = small_recipe(way, f"pretrain.micro_clips={micro_clips}")
    encoder = Eat(SIZES["smoke"])
    encoder.initialise(seeded())
    model = Pretrainer(encoder, recipe.pretrain, seeded()).train()
    masks = draw_masks(8, 16, recipe.pretrain.mask, np.random.default_rng(0))
    batch = {
        "features": torch.randn(2, 256, 128, generator=seeded()),
        "kept": torch.from_numpy(masks.kept.reshape(2, 4, -1)),
        "masked": torch.from_numpy(masks.masked.reshape(2, 4, -1)),
        "noise_seeds": torch.tensor([1, 2]),
        "step": torch.tensor(0),
        "sequences": torch.tensor(8),
    }
    taken = taken_bytes(model, lambda part: model(**part)["loss"], batch, recipe.pretrain.optimiser, micro_clips)
    assert pretrain_cost(recipe, 2).fullest.peak_bytes == pytest.approx(taken, rel=0.15)


@pytest.mark.parametrize("way", WAYS)
def test_memory_of_distillation_is_what_its_steps_take(way: str, tmp_path: Path) -> None:
    teacher_encoder = Eat(SIZES["edge"])
    teacher_encoder.initialise(seeded())
    save_encoder(teacher_encoder, tmp_path)
    recipe = small_recipe(way, f"distil.teacher={tmp_path}")
    teacher = Teacher(PatchMean(teacher_encoder), 192, "")
    student = Embedder(embedder_shape(recipe))
    student.initialise(seeded())
    model = Distiller(student, teacher, seeded()).train()
    whole = nn.ModuleList([model, teacher.network])
    batch = clip_batch(4)
    taken = taken_bytes(whole, lambda part: model(**part)["loss"], batch, recipe.distil.optimiser)
    assert distil_cost(recipe, 4).fullest.peak_bytes == pytest.approx(taken, rel=0.15)


@pytest.mark.parametrize("way", WAYS)
def test_memory_of_fine_tuning_is_what_its_steps_take(way: str) -> None:
    recipe = small_recipe(way)
    model = Classifier(recipe, 5).train()
    labels = torch.arange(8) % 5
    batch = {**clip_batch(8), "labels": labels, "partner_labels": labels, "mix": torch.ones(8)}
    taken = taken_bytes(model, lambda part: model(**part)["loss"], batch, recipe.finetune.optimiser)
    assert finetune_cost(recipe, 5, 8).fullest.peak_bytes == pytest.approx(taken, rel=0.15)


def clip_batch(clips: int) -> dict[str, Tensor]:
    """Clips of which half of the patches is encoded."""
    kept = torch.arange(256).expand(clips, 256)
    return {"features": torch.randn(clips, 1024, 128, generator=seeded()), "kept": kept}


def test_paper_fits_a_card_of_80_gb_because_blocks_are_computed_twice() -> None:
    paper = load_recipe("paper")
    assert paper.separate.optimiser.recompute
    assert needed_bytes(separate_cost(paper, 8)) < 20 * GB
    assert needed_bytes(finetune_cost(paper, 100, 32)) < 20 * GB


def small_device(memory_bytes: float) -> Device:
    return replace(device_here(), memory_bytes=memory_bytes)


def test_stage_that_does_not_fit_is_lowered_step_by_step_and_then_refused(tmp_path: Path) -> None:
    table = read_dataset([write_tones(tmp_path / "data", train=4)])
    recipe = small_recipe("plain", "pretrain.batch_clips=8")
    needs = [
        needed_bytes(pretrain_cost(small_recipe("plain", f"pretrain.micro_clips={clips}"), 8)) for clips in (0, 4, 2, 1)
    ]
    assert needs == sorted(needs, reverse=True)
    assert fitted("pretrain", recipe, table, small_device(needs[0])).lowered == ()
    halved = fitted("pretrain", recipe, table, small_device(needs[1]))
    assert halved.recipe.pretrain.micro_clips == 4
    assert "4 clips at a time" in halved.lowered[0]
    least = fitted("pretrain", recipe, table, small_device(needs[3] * 0.98))
    assert (least.recipe.pretrain.micro_clips, least.recipe.pretrain.optimiser.recompute) == (1, True)
    tight = small_device(0.005 * GB)
    with pytest.raises(
        StageError, match=r"pretrain: a step needs 0\.0 GB of memory at the least.*lower pretrain\.mask\.clones"
    ):
        fitted("pretrain", recipe, table, tight)
    row = forecast(recipe, table, tmp_path / "run", tight)[0]
    assert row.remark.startswith("does not fit: pretrain: a step needs")
    assert row.remark in printed([row], 10**12, tight)


def test_run_refuses_what_does_not_fit_before_any_stage_begins(tmp_path: Path) -> None:
    table = read_dataset([write_tones(tmp_path / "data", train=4)])
    recipe = small_recipe(
        "plain", "memory=0.03", "finetune.kept_patches=1", "pretrain.crop_frames=32", "pretrain.mask.clones=1"
    )
    with pytest.raises(StageError, match=r"^finetune: a step needs .* 0\.0 GB memory allows of"):
        run_stages(recipe, table, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_memory_key_lowers_a_stage_and_the_run_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = read_dataset([write_tones(tmp_path / "data", train=4)])
    plain = small_recipe("plain", "finetune.epochs=1", "pretrain.steps=0")
    limit = needed_bytes(finetune_cost(plain, 2, 8)) / GB * 0.9
    less = small_recipe("plain", "finetune.epochs=1", "pretrain.steps=0", f"memory={limit}")
    with caplog.at_level("INFO", "asd_trainer"):
        run_stage("finetune", less, table, tmp_path / "lowered")
    assert "blocks are computed again backwards" in caplog.text
    run_stage("finetune", plain, table, tmp_path / "plain")
    lowered, whole = ((tmp_path / run / "stages/finetune/history.jsonl").read_text() for run in ("lowered", "plain"))
    assert lowered == whole
