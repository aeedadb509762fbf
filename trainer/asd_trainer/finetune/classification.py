"""Learning to tell the normal sounds of machines apart: the task that trains the embedder (paper, section 2.2).

Owns which clips are learned from, the model with its ArcFace head, and what a step is trained on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asd_daemon.errors import DataSetError
from asd_trainer.data.dataset import Clip, class_labels
from asd_trainer.data.feature_rows import FeatureRows
from asd_trainer.data.features import clips_digest
from asd_trainer.finetune.background import Background
from asd_trainer.finetune.batches import AugmentedClips, BatchSettings
from asd_trainer.networks.arcface import ArcFace
from asd_trainer.networks.eat import SIZES
from asd_trainer.networks.embedder import Embedder, EmbedderShape
from asd_trainer.networks.encoders.registry import named_shape
from asd_trainer.networks.lora import adapt
from asd_trainer.recipe.encoder import EAT
from asd_trainer.recipe.recipe import Recipe

log = logging.getLogger(__name__)


def embedder_shape(recipe: Recipe) -> EmbedderShape:
    """The shape of the embedder that a recipe trains."""
    chosen, encoder = recipe.embedding, recipe.encoder
    return EmbedderShape(
        SIZES[encoder.size] if encoder.name == EAT else named_shape(encoder.name, encoder.size),
        chosen.dimensions,
        chosen.attention_dim,
        chosen.layers,
        chosen.pooling,
    )


class Classifier(nn.Module):
    """Embedder and ArcFace head; called with a batch it gives the loss."""

    def __init__(self, recipe: Recipe, classes: int) -> None:
        super().__init__()
        shape = embedder_shape(recipe)
        loss = recipe.finetune.arcface
        self.embedder = Embedder(shape)
        self.head = ArcFace(shape.dimensions, classes, loss.scale, loss.margin, loss.subcentres)
        generator = torch.Generator().manual_seed(recipe.seed)
        self.embedder.initialise(generator)
        self.head.initialise(generator)

    def adapt_encoder(self, recipe: Recipe) -> None:
        """Let a low-rank part of the encoder learn and the rest of it stay, where the recipe asks for that."""
        chosen = recipe.encoder.lora
        if chosen.rank:
            generator = torch.Generator().manual_seed(recipe.seed)
            added = adapt(self.embedder.encoder, chosen.rank, chosen.alpha, chosen.projections, generator)
            log.info("finetune: low-rank adaptation, %d of the encoder's numbers learn", added)

    def forward(
        self, features: Tensor, labels: Tensor, partner_labels: Tensor, mix: Tensor, kept: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Loss and accuracy of a batch.

        Args:
            features: normalised log-mels, (B, 1024, 128), or windows (B, 160 000).
            labels: class of each clip, int64 (B,).
            partner_labels: class of the clip mixed into it, int64 (B,).
            mix: weight of the first label, (B,) in [0, 1].
            kept: patches to encode, int64 (B, K).
        """
        embeddings = self.embedder(features, kept)
        own = F.cross_entropy(self.head(embeddings, labels), labels, reduction="none")
        partner = F.cross_entropy(self.head(embeddings, partner_labels), partner_labels, reduction="none")
        hit = (
            (self.head.cosine(embeddings).argmax(dim=1) == torch.where(mix >= 0.5, labels, partner_labels))
            .float()
            .mean()
        )
        return {"loss": (mix * own + (1 - mix) * partner).mean(), "accuracy": hit}


class ClassificationTask:
    """Fine-tuning as the training loop sees it: every clip once an epoch in a fresh order, the last short batch left out.

    Args:
        recipe: of the run.
        clips: to learn from.
        log_mels: their features in the same order, (N, 998, 128), or waveforms (N, 160 000).
        background: what is mixed in as noise, where the recipe wants that.

    Raises:
        DataSetError: all clips are of one class.
    """

    name = "finetune"

    def __init__(
        self,
        recipe: Recipe,
        clips: Sequence[Clip],
        log_mels: FeatureRows,
        background: Background | None = None,
    ) -> None:
        self._labels, self.classes = class_labels(clips)
        if len(self.classes) < 2:
            raise DataSetError(
                f"all {len(clips)} training clips are of one class ({self.classes[0]}), and training tells classes apart: "
                "add another machine, or recordings under another condition"
            )
        self.model = Classifier(recipe, len(self.classes))
        self.seed = recipe.seed
        self.fingerprint = clips_digest([*clips, *(background.noises if background else ())])
        chosen = recipe.finetune
        settings = BatchSettings(chosen.batch_clips, chosen.kept_patches, chosen.augment, "finetune.batch_clips")
        self._clips = AugmentedClips(log_mels, settings, self.seed, background=background)
        self.steps = chosen.epochs * self._clips.epoch_steps

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """Part of the batch of a step; follows from the seed and the step."""
        plan = self._clips.draw(step, rank, world)
        return {
            **self._clips.tensors(plan),
            "labels": torch.from_numpy(self._labels[plan.clips]),
            "partner_labels": torch.from_numpy(self._labels[plan.partners]),
            "mix": torch.from_numpy(plan.mix),
        }
