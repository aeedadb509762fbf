"""Training a separator: what the one training loop is told, and the files that a trained separator lives in.

Owns the task (examples of a step, figures of a batch) and the separator's folder. The loop itself, its optimiser and its
checkpoints are not here, nor is the choice of clips.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from asd_daemon.errors import StageError
from asd_trainer.networks.separator import Separation, Separator, SeparatorSize
from asd_trainer.separate.losses import auxiliary_weight, separation_loss, si_snr_db
from asd_trainer.separate.mixtures import Material, MixtureRule, draw

SCHEMA = 1
WEIGHTS, DESCRIPTION = "separator.safetensors", "separator.json"
AUXILIARY_EVERY_STEPS = 4  # a step with the heads costs two and a half times one without


@dataclass(frozen=True)
class SeparatorTraining:
    """What a step learns from."""

    materials: tuple[Material, ...]
    """One for each machine; every example takes one of them at random."""
    rule: MixtureRule
    batch_mixtures: int
    steps: int
    seed: int


class SupervisedSeparator(nn.Module):
    """The separator with its loss, as the training loop calls it."""

    def __init__(self, separator: Separator) -> None:
        super().__init__()
        self.separator = separator

    def forward(self, sources: Tensor, auxiliary: Tensor) -> dict[str, Tensor]:
        """Separate the sum of sources (B, 2, samples); the loss, and how much better the machine is heard, in dB."""
        return self.judged(sources, float(auxiliary))

    def judged(self, sources: Tensor, auxiliary: float) -> dict[str, Tensor]:
        """The same with the share of the auxiliary heads as a number."""
        mixture = sources.sum(dim=1)
        separation = self.separator.with_stages(mixture) if auxiliary > 0 else Separation(self.separator(mixture), ())
        with torch.no_grad():
            machine = sources[:, 0]
            gained = si_snr_db(separation.sources[:, 0], machine) - si_snr_db(mixture, machine)
        idle = sum(parameter.sum() for parameter in self.separator.auxiliary.parameters())
        loss = separation_loss(separation, sources, auxiliary) + 0.0 * idle  # several processes want every gradient
        return {"loss": loss, "gained_db": gained.mean()}


class SeparationTask:
    """Separation as the loop trains it: the examples of a step follow from the seed and the step's number."""

    name = "separate"

    def __init__(self, separator: Separator, lesson: SeparatorTraining) -> None:
        self.model = SupervisedSeparator(separator)
        self.lesson = lesson
        self.steps = lesson.steps
        self.seed = lesson.seed

    @property
    def fingerprint(self) -> str:
        """Equal for the same sounds, rule and size."""
        digest = hashlib.sha256(repr((self.model.separator.size, self.lesson.rule, self.seed)).encode())
        for material in self.lesson.materials:
            for sound in (*material.machines, *material.noises):
                digest.update(np.ascontiguousarray(sound).data)
        return digest.hexdigest()

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """The examples of one process of `world` for a step."""
        lesson = self.lesson
        rng = np.random.default_rng((lesson.seed, step, rank))
        chosen = rng.integers(len(lesson.materials), size=max(1, lesson.batch_mixtures // world))
        examples = np.stack([draw(lesson.materials[int(one)], lesson.rule, rng) for one in chosen])
        weight = auxiliary_weight(step, lesson.steps) if step % AUXILIARY_EVERY_STEPS == 0 else 0.0
        return {"sources": torch.from_numpy(examples), "auxiliary": torch.tensor(weight)}


def save_separator(separator: Separator, folder: Path) -> None:
    """Write the weights used at listening time, and the size that they belong to; the auxiliary heads are left behind.

    Raises:
        StageError: the folder can't be written.
    """
    weights = {
        name: tensor.contiguous()
        for name, tensor in separator.state_dict().items()
        if not name.startswith("auxiliary.")
    }
    try:
        save_file(weights, folder / WEIGHTS)
        text = json.dumps({"schema": SCHEMA, "size": asdict(separator.size)}, indent=1)
        (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as e:
        raise StageError(f"{folder}: the separator can't be written: {e}") from e


def load_separator(folder: Path) -> Separator:
    """Read a separator back, in evaluation mode, on the CPU.

    Raises:
        StageError: a file is missing, broken, of another version, or the weights don't fit the size.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if description["schema"] != SCHEMA:
            raise StageError(
                f"{folder / DESCRIPTION}: schema {description['schema']} is not {SCHEMA}; train the separator anew"
            )
        separator = Separator(SeparatorSize(**description["size"]))
        weights = load_file(folder / WEIGHTS)
        missing, unknown = separator.load_state_dict(weights, strict=False)
    except FileNotFoundError as e:
        raise StageError(
            f"{folder}: no trained separator here ({Path(e.filename).name} is missing); run asd-train separate"
        ) from e
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as e:
        raise StageError(f"{folder}: the separator is broken: {str(e).splitlines()[0]}") from e
    lost = [name for name in missing if not name.startswith("auxiliary.")]
    if lost or unknown:
        raise StageError(f"{folder / WEIGHTS}: does not fit size {separator.size.name}: {[*lost, *unknown][0]}")
    return separator.eval()
