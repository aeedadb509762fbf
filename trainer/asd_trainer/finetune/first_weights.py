"""The weights that an encoder starts from, and a frozen encoder with them: the stage `frozen`.

Owns where they come from by the recipe. Files of weights are read by `networks.weights` (EAT) and `networks.encoders.released`.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import torch

from asd_daemon.errors import StageError
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable, training_clips
from asd_trainer.data.features import clip_inputs
from asd_trainer.networks.eat import SIZES
from asd_trainer.networks.embedder import Embedder, save_embedder
from asd_trainer.networks.encoders.interface import TokenEncoder
from asd_trainer.networks.encoders.onnx_graph import read_onnx_encoder
from asd_trainer.networks.encoders.registry import named_shape
from asd_trainer.networks.encoders.released import ReleasedEncoder, load_encoder
from asd_trainer.networks.frozen import FrozenEmbedder, FrozenShape
from asd_trainer.networks.weights import EncoderWeights, file_digest, load_weights
from asd_trainer.recipe.encoder import EAT, ONNX, EncoderRecipe
from asd_trainer.recipe.recipe import Recipe
from asd_trainer.training.processes import processes
from asd_trainer.training.progress import counted_steps
from asd_trainer.training.whole_file import write_whole

log = logging.getLogger(__name__)

SMALLEST_SPREAD = 1e-4
UNTRAINED = "encoder.weights is empty: the encoder is UNTRAINED, its weights are drawn at random from seed %d"


def first_weights(recipe: Recipe, stages: Path | None = None) -> EncoderWeights | None:
    """The weights that EAT starts from: those of the run's own pre-training, else what the recipe names, else none.

    Raises:
        StageError: they can't be had, or are of another size than the recipe's.
    """
    own = stages / "pretrain" if stages is not None and recipe.pretrain.steps else None
    source = str(own) if own is not None else recipe.encoder.weights
    if not source:
        return None
    weights = load_weights(source)
    if weights.size != SIZES[recipe.encoder.size]:
        fitting = next(name for name, size in SIZES.items() if size == weights.size)
        raise StageError(f"{source}: weights of size {fitting}, but encoder.size is {recipe.encoder.size}")
    return weights


def look_for_weights(recipe: Recipe) -> None:
    """Find and read the weights that the recipe names, to fail early where they can't be had.

    Raises:
        StageError: as `first_weights` and `load_encoder`.
    """
    if recipe.encoder.name == EAT:
        first_weights(recipe)
    else:
        named_encoder(recipe.encoder)


def named_encoder(chosen: EncoderRecipe) -> ReleasedEncoder | None:
    """The encoder with the weights that a recipe names; None where it names none.

    Raises:
        StageError: there is no such encoder, or its weights can't be had.
    """
    if chosen.name.startswith(ONNX):
        source = chosen.name.removeprefix(ONNX)
        path = Path(source.partition("#")[0])
        return ReleasedEncoder(read_onnx_encoder(source), path, file_digest(path))
    shape = named_shape(chosen.name, chosen.size)
    return load_encoder(chosen.weights, shape) if chosen.weights else None


def start(embedder: Embedder, recipe: Recipe, stages: Path) -> None:
    """Give an embedder's encoder the weights that it starts from, if there are any.

    Raises:
        StageError: as `look_for_weights`, or of another size than the embedder's.
    """
    if not isinstance(embedder.encoder, TokenEncoder):
        weights = first_weights(recipe, stages)
        if weights is not None:
            embedder.start_from(weights.tensors)
        return
    found = named_encoder(recipe.encoder)
    if found is None:
        return
    if found.encoder.shape != embedder.encoder.shape:
        raise StageError(
            f"{found.file}: an encoder of {found.encoder.shape.size}, expected {embedder.encoder.shape.size}; "
            "of other sizes only frozen ones can be used"
        )
    embedder.start_from(found.encoder.state_dict())


def freeze(recipe: Recipe, table: ClipTable, folder: Path) -> None:
    """Make the encoder with its weights, as it is, the run's embedder; nothing learns.

    Leaves embedder.safetensors, embedder.json and origin.json (where the weights came from).

    Raises:
        StageError: the weights can't be had or do not fit, or the folder can't be written.
        DataSetError: no normal training clip.
        RecordingError: a clip can't be read.
    """
    clips = training_clips(table)
    embedder, digest = frozen_embedder(recipe)
    together = processes()
    if not together.is_main_process:
        return
    if recipe.frozen.standardise:
        _standardise(embedder, clips)
    save_embedder(embedder, folder)
    origin = {"encoder": recipe.encoder.name, "weights": recipe.encoder.weights or None, "sha256": digest}
    write_whole(folder / "origin.json", json.dumps(origin, indent=1) + "\n")
    log.info("frozen: %s, embeddings of %d components", recipe.encoder.name, embedder.dimensions)


def frozen_embedder(recipe: Recipe) -> tuple[FrozenEmbedder, str | None]:
    """The embedder of a recipe's frozen encoder, and sha256 of the weights' file; warns where the encoder is untrained.

    Raises:
        StageError: the weights can't be had or do not fit, or the recipe asks for layers that there are not.
    """
    found = named_encoder(recipe.encoder)
    shape = found.encoder.shape if found else named_shape(recipe.encoder.name, recipe.encoder.size)
    chosen = recipe.frozen
    embedder = FrozenEmbedder(
        FrozenShape(shape, chosen.layers, chosen.pooling, chosen.power, chosen.gamma, chosen.bands)
    )
    if found is None:
        log.warning(UNTRAINED, recipe.seed)
        embedder.encoder.initialise(torch.Generator().manual_seed(recipe.seed))
    else:
        embedder.encoder.load_state_dict(found.encoder.state_dict())
    return embedder.eval(), None if found is None else found.digest


def _standardise(embedder: FrozenEmbedder, clips: tuple[Clip, ...]) -> None:
    """Centre and scale every component by what it does over the clips."""
    device = processes().device
    embedder.to(device)
    pooled = np.empty((len(clips), embedder.dimensions), np.float32)
    with torch.inference_mode(), counted_steps("frozen: hearing the training clips", len(clips)) as advance:
        for row, sound in enumerate(clip_inputs(clips, embedder.hears)):
            tokens = embedder.encoder(torch.from_numpy(sound)[None].to(device), embedder.shape.layers)
            pooled[row] = embedder.pooled(tokens)[0].cpu().numpy()
            advance(row + 1, {})
    embedder.cpu()
    embedder.centre.copy_(torch.from_numpy(pooled.mean(axis=0)))
    embedder.spread.copy_(torch.from_numpy(pooled.std(axis=0)).clamp_min(SMALLEST_SPREAD))
