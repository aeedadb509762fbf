"""The stages of a run, in order; each is one function of (recipe, table, folder of the stage).

Owns which stages a recipe asks for, from which clips, and those that train the encoder. A stage that is done is not done again;
one that was killed goes on from its last checkpoint. What a stage learns, and how, lies elsewhere.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from asd_daemon.errors import SettingsError
from asd_trainer.data.dataset import ClipTable, refuse_unfit_names
from asd_trainer.data.features import clips_digest
from asd_trainer.finetune.classification import ClassificationTask, embedder_shape
from asd_trainer.finetune.distillation import DistillationTask, distilled_embedder, load_teacher
from asd_trainer.finetune.first_weights import first_weights, freeze, look_for_weights, start
from asd_trainer.finetune.training_set import run_log_mels, training_set
from asd_trainer.networks.eat import SIZES, Eat
from asd_trainer.networks.embedder import Embedder, save_embedder
from asd_trainer.networks.lora import merge
from asd_trainer.pretrain.stage import pretrain_encoder
from asd_trainer.recipe.recipe import Recipe
from asd_trainer.run.devices import device_here
from asd_trainer.run.fitting import fitted
from asd_trainer.run.stage_clips import pretraining_clips, stage_table
from asd_trainer.separate.stage import separate, synthesize
from asd_trainer.training.loop import train
from asd_trainer.training.prefetch import PrefetchedTask
from asd_trainer.training.processes import lost_processes_told, processes, refuse_separate_folders
from asd_trainer.training.progress import time_in_words
from asd_trainer.training.stage_mark import read_mark, timed, write_mark
from asd_trainer.training.whole_file import write_whole

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
    if processes().is_main_process:
        write_whole(folder / "origin.json", json.dumps(origin, indent=1) + "\n")
    log.info(
        "pretrain: %d clips, %d steps, weights: %s",
        len(clips),
        recipe.pretrain.steps,
        recipe.encoder.weights or "fresh",
    )
    pretrain_encoder(
        encoder,
        run_log_mels(clips, folder, recipe.features),
        recipe.pretrain,
        folder,
        seed=recipe.seed,
        fingerprint=clips_digest(clips),
        decoder=weights.decoder if weights else None,
        teacher=weights.teacher if weights else None,
    )


def distil(recipe: Recipe, table: ClipTable, folder: Path) -> None:
    """Let encoder, pooling and projection learn a teacher's embeddings of the clips that fine-tuning learns from.

    Leaves embedder.safetensors, embedder.json, teacher.json and history.jsonl.

    Raises:
        SettingsError: the recipe names no teacher.
        StageError: the teacher can't be had, a checkpoint does not fit, training diverged, or the folder can't be written.
        DataSetError, RecordingError, Interrupted: as `finetune`.
    """
    if not recipe.distil.teacher:
        raise SettingsError(
            "distil.teacher: names no teacher, which leaves the stage out; set it in the recipe of a run"
        )
    teacher = load_teacher(recipe.distil.teacher)
    learned = training_set(recipe, table, folder)
    student = Embedder(embedder_shape(recipe))
    student.initialise(torch.Generator().manual_seed(recipe.seed))
    start(student, recipe, folder.parent)
    together = processes()
    with together.main_process_first():
        teacher.standardise(learned.log_mels, folder)
    task = DistillationTask(recipe, student, teacher, learned.clips, learned.log_mels, learned.background)
    log.info(
        "distil: %d clips, teacher %s with %d components, %d steps",
        len(learned.clips),
        recipe.distil.teacher,
        teacher.dimensions,
        task.steps,
    )
    train(PrefetchedTask(task), recipe.distil.optimiser, folder)
    if together.is_main_process:
        save_embedder(student, folder)
        origin = {"teacher": recipe.distil.teacher, "sha256": teacher.digest, "dimensions": teacher.dimensions}
        write_whole(folder / "teacher.json", json.dumps(origin, indent=1) + "\n")
    together.wait_for_everyone()  # no process may mark the stage as done before its weights are on disk


def finetune(recipe: Recipe, table: ClipTable, folder: Path) -> None:
    """Train encoder, pooling, projection and ArcFace head on the normal training clips, separated and synthetic ones among them.

    Leaves embedder.safetensors, embedder.json, head.safetensors, classes.json and history.jsonl.

    Raises:
        DataSetError: nothing to learn from.
        RecordingError: a clip can't be read.
        StageError: a checkpoint does not fit, training diverged, or the folder can't be written.
        Interrupted: asked to stop; the next call goes on.
    """
    learned = training_set(recipe, table, folder)
    task = ClassificationTask(recipe, learned.clips, learned.log_mels, learned.background)
    if recipe.distil.teacher:
        task.model.embedder.load_state_dict(distilled_embedder(folder.parent).state_dict())
    else:
        start(task.model.embedder, recipe, folder.parent)
    task.model.adapt_encoder(recipe)
    log.info(
        "finetune: %d clips, %d classes, %d parameters, %d steps",
        len(learned.clips),
        len(task.classes),
        sum(p.numel() for p in task.model.parameters() if p.requires_grad),
        task.steps,
    )
    train(PrefetchedTask(task), recipe.finetune.optimiser, folder)
    merge(task.model.embedder.encoder)
    together = processes()
    if together.is_main_process:
        save_embedder(task.model.embedder, folder)
        save_file(
            {name: tensor.contiguous() for name, tensor in task.model.head.state_dict().items()},
            folder / "head.safetensors",
        )
        write_whole(folder / "classes.json", json.dumps(task.classes, indent=1, ensure_ascii=False) + "\n")
    together.wait_for_everyone()  # no process may mark the stage as done before its weights are on disk


STAGES: dict[str, Stage] = {
    "separate": separate,
    "synthesize": synthesize,
    "pretrain": pretrain,
    "distil": distil,
    "frozen": freeze,
    "finetune": finetune,
}
"""Every stage by its name, in the order of a run."""
LEARNING = frozenset(STAGES) - {"synthesize", "frozen"}
"""Those that train a network."""


def stages_of(recipe: Recipe) -> tuple[str, ...]:
    """The stages that a recipe asks for, in order."""
    left_out = {
        "separate": not recipe.separate.enabled,
        "synthesize": not recipe.synthesize.clips,
        "pretrain": not recipe.pretrain.steps,
        "distil": not recipe.distil.teacher,
        "frozen": not recipe.frozen.enabled,
        "finetune": recipe.frozen.enabled,
    }
    return tuple(name for name in STAGES if not left_out.get(name, False))


@lost_processes_told()
def run_stage(name: str, recipe: Recipe, table: ClipTable, run: Path) -> None:
    """Do one stage of a run unless its done mark is there, in a way that fits the device's memory; raises what the stage raises.

    Raises:
        StageError: a step does not fit the memory of the device, or the run folder is not the same one for all processes.
    """
    together = processes()
    refuse_separate_folders(run)
    folder = run / "stages" / name
    if read_mark(folder) is not None:
        log.info("%s: done already", name)
        _tidy(folder)
        return
    chosen = stage_table(name, recipe, table)
    if name in LEARNING and name in stages_of(recipe):  # else the stage says what is missing
        fitting = fitted(name, recipe, chosen, device_here())
        recipe = fitting.recipe
        for line in fitting.lowered:
            log.info("%s", line)
    folder.mkdir(parents=True, exist_ok=True)
    with timed(folder, writes=together.is_main_process) as watch:
        STAGES[name](recipe, chosen, folder)
    if together.is_main_process:
        write_mark(folder, watch.seconds, str(together.device), together.num_processes)
    together.wait_for_everyone()
    _tidy(folder)
    log.info("%s: done in %s", name, time_in_words(watch.seconds))


def _tidy(folder: Path) -> None:
    """Remove the checkpoints of a stage that is done; until its mark was there, a kill would have cost the stage."""
    if processes().is_main_process:
        for checkpoints in sorted(folder.rglob("checkpoints*")):
            shutil.rmtree(checkpoints)


@lost_processes_told()
def run_stages(recipe: Recipe, table: ClipTable, run: Path) -> None:
    """Do every stage of a run that is not done yet, in order.

    Weights that the encoder is to start from, and a teacher, are looked for before anything else is done, not hours later; of several
    processes, by the first, which leaves them in the cache of huggingface-hub for all.

    Raises:
        DataSetError: a machine has a name that no bundle takes; and what the stages raise.
    """
    refuse_unfit_names(stage_table("finetune", recipe, table))
    if not processes().is_main_process:
        logging.getLogger("asd_trainer").setLevel(logging.WARNING)  # one of them tells what all do
    wanted = stages_of(recipe)
    learns_first = next(name for name in wanted if name in {"pretrain", "distil", "frozen", "finetune"})
    if read_mark(run / "stages" / learns_first) is None:
        with processes().main_process_first():
            look_for_weights(recipe)
    if "distil" in wanted and read_mark(run / "stages" / "distil") is None:
        with processes().main_process_first():
            load_teacher(recipe.distil.teacher)
    for name in wanted:  # what would not fit hours later is refused now
        if name in LEARNING and read_mark(run / "stages" / name) is None:
            fitted(name, recipe, stage_table(name, recipe, table), device_here())
    for name in wanted:
        run_stage(name, recipe, table, run)
