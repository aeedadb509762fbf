"""The one training loop: steps, learning rate, checkpoints, interruption, progress.

Every stage that learns runs through `train`. A step depends on the seed and its own number alone, so that a run that was stopped
and goes on ends with the same weights, bit for bit, as one that was not. It knows no sound and no loss.
"""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from asd_daemon.errors import SettingsError, StageError
from asd_trainer.recipe.keys import OptimiserRecipe
from asd_trainer.training.checkpoint import Checkpoints
from asd_trainer.training.interruption import Interrupted, recorded_signals
from asd_trainer.training.processes import processes, refuse_different_steps
from asd_trainer.training.progress import counted_steps
from asd_trainer.training.recomputation import recomputed
from asd_trainer.training.tracking import followed

log = logging.getLogger(__name__)


class Task(Protocol):
    """What a stage trains."""

    @property
    def model(self) -> nn.Module:
        """Called with a batch as keywords; gives named scalars, `loss` among them."""

    @property
    def name(self) -> str:
        """The stage's name, for messages."""

    @property
    def steps(self) -> int:
        """Number of updates."""

    @property
    def seed(self) -> int:
        """Seed of torch's own generators (dropout)."""

    @property
    def fingerprint(self) -> str:
        """Equal for tasks with the same data; a checkpoint of another fingerprint is refused."""

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """The part of a step's batch that process `rank` of `world` trains on; a function of its arguments alone."""


def train(task: Task, settings: OptimiserRecipe, folder: Path, *, at_once: int = 0) -> None:
    """Train a task's model in place, going on from the last checkpoint in the folder where there is one.

    The folder gets `history.jsonl`, one line of figures a step, and `checkpoints/`. `at_once` rows of a batch go through the model at a
    time, 0 for all: of use where the loss is a mean over rows that know nothing of each other.

    Raises:
        Interrupted: SIGINT or SIGTERM came; a checkpoint was written.
        StageError: the loss is no longer finite, the checkpoint belongs to other data, or other processes found another one.
    """
    torch.manual_seed(task.seed)
    processes()
    AcceleratorState._reset_state()  # stages of one run may differ in their number format; accelerate allows one unless told
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    task.model.to(accelerator.device)
    optimiser = build_optimiser(task.model, settings)
    checkpoints = Checkpoints(folder, task.fingerprint, writes=accelerator.is_main_process)
    first = checkpoints.resume(task.model, optimiser)
    refuse_different_steps(task.name, first)
    if first:
        log.info("%s: going on after step %d of %d", task.name, first, task.steps)
    model, prepared = accelerator.prepare(task.model, optimiser)
    model.train()
    with (
        recorded_signals() as signals,
        recomputed(task.model, wanted=settings.recompute),
        followed(folder, first) as follow,
        counted_steps(task.name, task.steps, first, shown=accelerator.is_main_process) as advance,
    ):
        for step in range(first, task.steps):
            rate = learning_rate(step, task.steps, settings)
            for group in optimiser.param_groups:
                group["lr"] = rate
            batch = task.batch(step, accelerator.process_index, accelerator.num_processes)
            figures = _update(accelerator, model, prepared, parts_of(batch, at_once), settings)
            figures["learning_rate"] = rate
            if not math.isfinite(figures["loss"]):
                raise StageError(
                    f"{task.name}: the loss is {figures['loss']} at step {step + 1}; "
                    f"lower optimiser.learning_rate ({settings.learning_rate}) or raise warmup_ratio ({settings.warmup_ratio})"
                )
            checkpoints.note(step + 1, figures)
            follow(step + 1, figures)
            advance(step + 1, figures)
            last = step + 1 == task.steps
            noted = _told(accelerator, signals)
            if (noted or last or (step + 1) % settings.checkpoint_steps == 0) and accelerator.is_main_process:
                checkpoints.save(step + 1, task.model, optimiser)
            if noted and not last:
                name = signal.Signals(noted).name
                raise Interrupted(
                    noted,
                    f"{task.name} stopped by {name} after step {step + 1} of {task.steps}; it goes on from there",
                )
    task.model.eval()


def even_share(rows: int, rank: int, world: int, key: str) -> slice:
    """Which rows of a batch process `rank` of `world` takes: every world-th.

    Raises:
        SettingsError: the processes would get batches of different size, whose mean gradient is not the whole batch's; names the key.
    """
    if rows % world:
        raise SettingsError(
            f"{key}: a batch of {rows} can't be shared evenly by {world} processes; give a multiple of {world}"
        )
    return slice(rank, None, world)


def _told(accelerator: Accelerator, signals: list[int]) -> int:
    """The signal that asked to stop, 0 for none; all processes agree on it, so that they stop after the same step."""
    own = signals[0] if signals else 0
    if accelerator.num_processes == 1:
        return own
    return int(accelerator.gather(torch.tensor([own], device=accelerator.device)).max())


def _update(
    accelerator: Accelerator,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    parts: Sequence[tuple[float, Mapping[str, Tensor]]],
    settings: OptimiserRecipe,
) -> dict[str, float]:
    """Forward and backward for each part of the batch, and one step; the figures of the forward passes with the gradient's norm."""
    optimiser.zero_grad()
    totals: dict[str, Tensor] = {}
    for number, (weight, part) in enumerate(parts, start=1):
        with accelerator.no_sync(model) if number < len(parts) else nullcontext():
            with accelerator.autocast():
                figures = model(**{name: tensor.to(accelerator.device) for name, tensor in part.items()})
            accelerator.backward(figures["loss"] * weight if len(parts) > 1 else figures["loss"])
        for name, figure in figures.items():
            known = figure.detach() * weight if len(parts) > 1 else figure.detach()
            totals[name] = totals[name] + known if name in totals else known
        del figures
    norm = accelerator.clip_grad_norm_(model.parameters(), settings.clip_norm or math.inf)
    optimiser.step()
    reduced = {name: accelerator.reduce(figure, "mean") for name, figure in totals.items()}
    return {**{name: float(figure) for name, figure in reduced.items()}, "gradient_norm": float(norm)}


def parts_of(batch: Mapping[str, Tensor], at_once: int) -> list[tuple[float, Mapping[str, Tensor]]]:
    """A batch in parts of so many rows, 0 for all, each with its share of the rows; numbers without rows are everyone's."""
    rows = max((tensor.shape[0] for tensor in batch.values() if tensor.ndim), default=1)
    if not at_once or at_once >= rows:
        return [(1.0, batch)]
    return [
        (
            min(at_once, rows - first) / rows,
            {name: tensor[first : first + at_once] if tensor.ndim else tensor for name, tensor in batch.items()},
        )
        for first in range(0, rows, at_once)
    ]


def build_optimiser(model: nn.Module, settings: OptimiserRecipe) -> torch.optim.Optimizer:
    """Adam or AdamW over all parameters that learn; biases, norms and single vectors do not decay."""
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.learning_rate, betas=settings.betas)


def learning_rate(step: int, steps: int, settings: OptimiserRecipe) -> float:
    """Rate of a step counted from 0: a linear rise over the warm-up, then half a cosine down to its final part."""
    warmup = settings.warmup_ratio * steps
    if step + 1 < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step + 1 - warmup) / max(steps - warmup, 1.0)
    return settings.learning_rate * (
        settings.final_ratio + (1 - settings.final_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
    )
