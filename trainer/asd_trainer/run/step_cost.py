"""What a step of each learning stage needs: operations, bytes and memory, counted on paper.

Owns which networks and shapes a step of a stage has. The counting is `step_trace`'s; it trains nothing and touches no run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from asd_daemon.judge.features.log_mel import EAT_FRAMES, MEL_BINS
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_SAMPLES
from asd_trainer.finetune.classification import Classifier, embedder_shape
from asd_trainer.finetune.distillation import Distiller, Teacher, teacher_on_paper
from asd_trainer.networks.eat import MEL_PATCHES, PATCH, SIZES, TIME_PATCHES, Eat
from asd_trainer.networks.embedder import Embedder
from asd_trainer.networks.encoders.interface import Hears
from asd_trainer.networks.normalisation import BatchNorm
from asd_trainer.networks.separator import SIZES as SEPARATOR_SIZES
from asd_trainer.networks.separator import Separator
from asd_trainer.pretrain.masks import kept_count
from asd_trainer.pretrain.stage import Pretrainer
from asd_trainer.recipe.embedder import FinetuneRecipe
from asd_trainer.recipe.keys import OptimiserRecipe
from asd_trainer.recipe.pretraining import PretrainRecipe
from asd_trainer.recipe.recipe import Recipe
from asd_trainer.recipe.separation import SeparateRecipe
from asd_trainer.run.step_trace import Operation, StepTrace, on_paper, traced, traced_forwards
from asd_trainer.separate.losses import AUXILIARY_WEIGHT
from asd_trainer.separate.training import AUXILIARY_EVERY_STEPS, SupervisedSeparator
from asd_trainer.training.recomputation import recomputed

PATCHES = TIME_PATCHES * MEL_PATCHES  # 512


@dataclass(frozen=True)
class StepCost:
    """A step of a stage, on one device."""

    traces: tuple[tuple[float, StepTrace], ...]
    """Kinds of steps with the part of all steps that they are."""

    @property
    def parameters(self) -> int:
        """Numbers that the optimiser moves."""
        return self.traces[0][1].parameters

    @property
    def macs(self) -> float:
        """Multiply-accumulates, mean over the steps."""
        return sum(part * trace.macs for part, trace in self.traces)

    @property
    def fullest(self) -> StepTrace:
        """The step that needs the most memory."""
        return max((trace for _, trace in self.traces), key=lambda trace: trace.peak_bytes)


def separate_cost(recipe: Recipe, mixtures: int) -> StepCost:
    """A step of the separator's training on so many mixtures."""
    chosen = recipe.separate
    return _separate_cost(
        SeparateRecipe(size=chosen.size, crop_s=chosen.crop_s, optimiser=_shaping(chosen.optimiser)), mixtures
    )


@lru_cache(maxsize=64)
def _separate_cost(settings: SeparateRecipe, mixtures: int) -> StepCost:
    low = settings.optimiser.mixed_precision == "bf16"
    with on_paper() if low else nullcontext():
        with torch.device("cpu" if low else "meta"):
            model = SupervisedSeparator(Separator(SEPARATOR_SIZES[settings.size])).train()
            sources = torch.empty(mixtures, 2, round(settings.crop_s * SAMPLE_RATE_HZ))
        with_heads, plain = (
            _step(model, lambda weight=weight: model.judged(sources, weight)["loss"], settings.optimiser)  # type: ignore[misc]
            for weight in (AUXILIARY_WEIGHT, 0.0)
        )
    part = 1 / AUXILIARY_EVERY_STEPS
    return StepCost(((part, with_heads), (1 - part, plain)))


def pretrain_cost(recipe: Recipe, clips: int) -> StepCost:
    """A step of pre-training on so many clips."""
    chosen = recipe.pretrain
    settings = PretrainRecipe(
        crop_frames=chosen.crop_frames,
        micro_clips=chosen.micro_clips,
        mask=chosen.mask,
        decoder=chosen.decoder.model_copy(update={"warmup_steps": 0}),
        optimiser=_shaping(chosen.optimiser),
    )
    return _pretrain_cost(recipe.encoder.size, settings, clips)


@lru_cache(maxsize=64)
def _pretrain_cost(size: str, settings: PretrainRecipe, clips: int) -> StepCost:
    at_once = min(settings.micro_clips or clips, clips)
    time_patches = settings.crop_frames // PATCH
    kept = kept_count(time_patches, settings.mask)
    masked = time_patches * MEL_PATCHES - kept
    with on_paper():
        model = Pretrainer(Eat(SIZES[size]), settings, torch.Generator()).train()
        features = torch.empty(at_once, settings.crop_frames, MEL_BINS)
        shape = (at_once, settings.mask.clones)
        places = torch.empty(*shape, kept, dtype=torch.int64), torch.empty(*shape, masked, dtype=torch.int64)
        noise = torch.empty(at_once * settings.mask.clones, masked, model.student.size.dim)
        step = _step(
            model,
            lambda: model.objective(features, *places, noise, at_once * settings.mask.clones)["loss"],
            settings.optimiser,
            parts=-(-clips // at_once),
        )
    return StepCost(((1.0, step),))


def finetune_cost(recipe: Recipe, classes: int, clips: int) -> StepCost:
    """A step of fine-tuning on so many clips."""
    chosen = recipe.finetune
    settings = FinetuneRecipe(
        kept_patches=chosen.kept_patches, arcface=chosen.arcface, optimiser=_shaping(chosen.optimiser)
    )
    encoder = recipe.encoder.model_copy(update={"weights": ""})
    return _finetune_cost(Recipe(encoder=encoder, embedding=recipe.embedding, finetune=settings), classes, clips)


@lru_cache(maxsize=64)
def _finetune_cost(recipe: Recipe, classes: int, clips: int) -> StepCost:
    with on_paper():
        model = Classifier(recipe, classes).train()
        model.adapt_encoder(recipe)
        batch = _clip_batch(clips, recipe.finetune.kept_patches, model.embedder.hears)
        labels = torch.empty(clips, dtype=torch.int64)
        batch |= {"labels": labels, "partner_labels": labels, "mix": torch.empty(clips)}
        return StepCost(((1.0, _step(model, lambda: model(**batch)["loss"], recipe.finetune.optimiser)),))


def distil_cost(recipe: Recipe, clips: int) -> StepCost:
    """A step of distillation on so many clips.

    Raises:
        StageError: the teacher can't be had.
    """
    with on_paper():
        teacher = teacher_on_paper(recipe.distil.teacher)
        student = Embedder(embedder_shape(recipe))
        model = Distiller(student, teacher, torch.Generator()).train()
        whole = _Beside(model, teacher)
        batch = _clip_batch(clips, recipe.distil.kept_patches, student.hears)
        return StepCost(((1.0, _step(whole, lambda: model(**batch)["loss"], recipe.distil.optimiser)),))


def _shaping(settings: OptimiserRecipe) -> OptimiserRecipe:
    """What of an optimiser's part shapes a step: steps that differ in nothing else are counted once."""
    return OptimiserRecipe(mixed_precision=settings.mixed_precision, recompute=settings.recompute)


@lru_cache(maxsize=8)
def separating_cost(size: str) -> tuple[Operation, ...]:
    """A 10 s clip that goes through a separator, forwards alone."""
    with torch.device("meta"):
        network = Separator(SEPARATOR_SIZES[size]).eval()
        sound = torch.empty(1, WINDOW_SAMPLES)
    return traced_forwards(lambda: network(sound))


class _Beside(nn.Module):
    """A model with its teacher, which lies on the device too and is no part of it."""

    def __init__(self, model: Distiller, teacher: Teacher) -> None:
        super().__init__()
        self.model, self.teacher = model, teacher.network


def _step(model: nn.Module, loss: Callable[[], Tensor], settings: OptimiserRecipe, parts: int = 1) -> StepTrace:
    low = settings.mixed_precision == "bf16"
    for norm in model.modules():
        if isinstance(norm, BatchNorm):
            norm.eval()  # nothing here may ask other processes
    with recomputed(model, wanted=settings.recompute):
        return traced(model, loss, low_precision=low, parts=parts)


def _clip_batch(clips: int, kept_patches: float, hears: Hears) -> dict[str, Tensor]:
    """Clips, of which a part of the patches is encoded, as batches of fine-tuning are."""
    shape = (EAT_FRAMES, MEL_BINS) if hears == "features" else (WINDOW_SAMPLES,)
    batch = {"features": torch.empty(clips, *shape)}
    if kept_patches < 1 and hears == "features":
        batch["kept"] = torch.empty(clips, max(1, round(kept_patches * PATCHES)), dtype=torch.int64)
    return batch
