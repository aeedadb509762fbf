"""The embedder: an encoder, pooling over its tokens, projection to a unit vector.

Owns what a clip's log-mel becomes and how an embedder lies on disk (safetensors and json). It reads no sound and trains nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from asd_daemon.errors import StageError
from asd_trainer.networks.eat import Eat, EatSize, initialise_layers
from asd_trainer.networks.encoders.interface import EncoderShape, Hears, TokenEncoder
from asd_trainer.networks.encoders.registry import build_encoder
from asd_trainer.networks.frozen import FrozenEmbedder, FrozenShape
from asd_trainer.networks.normalisation import BatchNorm
from asd_trainer.networks.pooling import QUANTILES, AttentiveStatisticsPooling, LayerAggregation, QuantilePooling

SCHEMA = 1
Layers = Literal["last", "all", "patches"]
Pooling = Literal["statistics", "quantiles"]


@dataclass(frozen=True)
class EmbedderShape:
    """All that is needed to build an embedder of the same shape."""

    encoder: EatSize | EncoderShape
    """EAT's size, or the shape of another encoder."""
    dimensions: int
    """Components of the embedding."""
    attention_dim: int
    """Hidden channels of the pooling's attention."""
    layers: Layers = "last"
    """Blocks of the encoder whose tokens are pooled; `patches`: the patch embedding alone, without positions or blocks."""
    pooling: Pooling = "statistics"
    """How tokens become one vector."""


class Embedder(nn.Module):
    """Normalised log-mels (B, 1024, 128), or windows where the encoder has a front end of its own, → embeddings (B, D) of unit length."""

    def __init__(self, shape: EmbedderShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder: Eat | TokenEncoder
        if isinstance(shape.encoder, EatSize):
            self.encoder = Eat(replace(shape.encoder, depth=0) if shape.layers == "patches" else shape.encoder)
            self.encoder.extra_tokens.requires_grad_(shape.layers != "patches")  # several processes want every gradient
            width, depth = shape.encoder.dim, shape.encoder.depth
            ranked = QuantilePooling()
        else:
            self.encoder = build_encoder(shape.encoder)
            width, depth = self.encoder.channels, self.encoder.depth
            ranked = QuantilePooling(self.encoder.bands, None)
        self.aggregation = LayerAggregation(width, depth) if shape.layers == "all" else None
        self.pooling: nn.Module
        if shape.pooling == "quantiles":
            self.pooling, pooled = ranked, len(QUANTILES) * ranked.bands * width
        else:
            self.pooling, pooled = AttentiveStatisticsPooling(width, shape.attention_dim), 2 * width
        # Batch norms on both sides of the projection, as ECAPA-TDNN has them: they centre and scale every component over all sounds,
        # without which the embeddings of all machines lie in one narrow cone.
        self.pooled_norm = BatchNorm(pooled)
        self.projection = nn.Linear(pooled, shape.dimensions)
        self.embedding_norm = BatchNorm(shape.dimensions)

    @property
    def hears(self) -> Hears:
        """What `forward` takes."""
        return self.encoder.hears if isinstance(self.encoder, TokenEncoder) else "features"

    @property
    def dimensions(self) -> int:
        """D."""
        return self.shape.dimensions

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take an encoder's weights; of its blocks nothing where this one has none.

        Raises:
            RuntimeError: they are of another size.
        """
        blocks = isinstance(self.encoder, TokenEncoder) or len(self.encoder.blocks) > 0
        own = {name: tensor for name, tensor in weights.items() if blocks or not name.startswith("blocks.")}
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
        if isinstance(self.encoder, TokenEncoder):
            every = self.encoder.layers(features)
            whole = [layer.flatten(1, 2) for layer in (every if self.aggregation is not None else every[-1:])]
            return whole[0] if self.aggregation is None else self._aggregated(whole)
        if self.shape.layers == "patches":  # a position in time would only blur what is ranked over time
            patches = self.encoder.local_encoder(features)
            if kept is not None:
                patches = patches.gather(1, kept.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
            alone: Tensor = self.encoder.pre_norm(patches)
            return alone
        if self.aggregation is None:
            last: Tensor = self.encoder(features, kept)[:, 1:]
            return last
        return self._aggregated([layer.out[:, 1:] for layer in self.encoder.layers(features, kept)])

    def _aggregated(self, layers: Sequence[Tensor]) -> Tensor:
        joined: Tensor = layers[0] if self.aggregation is None else self.aggregation(layers)
        return joined


AnyEmbedder = Embedder | FrozenEmbedder
"""Sound, as its `hears` says, → embeddings of unit length."""


def save_embedder(embedder: AnyEmbedder, folder: Path) -> None:
    """Write embedder.safetensors and embedder.json (its shape) into a folder that exists."""
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in embedder.state_dict().items()},
        folder / "embedder.safetensors",
    )
    described = {"schema": SCHEMA, **asdict(embedder.shape)}
    (folder / "embedder.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def trained_folder(run: Path) -> Path:
    """The folder of the stage that leaves a run's embedder, for use.

    Raises:
        StageError: there is no such run, or it has no finished stage `finetune` or `frozen`.
    """
    folder = embedder_folder(run)
    if not run.is_dir():
        raise StageError(
            f"{run}: there is no such run folder; make one with: asd-train run RECIPE --data DIR --out {run}"
        )
    if not (folder / "done").exists():
        raise StageError(
            f"{run}: holds no trained embedder (stage finetune is not done); train it with: asd-train finetune {run}"
        )
    return folder


def load_embedder(run: Path) -> AnyEmbedder:
    """The embedder that a run fine-tuned, or its frozen one, in evaluation mode on the CPU; raises what its parts do."""
    return read_embedder(trained_folder(run))


def embedder_folder(run: Path) -> Path:
    """The folder of the stage that leaves a run's embedder."""
    frozen = run / "stages" / "frozen"
    return frozen if (frozen / "done").exists() else run / "stages" / "finetune"


def read_embedder(folder: Path) -> AnyEmbedder:
    """The embedder that `save_embedder` wrote into a folder, in evaluation mode on the CPU.

    Raises:
        StageError: a file is missing, broken, of a newer schema, or does not fit the other.
    """
    embedder = empty_embedder(folder)
    try:
        embedder.load_state_dict(load_file(folder / "embedder.safetensors"))
    except (OSError, SafetensorError) as e:
        raise StageError(f"{folder}: the embedder can't be read: {e}") from e
    except RuntimeError as e:
        raise StageError(
            f"{folder}: embedder.json and embedder.safetensors do not fit: {str(e).splitlines()[0]}"
        ) from e
    return embedder.eval()


def empty_embedder(folder: Path) -> AnyEmbedder:
    """The same with weights that are of no use.

    Raises:
        StageError: embedder.json is missing, broken, or of a newer schema.
    """
    path = folder / "embedder.json"
    try:
        shape = json.loads(path.read_text(encoding="utf-8"))
        if shape.pop("schema") != SCHEMA:
            raise StageError(f"{path}: schema is not {SCHEMA}; this program is too old or too new for the run")
        return _of_shape(shape)
    except OSError as e:
        raise StageError(f"{folder}: the embedder can't be read: {e}") from e
    except (ValueError, KeyError, TypeError, RuntimeError) as e:
        raise StageError(f"{path}: the file and this program do not fit: {e}") from e


def _of_shape(described: Mapping[str, Any]) -> AnyEmbedder:
    encoder = described["encoder"]
    if "family" not in encoder:
        return Embedder(EmbedderShape(**{**described, "encoder": EatSize(**encoder)}))
    shape = {**described, "encoder": EncoderShape(**encoder)}
    if "dimensions" in described:
        return Embedder(EmbedderShape(**shape))
    return FrozenEmbedder(FrozenShape(**{**shape, "layers": tuple(described["layers"])}))


def model_digest(run: Path) -> str:
    """16 hexadecimal digits that change with the run's embedder.

    Raises:
        StageError: it can't be read.
    """
    digest = hashlib.sha256()
    for name in MODEL_FILES:
        path = embedder_folder(run) / name
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as e:
            raise StageError(f"{path}: can't be read: {e.strerror}") from e
    return digest.hexdigest()[:16]


MODEL_FILES = ("embedder.json", "embedder.safetensors")
