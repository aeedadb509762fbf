"""Distillation: a small embedder learns to give the embeddings of a larger one (decision 9).

Owns the teacher in its two kinds, and what a step is trained on. The student hears what fine-tuning would be shown, and the teacher
hears the same; its classes are not asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from asd_daemon.errors import StageError
from asd_daemon.judge.features.log_mel import eat_input
from asd_trainer.data.clip import Clip
from asd_trainer.data.feature_rows import FeatureRows
from asd_trainer.data.features import clips_digest
from asd_trainer.finetune.background import Background
from asd_trainer.finetune.batches import AugmentedClips, BatchSettings
from asd_trainer.networks.eat import Eat
from asd_trainer.networks.embedder import (
    AnyEmbedder,
    Embedder,
    empty_embedder,
    load_embedder,
    model_digest,
    read_embedder,
    trained_folder,
)
from asd_trainer.networks.weights import load_weights, weights_size
from asd_trainer.recipe.recipe import Recipe
from asd_trainer.training.progress import counted_steps
from asd_trainer.training.run_folder import RUN_RECIPE

STREAM = (2,)
"""Of random numbers: fine-tuning's own come from the seed alone."""
STANDARD_FILE = "standard.safetensors"
STANDARD_CLIPS = 512
SMALLEST_SPREAD = 1e-4


class PatchMean(nn.Module):
    """An encoder's tokens, averaged over the patches and standardised: normalised log-mels (B, 1024, 128) → (B, dim) of unit length.

    A few channels of released encoders are as good as constant and far larger than all others; cosines of their plain means are near
    1 for any two sounds. Every channel is therefore centred and scaled by what it does over the clips of the run.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, encoder: Eat) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("centre", torch.zeros(encoder.size.dim))
        self.register_buffer("spread", torch.ones(encoder.size.dim))

    def forward(self, features: Tensor) -> Tensor:
        """Embed."""
        return F.normalize((self.mean(features) - self.centre) / self.spread, dim=1)

    def mean(self, features: Tensor) -> Tensor:
        """Tokens averaged over the patches, (B, dim)."""
        pooled: Tensor = self.encoder(features)[:, 1:].float().mean(dim=1)
        return pooled


class Teacher:
    """What is imitated. It is no part of the model: it never learns, and no checkpoint holds it.

    Args:
        network: normalised log-mels (B, 1024, 128) → embeddings (B, D) of unit length.
        dimensions: D.
        digest: names the weights.
    """

    def __init__(self, network: AnyEmbedder | PatchMean, dimensions: int, digest: str) -> None:
        self.network = network.eval().requires_grad_(requires_grad=False)
        self.dimensions, self.digest = dimensions, digest

    def embed(self, features: Tensor) -> Tensor:
        """Embeddings, float32 (B, D), of unit length, on the features' device."""
        if next(self.network.parameters()).device != features.device:
            self.network.to(features.device)
        with torch.no_grad():
            embeddings: Tensor = self.network(features)
        return embeddings.float()

    def standardise(self, log_mels: FeatureRows, folder: Path) -> None:
        """Find centre and spread of an encoder's channels on clips (N, T, 128), or read what was found before in the folder.

        Does nothing for an embedder, which is trained to be centred.

        Raises:
            StageError: the file can't be read or written.
        """
        if not isinstance(self.network, PatchMean):
            return
        path = folder / STANDARD_FILE
        try:
            if not path.exists():
                _write_standard(self.network, log_mels, path)
            self.network.load_state_dict(load_file(path), strict=False)
        except (OSError, SafetensorError, RuntimeError) as e:
            raise StageError(f"{path}: can't be written or read back ({e}); remove it to compute it anew") from e


def _write_standard(network: PatchMean, log_mels: FeatureRows, path: Path) -> None:
    rows = np.unique(np.linspace(0, len(log_mels) - 1, min(STANDARD_CLIPS, len(log_mels))).round().astype(np.int64))
    device = network.centre.device
    means = []
    with torch.no_grad(), counted_steps("distil: hearing the teacher (clips)", len(rows)) as advance:
        for done, row in enumerate(rows, start=1):
            means.append(network.mean(torch.from_numpy(eat_input(log_mels[row])).unsqueeze(0).to(device)))
            advance(done, {})
    found = torch.cat(means).cpu()
    spread = found.std(dim=0, correction=0).clamp_min(SMALLEST_SPREAD)
    partial = path.with_suffix(".partial")
    save_file({"centre": found.mean(dim=0), "spread": spread}, partial)
    os.replace(partial, path)


def _is_run(source: str) -> bool:
    return (Path(source) / RUN_RECIPE).exists() or (Path(source) / "stages").is_dir()


def teacher_on_paper(source: str) -> Teacher:
    """A teacher of the shape of the one that `distil.teacher` names, without its weights.

    Raises:
        StageError: it can't be had, or is broken; names the key.
    """
    try:
        if _is_run(source):
            embedder = _that_teaches(Path(source), empty_embedder(trained_folder(Path(source))))
            return Teacher(embedder, embedder.dimensions, "")
        size = weights_size(source)
    except StageError as e:
        raise StageError(f"distil.teacher: {e}") from e
    return Teacher(PatchMean(Eat(size)), size.dim, "")


def load_teacher(source: str) -> Teacher:
    """The teacher that `distil.teacher` names: the embedder of a run, or weights of EAT.

    Raises:
        StageError: it can't be had, or is broken; names the key.
    """
    run = Path(source)
    try:
        if _is_run(source):
            return _trained_teacher(run)
        weights = load_weights(source)
    except StageError as e:
        raise StageError(f"distil.teacher: {e}") from e
    return Teacher(PatchMean(weights.encoder()), weights.size.dim, weights.digest)


def _trained_teacher(run: Path) -> Teacher:
    embedder = _that_teaches(run, load_embedder(run))
    return Teacher(embedder, embedder.dimensions, model_digest(run))


def _that_teaches(run: Path, embedder: AnyEmbedder) -> AnyEmbedder:
    if embedder.hears != "features":
        raise StageError(f"{run}: its encoder has a front end of its own; only one that hears EAT's log-mels can teach")
    return embedder


def distilled_embedder(stages: Path) -> Embedder:
    """The embedder that the stage left, for fine-tuning to start from.

    Raises:
        StageError: the stage is not done, or its files are broken.
    """
    folder = stages / "distil"
    if not (folder / "done").exists():
        run = stages.parent
        raise StageError(
            f"{run}: fine-tuning starts from what distil makes, and distil is not done: asd-train distil {run}"
        )
    student = read_embedder(folder)
    if not isinstance(student, Embedder):
        raise StageError(f"{folder}: holds a frozen encoder, which no distillation leaves")
    return student


class OrthogonalMap(nn.Module):
    """A linear map (B, D) → (B, E) that turns and does not stretch: the smaller space lies in the larger one with all its angles.

    Sounds that are near each other to the teacher thus come near each other to the student, who will be without the map.
    """

    def __init__(self, dimensions: int, others: int, generator: torch.Generator) -> None:
        super().__init__()
        self.widens = dimensions < others
        self.free = nn.Parameter(torch.empty(max(dimensions, others), min(dimensions, others)))
        nn.init.normal_(self.free, generator=generator)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Turn; where E is smaller than D, what lies outside is lost."""
        columns, upper = torch.linalg.qr(self.free)
        columns = columns * upper.diagonal().sign()  # one answer of the many that a QR decomposition has
        turned: Tensor = embeddings @ (columns.T if self.widens else columns)
        return turned


class Distiller(nn.Module):
    """Student and, where its embeddings have another number of components than the teacher's, a turn between them.

    Called with a batch it gives the loss: one less the cosine of the student's embedding and the teacher's, mean over clips.
    """

    def __init__(self, student: Embedder, teacher: Teacher, generator: torch.Generator) -> None:
        super().__init__()
        self.student = student
        own, others = student.dimensions, teacher.dimensions
        self.map = OrthogonalMap(own, others, generator) if own != others else None
        self._teacher = teacher  # no module: neither moved, saved nor learned with this one

    def forward(self, features: Tensor, kept: Tensor | None = None) -> dict[str, Tensor]:
        """Loss and mean cosine of a batch.

        Args:
            features: normalised log-mels, (B, 1024, 128).
            kept: patches that the student encodes, int64 (B, K); the teacher encodes all.
        """
        expected = self._teacher.embed(features)
        embeddings = self.student(features, kept)
        turned = embeddings if self.map is None else self.map(embeddings)
        # Both have unit length but for what a map into fewer components loses, and that is an error too.
        cosine = (turned.float() * expected).sum(dim=1).mean()
        return {"loss": 1 - cosine, "cosine": cosine.detach()}


class DistillationTask:
    """Distillation as the training loop sees it.

    Args:
        recipe: of the run.
        student: embedder that learns, in place.
        teacher: whom it imitates.
        clips: to learn from.
        log_mels: their features in the same order, (N, 998, 128).
        background: what is mixed in as noise, where the recipe wants that.
    """

    name = "distil"

    def __init__(
        self,
        recipe: Recipe,
        student: Embedder,
        teacher: Teacher,
        clips: Sequence[Clip],
        log_mels: FeatureRows,
        background: Background | None = None,
    ) -> None:
        chosen = recipe.distil
        self.seed = recipe.seed
        self.model = Distiller(student, teacher, torch.Generator().manual_seed(recipe.seed))
        self.fingerprint = f"{clips_digest([*clips, *(background.noises if background else ())])}-{teacher.digest[:16]}"
        settings = BatchSettings(chosen.batch_clips, chosen.kept_patches, recipe.finetune.augment, "distil.batch_clips")
        self._clips = AugmentedClips(log_mels, settings, self.seed, STREAM, background)
        self.steps = chosen.epochs * self._clips.epoch_steps

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """Part of the batch of a step; follows from the seed and the step."""
        return self._clips.tensors(self._clips.draw(step, rank, world))
