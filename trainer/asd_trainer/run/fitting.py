"""Making a stage fit the memory of a device without changing what it learns.

Owns the comparison, and what is lowered first: clips go through one after the other where no statistics are taken over a batch, then
blocks are computed twice. Gradients stay the same within rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from asd_daemon.errors import StageError
from asd_trainer.data.dataset import ClipTable
from asd_trainer.recipe.keys import OptimiserRecipe
from asd_trainer.recipe.recipe import Recipe
from asd_trainer.run.devices import GB, Device
from asd_trainer.run.stage_clips import Workload, workload
from asd_trainer.run.step_cost import StepCost, distil_cost, finetune_cost, pretrain_cost, separate_cost
from asd_trainer.training.processes import processes

SLACK = 1.1
"""An allocator keeps more than what lives, and inputs of the next step are made ahead."""
_SMALLER = {
    "separate": "separate.batch_mixtures, separate.crop_s or separate.size",
    "pretrain": "pretrain.mask.clones, pretrain.crop_frames or encoder.size",
    "distil": "distil.batch_clips, distil.kept_patches or encoder.size",
    "finetune": "finetune.batch_clips, finetune.kept_patches or encoder.size",
}


@dataclass(frozen=True)
class Fitting:
    """How a stage is done on a device."""

    recipe: Recipe
    """With the keys that were lowered."""
    lowered: tuple[str, ...]
    """What was, in words; empty where all fits."""
    cost: StepCost
    """Of a step."""


def fitted(name: str, recipe: Recipe, table: ClipTable, device: Device) -> Fitting:
    """A stage that learns, of these clips, as it fits a device's memory, or as much of it as `memory` allows.

    Raises:
        StageError: a step does not fit, however it is done; names the stage, the need and what is there.
        DataSetError: nothing to learn from.
    """
    work = workload(name, recipe, table)
    there = device.memory_bytes if isinstance(recipe.memory, str) else recipe.memory * GB
    first: float | None = None
    for tried, words in _gentler(name, recipe, work):
        cost = step_cost(name, tried, work)
        need = needed_bytes(cost)
        first = need if first is None else first
        if need <= there:
            line = f"{name}: a step would take {first / GB:.1f} GB of memory, {there / GB:.1f} GB are there: {words}, {need / GB:.1f} GB"
            return Fitting(tried, (line,) if words else (), cost)
    limit = "is free on" if recipe.memory == "auto" else "memory allows of"
    raise StageError(
        f"{name}: a step needs {need / GB:.1f} GB of memory at the least, and {there / GB:.1f} GB {limit} {device.words}; "
        f"lower {_SMALLER[name]}, or take another device"
    )


def needed_bytes(cost: StepCost) -> float:
    """Memory that a step is reckoned to take."""
    return cost.fullest.peak_bytes * SLACK


def step_cost(name: str, recipe: Recipe, work: Workload) -> StepCost:
    """A step of a stage on one of the devices that share its batch."""
    own = max(1, work.batch // processes().num_processes)
    if name == "separate":
        return separate_cost(recipe, own)
    if name == "pretrain":
        return pretrain_cost(recipe, own)
    if name == "distil":
        return distil_cost(recipe, own)
    return finetune_cost(recipe, work.classes, own)


def _gentler(name: str, recipe: Recipe, work: Workload) -> Iterator[tuple[Recipe, str]]:
    """The recipe, then with one thing after the other lowered, in words."""
    yield recipe, ""
    clips = 0
    if name == "pretrain":
        clips = min(recipe.pretrain.micro_clips or work.batch, max(1, work.batch // processes().num_processes))
        while clips > 1:
            clips = -(-clips // 2)
            recipe = _changed(recipe, name, micro_clips=clips)
            yield recipe, f"{clips} clip{'s' if clips > 1 else ''} at a time"
    section = getattr(recipe, name)
    optimiser: OptimiserRecipe = section.optimiser
    if not optimiser.recompute:
        again = optimiser.model_copy(update={"recompute": True})
        words = "blocks are computed again backwards"
        yield _changed(recipe, name, optimiser=again), f"one clip at a time, {words}" if clips else words


def _changed(recipe: Recipe, name: str, **keys: object) -> Recipe:
    return recipe.model_copy(update={name: getattr(recipe, name).model_copy(update=keys)})
