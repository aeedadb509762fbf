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

from safetensors.torch import save_file

from asd_trainer.checkpoint import Checkpoints
from asd_trainer.classification import ClassificationTask, training_clips
from asd_trainer.dataset import ClipTable
from asd_trainer.embedder import save_embedder
from asd_trainer.features import cached_log_mels
from asd_trainer.loop import train
from asd_trainer.progress import spoken_time
from asd_trainer.recipe import Recipe

log = logging.getLogger(__name__)

Stage = Callable[[Recipe, ClipTable, Path], None]
"""A stage: recipe, clips, and its own folder inside the run."""


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


STAGES: dict[str, Stage] = {"finetune": finetune}
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
        run_stage(name, recipe, table, run)
