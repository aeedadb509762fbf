"""The stages of a run, in order; each is one function of (recipe, table, run).

Owns the folder `stages/<stage>/` and its done mark. A stage that is done is not done again; one that was killed goes on from its
last checkpoint. What a stage learns, and how, lies elsewhere.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from asd_daemon.errors import DataSetError, SettingsError, StageError
from asd_trainer.checkpoint import Checkpoints
from asd_trainer.classification import ClassificationTask, training_clips
from asd_trainer.clip import Clip
from asd_trainer.dataset import ClipTable
from asd_trainer.eat import SIZES, Eat
from asd_trainer.embedder import save_embedder
from asd_trainer.features import cached_log_mels, clips_digest
from asd_trainer.loop import train
from asd_trainer.pretraining import pretrain_encoder
from asd_trainer.progress import spoken_time
from asd_trainer.recipe import Recipe
from asd_trainer.weights import EncoderWeights, load_weights

log = logging.getLogger(__name__)

Stage = Callable[[Recipe, ClipTable, Path], None]
"""A stage: recipe, clips, and its own folder inside the run."""


def pretrain(recipe: Recipe, table: ClipTable, folder: Path) -> None:
    """Pre-train the encoder on all recordings without a known fault, labelled or not.

    Leaves encoder.safetensors, origin.json (where its first weights came from) and history.jsonl.

    Raises:
        SettingsError: the recipe leaves the stage out, or its decoder does not fit.
        DataSetError: nothing to learn from.
        StageError: the first weights can't be had or do not fit, a checkpoint does not fit, training diverged, or the folder can't
            be written.
        RecordingError, Interrupted: as `finetune`.
    """
    if not recipe.pretrain.steps:
        raise SettingsError(
            "pretrain.steps: 0 leaves the stage out; set it, for example with --set pretrain.steps=10000"
        )
    clips = pretraining_clips(table)
    weights = first_weights(recipe)
    encoder = Eat(SIZES[recipe.encoder.size])
    if weights is None:
        encoder.initialise(torch.Generator().manual_seed(recipe.seed))
    else:
        encoder.load_state_dict(dict(weights.tensors))
    origin = {"weights": recipe.encoder.weights, "sha256": weights.digest if weights else None, "clips": len(clips)}
    (folder / "origin.json").write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
    log.info(
        "pretrain: %d clips, %d steps, weights: %s",
        len(clips),
        recipe.pretrain.steps,
        recipe.encoder.weights or "fresh",
    )
    pretrain_encoder(
        encoder,
        cached_log_mels(clips, folder.parents[1] / "features"),
        recipe.pretrain,
        folder,
        seed=recipe.seed,
        fingerprint=clips_digest(clips),
        decoder=weights.decoder if weights else None,
    )


def pretraining_clips(table: ClipTable) -> tuple[Clip, ...]:
    """Training and supplemental clips that are not known to be anomalous, in an order that does not depend on the file system.

    Raises:
        DataSetError: there are none.
    """
    clips = [clip for clip in table.clips if clip.split != "test" and clip.label != "anomaly"]
    if not clips:
        raise DataSetError(
            "the data has no recording to pre-train on: expected files under <machine>/train/, or a plain folder"
        )
    return tuple(sorted(clips, key=lambda clip: str(clip.path)))


def first_weights(recipe: Recipe, stages: Path | None = None) -> EncoderWeights | None:
    """The weights that an encoder starts from: those of the run's own pre-training, else what the recipe names, else none.

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


def finetune(recipe: Recipe, table: ClipTable, folder: Path) -> None:
    """Train encoder, pooling, projection and ArcFace head on the normal training clips.

    Leaves embedder.safetensors, embedder.json, head.safetensors, classes.json and history.jsonl.

    Raises:
        DataSetError: nothing to learn from.
        RecordingError: a clip can't be read.
        StageError: a checkpoint does not fit, training diverged, or the folder can't be written.
        Interrupted: asked to stop; the next call goes on.
    """
    clips = training_clips(table)
    task = ClassificationTask(recipe, clips, cached_log_mels(clips, folder.parents[1] / "features"))
    weights = first_weights(recipe, folder.parent)
    if weights is not None:
        task.model.embedder.encoder.load_state_dict(dict(weights.tensors))
    log.info(
        "finetune: %d clips, %d classes, %d parameters, %d steps",
        len(clips),
        len(task.classes),
        sum(p.numel() for p in task.model.parameters()),
        task.steps,
    )
    train(task, recipe.finetune.optimiser, folder)
    save_embedder(task.model.embedder, folder)
    save_file(
        {name: tensor.contiguous() for name, tensor in task.model.head.state_dict().items()},
        folder / "head.safetensors",
    )
    (folder / "classes.json").write_text(
        json.dumps(task.classes, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    Checkpoints(folder, task.fingerprint).remove()


STAGES: dict[str, Stage] = {"pretrain": pretrain, "finetune": finetune}
"""Every stage by its name, in the order of a run."""


def run_stage(name: str, recipe: Recipe, table: ClipTable, run: Path) -> None:
    """Do one stage of a run unless its done mark is there; raises what the stage raises."""
    folder = run / "stages" / name
    mark = folder / "done"
    if mark.exists():
        log.info("%s: done already", name)
        return
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    STAGES[name](recipe, table, folder)
    mark.touch()
    log.info("%s: done in %s", name, spoken_time(time.monotonic() - started))


def run_stages(recipe: Recipe, table: ClipTable, run: Path) -> None:
    """Do every stage of a run that is not done yet, in order."""
    for name in STAGES:
        if name == "pretrain" and not recipe.pretrain.steps:
            continue
        run_stage(name, recipe, table, run)
