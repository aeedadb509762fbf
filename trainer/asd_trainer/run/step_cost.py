"""How long a step of each learning stage takes on this machine: a small piece of the very network is run and timed.

Owns the measuring. What a piece took is scaled up to a whole step by counted operations, as these do not depend on the machine. It
trains nothing and touches no run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from asd_daemon.judge.features.log_mel import EAT_FRAMES, MEL_BINS
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_S, WINDOW_SAMPLES
from asd_trainer.data.features import CLIP_FRAMES
from asd_trainer.finetune.augmentation import draw_plan, render
from asd_trainer.finetune.background import Background
from asd_trainer.finetune.classification import Classifier, embedder_shape
from asd_trainer.finetune.distillation import Distiller, load_teacher
from asd_trainer.networks.eat import MEL_PATCHES, SIZES, TIME_PATCHES, Eat
from asd_trainer.networks.embedder import Embedder
from asd_trainer.networks.encoders.interface import Hears
from asd_trainer.networks.separator import SIZES as SEPARATOR_SIZES
from asd_trainer.networks.separator import Separator
from asd_trainer.pretrain.stage import Pretrainer, PretrainingTask
from asd_trainer.recipe.keys import OptimiserRecipe
from asd_trainer.recipe.recipe import Recipe
from asd_trainer.separate.losses import AUXILIARY_WEIGHT, separate
from asd_trainer.separate.training import AUXILIARY_EVERY_STEPS, SupervisedSeparator
from asd_trainer.training.loop import build_optimiser
from asd_trainer.training.processes import processes

PATCHES = TIME_PATCHES * MEL_PATCHES  # 512
PIECE_PATCHES = 64
PIECE_S = 3.0  # shorter ones cost more a second: calls have a price of their own
CALLS, BUDGET_S = 4, 1.0  # of a measurement


@dataclass(frozen=True)
class StepCost:
    """What a step costs."""

    seconds: float
    parameters: int
    """Numbers that the optimiser moves."""


def finetune_cost(recipe: Recipe, classes: int, batch_clips: int) -> StepCost:
    """A step of fine-tuning, of a batch over all processes."""
    together = processes()
    kept = max(1, round(recipe.finetune.kept_patches * PATCHES))
    model = Classifier(recipe, classes)
    model.adapt_encoder(recipe)
    model.to(together.device).eval()  # the norms must not ask other processes
    piece = _clip_batch(min(kept, PIECE_PATCHES), together.device, model.embedder.hears)
    seconds, operations = _timed(lambda: _backward(model(**piece)["loss"]))
    whole = _embedder_operations(recipe, kept)
    own_clips = batch_clips / together.num_processes
    return StepCost(
        seconds=own_clips * (whole / operations * seconds + _render_seconds(recipe))
        + _update_seconds(model, recipe.finetune.optimiser),
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def distil_cost(recipe: Recipe, batch_clips: int) -> StepCost:
    """A step of distillation, of a batch over all processes.

    Raises:
        StageError: the teacher can't be had.
    """
    together = processes()
    settings = recipe.distil
    kept = max(1, round(settings.kept_patches * PATCHES))
    teacher = load_teacher(settings.teacher)
    student = Embedder(embedder_shape(recipe))
    student.initialise(torch.Generator().manual_seed(0))
    model = Distiller(student, teacher, torch.Generator().manual_seed(0)).to(together.device).eval()
    piece = _clip_batch(min(kept, PIECE_PATCHES), together.device)
    seconds, operations = _timed(lambda: _backward(student(piece["features"], piece["kept"]).sum()))
    taught_s = timed(lambda: teacher.embed(piece["features"])) / len(piece["features"])
    whole_s = _embedder_operations(recipe, kept) / operations * seconds
    return StepCost(
        seconds=batch_clips / together.num_processes * (whole_s + taught_s + _render_seconds(recipe))
        + _update_seconds(model, settings.optimiser),
        parameters=sum(p.numel() for p in model.parameters()),
    )


def pretrain_cost(recipe: Recipe, batch_clips: int) -> StepCost:
    """A step of pre-training, of a batch over all processes."""
    together = processes()
    settings = recipe.pretrain
    generator = torch.Generator().manual_seed(0)
    encoder = Eat(SIZES[recipe.encoder.size])
    encoder.initialise(generator)
    found: list[tuple[float, float]] = []
    for clones in (1, 2):
        mask = settings.mask.model_copy(update={"clones": clones})
        fewer = settings.model_copy(update={"mask": mask, "batch_clips": 1})
        model = Pretrainer(encoder, fewer, generator).to(together.device)
        sound = np.random.default_rng(0).normal(-4, 4, (1, CLIP_FRAMES, MEL_BINS)).astype(np.float32)
        piece = PretrainingTask(model, sound, fewer, seed=0, fingerprint="").batch(0, 0, 1)
        batch = {name: tensor.to(together.device) for name, tensor in piece.items()}
        found.append(_timed(lambda model=model, batch=batch: _backward(model(**batch)["loss"])))  # type: ignore[misc]
    (_, one), (seconds, two) = found
    whole = one + (settings.mask.clones - 1) * (two - one)
    return StepCost(
        seconds=batch_clips / together.num_processes * whole / two * seconds
        + _update_seconds(model, settings.optimiser),
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def separate_cost(recipe: Recipe) -> StepCost:
    """A step of the separator's training, of a batch over all processes."""
    together = processes()
    settings = recipe.separate
    model = SupervisedSeparator(Separator(SEPARATOR_SIZES[settings.size])).to(together.device)
    piece_s = min(PIECE_S, settings.crop_s)
    sources = torch.randn(1, 2, round(piece_s * SAMPLE_RATE_HZ), generator=torch.Generator().manual_seed(0)) * 0.1
    plain, with_heads = (
        _timed(lambda weight=weight: _backward(model(sources.to(together.device), torch.tensor(weight))["loss"]))[0]  # type: ignore[misc]
        for weight in (0.0, AUXILIARY_WEIGHT)
    )
    mean = plain + (with_heads - plain) / AUXILIARY_EVERY_STEPS
    heard_s = settings.batch_mixtures / together.num_processes * settings.crop_s
    return StepCost(
        seconds=heard_s / piece_s * mean + _update_seconds(model, settings.optimiser),
        parameters=sum(p.numel() for p in model.parameters()),
    )


def separating_seconds(recipe: Recipe) -> float:
    """Time in which a 10 s clip is separated."""
    network = Separator(SEPARATOR_SIZES[recipe.separate.size]).to(processes().device)
    piece = np.random.default_rng(0).normal(0, 0.1, round(PIECE_S * SAMPLE_RATE_HZ)).astype(np.float32)
    return WINDOW_S / PIECE_S * timed(lambda: separate(network, piece))


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call, the least of a few after one that warms up: a busy machine makes single calls longer, never shorter."""
    work()
    least, started = float("inf"), time.perf_counter()
    for _ in range(CALLS):
        begun = time.perf_counter()
        work()
        _wait_for_device()
        least = min(least, time.perf_counter() - begun)
        if time.perf_counter() - started > BUDGET_S:
            break
    return least


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds and operations of a call."""
    with FlopCounterMode(display=False) as counter:
        work()
    return timed(work), float(counter.get_total_flops())


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def _clip_batch(kept: int, device: torch.device, hears: Hears = "features") -> dict[str, Tensor]:
    """Two clips, of which `kept` patches are encoded; of windows, all."""
    generator = torch.Generator().manual_seed(0)
    batch = {
        "features": torch.randn(*_heard_shape(hears), generator=generator),
        "labels": torch.zeros(2, dtype=torch.int64),
        "partner_labels": torch.zeros(2, dtype=torch.int64),
        "mix": torch.ones(2),
    }
    if hears == "features":
        batch["kept"] = torch.arange(kept).expand(2, kept)
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _heard_shape(hears: Hears) -> tuple[int, ...]:
    return (2, EAT_FRAMES, MEL_BINS) if hears == "features" else (2, WINDOW_SAMPLES)


def _embedder_operations(recipe: Recipe, kept: int) -> float:
    """Operations of a clip forwards and backwards; counted on shapes alone."""
    with torch.device("meta"):
        embedder = Embedder(embedder_shape(recipe)).eval()
        features, patches = torch.empty(_heard_shape(embedder.hears)), torch.zeros(2, kept, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        _backward(embedder(features, patches if kept < PATCHES else None).sum())
    return float(counter.get_total_flops()) / 2


def _render_seconds(recipe: Recipe) -> float:
    """Time in which a clip is augmented."""
    rng = np.random.default_rng(0)
    sound = rng.normal(-4, 4, (4, CLIP_FRAMES, MEL_BINS)).astype(np.float32)
    settings = recipe.finetune
    rows = np.arange(4)
    background = Background((), sound, (rows,) * 4) if settings.augment.noise_probability else None

    def augment() -> Tensor:
        plan = draw_plan(rows, CLIP_FRAMES, settings.augment, settings.kept_patches, rng, background)
        return render(plan, sound, sound)

    return timed(augment) / 4


def _update_seconds(model: nn.Module, settings: OptimiserRecipe) -> float:
    """Time in which the optimiser moves the weights, whose gradients are there."""
    optimiser = build_optimiser(model, settings)
    learning = [p for p in model.parameters() if p.requires_grad]

    def update() -> None:
        nn.utils.clip_grad_norm_(learning, settings.clip_norm or float("inf"))
        optimiser.step()

    return timed(update)
