"""The embedder: EAT, pooling over its patches, projection to a unit vector; and the ArcFace head that trains it.

Owns what a clip's log-mel becomes and how an embedder lies on disk (safetensors and json). It reads no sound and trains nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from asd_daemon.errors import StageError
from asd_daemon.judge.features.power_spectrum import frame_count
from asd_daemon.waveform import WINDOW_SAMPLES
from asd_trainer.networks.eat import MEL_PATCHES, NORM_EPSILON, PATCH, Eat, EatSize, initialise_layers
from asd_trainer.networks.normalisation import BatchNorm

SCHEMA = 1
VARIANCE_FLOOR = 1e-6
Layers = Literal["last", "all", "patches"]
Pooling = Literal["statistics", "quantiles"]
QUANTILES = (0.0, 0.1, 0.5)
WHOLE_PATCHES = frame_count(WINDOW_SAMPLES) // PATCH  # in time: those after them hold padding
COSINE_LIMIT = 1.0 - 1e-6  # the derivative of the sine is infinite at ±1


@dataclass(frozen=True)
class EmbedderShape:
    """All that is needed to build an embedder of the same shape."""

    encoder: EatSize
    dimensions: int
    """Components of the embedding."""
    attention_dim: int
    """Hidden channels of the pooling's attention."""
    layers: Layers = "last"
    """Blocks of the encoder whose tokens are pooled; `patches`: the patch embedding alone, without positions or blocks."""
    pooling: Pooling = "statistics"
    """How tokens become one vector."""


class AttentiveStatisticsPooling(nn.Module):
    """Weighted mean and deviation of tokens (B, L, C) → (B, 2C); every channel has its own attention over the tokens.

    Okabe et al., arXiv 1803.10963, in the form of ECAPA-TDNN (arXiv 2005.07143): the attention of a token also sees the
    plain mean and deviation of the clip.
    """

    def __init__(self, channels: int, attention_dim: int) -> None:
        super().__init__()
        self.token = nn.Linear(channels, attention_dim)
        self.context = nn.Linear(
            2 * channels, attention_dim, bias=False
        )  # the same for all tokens: computed once a clip
        self.score = nn.Linear(attention_dim, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool, (B, L, C) → (B, 2C)."""
        uniform = torch.full_like(tokens, 1.0 / tokens.shape[1])
        context = self.context(weighted_statistics(tokens, uniform)).unsqueeze(1)  # (B, 1, attention_dim)
        weights = self.score(torch.tanh(self.token(tokens) + context)).softmax(dim=1)  # (B, L, C), sums to 1 over L
        return weighted_statistics(tokens, weights)


class QuantilePooling(nn.Module):
    """Low quantiles over time of the tokens of each row of mel patches, side by side: (B, 64 · 8, C) → (B, Q · 8 · C).

    Background noise comes and goes, and only adds power: the quiet moments show the machine (minimum statistics: Martin, IEEE Trans.
    Speech and Audio Processing 9(5), 2001). Rows stay apart, as noise fills some and not others. Ours; there is nothing to learn in it.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool, (B, T · 8, C), time-major as the encoder gives them, → (B, Q · 8 · C)."""
        B, L, C = tokens.shape
        series = tokens.view(B, L // MEL_PATCHES, MEL_PATCHES * C)[:, :WHOLE_PATCHES].transpose(1, 2)  # (B, 8 · C, T)
        ranks = [round(q * (series.shape[2] - 1)) for q in QUANTILES]
        # Sorting the values themselves would send a gradient through every one of them
        order = series.detach().contiguous().argsort(dim=2)
        return series.gather(2, order[:, :, ranks]).transpose(1, 2).reshape(B, -1)


def weighted_statistics(tokens: Tensor, weights: Tensor) -> Tensor:
    """Mean and deviation over tokens, both (B, L, C) with weights that sum to 1 over L → (B, 2C)."""
    mean = (weights * tokens).sum(dim=1, keepdim=True)
    variance = (weights * (tokens - mean).square()).sum(dim=1)
    return torch.cat([mean.squeeze(1), variance.clamp_min(VARIANCE_FLOOR).sqrt()], dim=1)


class LayerAggregation(nn.Module):
    """Tokens of all blocks, each (B, L, C) → one token (B, L, C) each: side by side, layer norm, and two layers with GELU between.

    AISTAT's submission to DCASE 2025 Task 2, where it raised Ω by 1.4 points with EAT.
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(depth * channels, eps=NORM_EPSILON)
        self.narrow = nn.Linear(depth * channels, channels)
        self.mix = nn.Linear(channels, channels)

    def forward(self, layers: Sequence[Tensor]) -> Tensor:
        """Join, the first block's tokens first."""
        joined: Tensor = self.mix(F.gelu(self.narrow(self.norm(torch.cat(list(layers), dim=2)))))
        return joined


class Embedder(nn.Module):
    """Normalised log-mels (B, 1024, 128) → embeddings (B, D) of unit length."""

    def __init__(self, shape: EmbedderShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.encoder.dim
        self.encoder = Eat(replace(shape.encoder, depth=0) if shape.layers == "patches" else shape.encoder)
        self.encoder.extra_tokens.requires_grad_(shape.layers != "patches")  # several processes want every gradient
        self.aggregation = LayerAggregation(width, shape.encoder.depth) if shape.layers == "all" else None
        self.pooling: nn.Module
        if shape.pooling == "quantiles":
            self.pooling, pooled = QuantilePooling(), len(QUANTILES) * MEL_PATCHES * width
        else:
            self.pooling, pooled = AttentiveStatisticsPooling(width, shape.attention_dim), 2 * width
        # Batch norms on both sides of the projection, as ECAPA-TDNN has them: they centre and scale every component over all sounds,
        # without which the embeddings of all machines lie in one narrow cone.
        self.pooled_norm = BatchNorm(pooled)
        self.projection = nn.Linear(pooled, shape.dimensions)
        self.embedding_norm = BatchNorm(shape.dimensions)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take an encoder's weights; of its blocks nothing where this one has none.

        Raises:
            RuntimeError: they are of another size.
        """
        own = {
            name: tensor for name, tensor in weights.items() if self.encoder.blocks or not name.startswith("blocks.")
        }
        self.encoder.load_state_dict(own)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw fresh weights for every part."""
        self.encoder.initialise(generator)
        for part in (self.aggregation, self.pooling, self.projection):
            if part is not None:
                initialise_layers(part, generator)
        for norm in (self.pooled_norm, self.embedding_norm):
            norm.reset_parameters()

    def forward(self, features: Tensor, kept: Tensor | None = None) -> Tensor:
        """Embed; with `kept`, int64 (B, K), from those patches only: quantiles need them all."""
        pooled = self.pooling(self._tokens(features, kept))
        return F.normalize(self.embedding_norm(self.projection(self.pooled_norm(pooled))), dim=1)

    def _tokens(self, features: Tensor, kept: Tensor | None) -> Tensor:
        """What is pooled: the patches' tokens without the class token, (B, L, C)."""
        if self.shape.layers == "patches":  # a position in time would only blur what is ranked over time
            patches = self.encoder.local_encoder(features)
            if kept is not None:
                patches = patches.gather(1, kept.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
            alone: Tensor = self.encoder.pre_norm(patches)
            return alone
        if self.aggregation is None:
            last: Tensor = self.encoder(features, kept)[:, 1:]
            return last
        joined: Tensor = self.aggregation([layer.out[:, 1:] for layer in self.encoder.layers(features, kept)])
        return joined


class ArcFace(nn.Module):
    """Additive angular margin (Deng et al., CVPR 2019) on embeddings of unit length, with sub-centres (Deng et al., ECCV 2020).

    `forward` gives logits (B, classes): scale · cos(θ + margin) for the true class, scale · cos θ for every other. Where θ + margin
    would pass π the margin goes on linearly in cos θ, so that the logit keeps falling as the angle grows. A class with several
    centres is as near as its nearest centre.
    """

    def __init__(self, dimensions: int, classes: int, scale: float, margin: float, subcentres: int = 1) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin
        self.centres = nn.Parameter(torch.empty(classes, subcentres, dimensions))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw fresh centres, in all directions alike."""
        nn.init.normal_(self.centres, generator=generator)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, classes) for embeddings (B, D) whose true classes are `labels`, int64 (B,)."""
        cosine = self.cosine(embeddings)
        true = F.one_hot(labels, cosine.shape[1]).bool()
        return self.scale * torch.where(true, add_margin(cosine, self.margin), cosine)

    def cosine(self, embeddings: Tensor) -> Tensor:
        """Cosine of the angle to the nearest centre of each class, (B, classes), always in float32."""
        with torch.autocast(
            embeddings.device.type, enabled=False
        ):  # bf16 has 8 bits, and the margin works on small angles
            centres = F.normalize(self.centres.float(), dim=2)
            return torch.einsum("bd,ckd->bck", embeddings.float(), centres).amax(dim=2)


def add_margin(cosine: Tensor, margin: float) -> Tensor:
    """cos(θ + margin) from cos θ while θ + margin ≤ π; beyond, cos θ - (1 - cos margin), which meets it at -1."""
    bounded = cosine.clamp(-COSINE_LIMIT, COSINE_LIMIT)
    sine = (1.0 - bounded.square()).sqrt()
    shifted = bounded * math.cos(margin) - sine * math.sin(margin)
    return torch.where(cosine > -math.cos(margin), shifted, cosine - (1.0 - math.cos(margin)))


def save_embedder(embedder: Embedder, folder: Path) -> None:
    """Write embedder.safetensors and embedder.json (its shape) into a folder that exists."""
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in embedder.state_dict().items()},
        folder / "embedder.safetensors",
    )
    described = {"schema": SCHEMA, **asdict(embedder.shape)}
    (folder / "embedder.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def load_embedder(run: Path) -> Embedder:
    """The embedder that a run fine-tuned, in evaluation mode on the CPU.

    Raises:
        StageError: there is no such run, it has no finished `finetune` stage, or its files are broken.
    """
    folder = run / "stages" / "finetune"
    if not run.is_dir():
        raise StageError(
            f"{run}: there is no such run folder; make one with: asd-train run RECIPE --data DIR --out {run}"
        )
    if not (folder / "done").exists():
        raise StageError(
            f"{run}: holds no trained embedder (stage finetune is not done); train it with: asd-train finetune {run}"
        )
    return read_embedder(folder)


def read_embedder(folder: Path) -> Embedder:
    """The embedder that `save_embedder` wrote into a folder, in evaluation mode on the CPU.

    Raises:
        StageError: a file is missing, broken, of a newer schema, or does not fit the other.
    """
    described, weights = folder / "embedder.json", folder / "embedder.safetensors"
    try:
        shape = json.loads(described.read_text(encoding="utf-8"))
        if shape.pop("schema") != SCHEMA:
            raise StageError(f"{described}: schema is not {SCHEMA}; this program is too old or too new for the run")
        embedder = Embedder(EmbedderShape(**{**shape, "encoder": EatSize(**shape["encoder"])}))
        embedder.load_state_dict(load_file(weights))
    except (OSError, SafetensorError) as e:
        raise StageError(f"{folder}: the embedder can't be read: {e}") from e
    except (ValueError, KeyError, TypeError, RuntimeError) as e:
        raise StageError(
            f"{folder}: embedder.json and embedder.safetensors do not fit: {str(e).splitlines()[0]}"
        ) from e
    return embedder.eval()


def model_digest(run: Path) -> str:
    """16 hexadecimal digits that change with the run's trained embedder.

    Raises:
        StageError: it can't be read.
    """
    digest = hashlib.sha256()
    for name in MODEL_FILES:
        path = run / "stages" / "finetune" / name
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as e:
            raise StageError(f"{path}: can't be read: {e.strerror}") from e
    return digest.hexdigest()[:16]


MODEL_FILES = ("embedder.json", "embedder.safetensors")
