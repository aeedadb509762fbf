"""What a run is going to do: its stages, how long each will take on this machine, and how much disk it needs.

Owns the reckoning and its wording; what a step costs is measured by `step_cost`. It writes nothing.
"""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from asd_daemon.judge.features.log_mel import MEL_BINS, log_mel
from asd_daemon.waveform import SAMPLE_RATE_HZ
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable, class_labels, load_clip, training_clips
from asd_trainer.data.features import CLIP_FRAMES
from asd_trainer.finetune.training_set import background_noises
from asd_trainer.recipe.encoder import ONNX
from asd_trainer.recipe.recipe import Recipe
from asd_trainer.run.frozen_cost import frozen_cost
from asd_trainer.run.stages import pretraining_clips, stage_table, stages_of
from asd_trainer.run.step_cost import (
    StepCost,
    distil_cost,
    finetune_cost,
    pretrain_cost,
    separate_cost,
    separating_seconds,
    timed,
)
from asd_trainer.separate import guidance
from asd_trainer.separate.far_noise import refuse_without_far
from asd_trainer.separate.stage import guided_machines
from asd_trainer.training.checkpoint import KEPT, steps_done
from asd_trainer.training.progress import time_in_words
from asd_trainer.training.stage_mark import read_mark

log = logging.getLogger(__name__)

LOG_MEL_BYTES = CLIP_FRAMES * MEL_BINS * 4  # 511 kB
BYTES_OF_A_WEIGHT = 12  # float32, with both moments of Adam


@dataclass(frozen=True)
class StageForecast:
    """One stage of a run."""

    stage: str
    done: bool
    work: str
    """What there is to do, in words."""
    seconds: float | None
    """Expected time from now on; of a stage that is done what it took, None where its mark does not say."""
    disk_bytes: int
    """What it will need at most beside what is there."""
    steps: int = 0
    steps_done: int = 0

    def as_json(self) -> dict[str, Any]:
        """The row for a program."""
        return asdict(self)


def forecast(recipe: Recipe, table: ClipTable, run: Path) -> tuple[StageForecast, ...]:
    """Every stage that a recipe asks for, in order; takes seconds, as pieces of the networks are run.

    Raises:
        DataSetError: the recordings hold nothing that a stage could learn from.
        StageError: the mark of a stage is broken.
        RecordingError: the first recording can't be read.
    """
    rows = []
    for name in stages_of(recipe):
        folder = run / "stages" / name
        mark = read_mark(folder)
        if mark is not None:
            rows.append(StageForecast(name, True, "done already", mark.seconds, 0))
        else:
            log.info("plan: measuring what %s takes", name)
            rows.append(_FORECASTS[name](recipe, stage_table(name, recipe, table), folder))
    return tuple(rows)


def _separate(recipe: Recipe, table: ClipTable, folder: Path) -> StageForecast:
    guided = guided_machines(recipe.separate, table)
    if not guided:
        guidance.materials(())  # says what is missing
    for one in guided.values():
        refuse_without_far(one.far, recipe.separate.far_channel)
    clips = _separated_clips(recipe, table)
    networks = 1 if recipe.separate.networks == "one" else len(guided)
    cost = separate_cost(recipe)
    steps = networks * recipe.separate.steps
    done = sum(steps_done(folder / name) for name in (["."] if networks == 1 else guided))
    per_clip_s = separating_seconds(recipe) + _writing_seconds(clips)
    return StageForecast(
        "separate",
        False,
        f"{_counted(len(guided), 'machine')}, {_steps(steps, done)}, {_counted(len(clips), 'clip')} to separate",
        cost.seconds * (steps - done) + per_clip_s * len(clips),
        networks * _checkpoint_bytes(cost) + len(clips) * _sound_bytes(clips),
        steps,
        done,
    )


def _synthesize(recipe: Recipe, table: ClipTable, folder: Path) -> StageForecast:
    clips = training_clips(table)
    count = recipe.synthesize.clips
    there = sum(1 for _ in (folder / "sound").glob("*/train/*.flac"))
    reading_s = timed(lambda: load_clip(clips[0]))
    return StageForecast(
        "synthesize",
        False,
        f"{_counted(count, 'clip')}" + (f", {there} there" if there else ""),
        (count - there) * (3 * reading_s + _writing_seconds(clips)),
        (count - there) * _sound_bytes(clips),
    )


def _pretrain(recipe: Recipe, table: ClipTable, folder: Path) -> StageForecast:
    clips = pretraining_clips(table)
    cost = pretrain_cost(recipe, min(recipe.pretrain.batch_clips, len(clips)))
    steps = recipe.pretrain.steps + recipe.pretrain.decoder.warmup_steps
    done = steps_done(folder) + (steps_done(folder / "decoder") if recipe.pretrain.decoder.warmup_steps else 0)
    return _learning("pretrain", clips, len(clips), cost, steps, done)


def _distil(recipe: Recipe, table: ClipTable, folder: Path) -> StageForecast:
    originals, count = training_clips(table), _learned_count(recipe, table)
    batch_clips = min(recipe.distil.batch_clips, count)
    steps = recipe.distil.epochs * (count // batch_clips)
    cost = distil_cost(recipe, batch_clips)
    return _learning("distil", originals, count, cost, steps, steps_done(folder), _noises(recipe, table))


def _finetune(recipe: Recipe, table: ClipTable, folder: Path) -> StageForecast:
    originals, count = training_clips(table), _learned_count(recipe, table)
    batch_clips = min(recipe.finetune.batch_clips, count)
    cost = finetune_cost(recipe, len(class_labels(originals)[1]), batch_clips)
    steps = recipe.finetune.epochs * (count // batch_clips)
    there = bool(recipe.distil.teacher)  # distillation leaves the features that it made
    return _learning(
        "finetune", originals, count, cost, steps, steps_done(folder), _noises(recipe, table), featured=there
    )


def _frozen(recipe: Recipe, table: ClipTable, folder: Path) -> StageForecast:  # noqa: ARG001 - a stage's signature
    cost = frozen_cost(recipe)
    clips = training_clips(table) if recipe.frozen.standardise else ()
    untrained = "" if recipe.encoder.weights or recipe.encoder.name.startswith(ONNX) else " UNTRAINED"
    work = f"{recipe.encoder.name}{untrained}, {cost.words()}"
    return StageForecast("frozen", False, work, cost.seconds * (1 + len(clips)), 4 * cost.parameters)


def _learned_count(recipe: Recipe, table: ClipTable) -> int:
    """Clips that distillation and fine-tuning learn from."""
    count = len(training_clips(table)) + recipe.synthesize.clips
    if recipe.separate.enabled and recipe.finetune.separated:
        count += len(_separated_clips(recipe, table))
    return count


def _noises(recipe: Recipe, table: ClipTable) -> int:
    """Noise-only clips that need features of their own."""
    return sum(clip.supplement == "noise" for clip in background_noises(recipe, table))


_FORECASTS = {
    "separate": _separate,
    "synthesize": _synthesize,
    "pretrain": _pretrain,
    "distil": _distil,
    "frozen": _frozen,
    "finetune": _finetune,
}


def _learning(
    stage: str,
    clips: Sequence[Clip],
    count: int,
    cost: StepCost,
    steps: int,
    done: int,
    noises: int = 0,
    *,
    featured: bool = False,
) -> StageForecast:
    features = 0 if done or featured else count + noises
    features_s = timed(lambda: log_mel(load_clip(clips[0]))) * features if features else 0.0
    return StageForecast(
        stage,
        False,
        f"{_counted(count, 'clip')}, {cost.parameters / 1e6:.1f} M parameters, {_steps(steps, done)}",
        cost.seconds * (steps - done) + features_s,
        _checkpoint_bytes(cost) + features * LOG_MEL_BYTES,
        steps,
        done,
    )


def _separated_clips(recipe: Recipe, table: ClipTable) -> tuple[Clip, ...]:
    guided = guided_machines(recipe.separate, table)
    return tuple(clip for clip in training_clips(table) if clip.machine in guided)


def _checkpoint_bytes(cost: StepCost) -> int:
    return (KEPT + 1) * cost.parameters * BYTES_OF_A_WEIGHT


def _sound_bytes(clips: Sequence[Clip]) -> int:
    """Bytes of a clip written as separated and synthetic ones are; found from the first."""
    return len(_encoded(load_clip(clips[0]))) if clips else 0


def _writing_seconds(clips: Sequence[Clip]) -> float:
    if not clips:
        return 0.0
    sound = load_clip(clips[0])
    return timed(lambda: _encoded(sound))


def _encoded(sound: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(sound, -1.0, 1.0), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_24")
    return buffer.getvalue()


def free_bytes(run: Path) -> int:
    """Room on the disk that a run folder lies on, or will."""
    there = next(folder for folder in (run.absolute(), *run.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


def printed(rows: Sequence[StageForecast], free: int) -> list[str]:
    """The plan as lines of a table, with what is needed in all and a warning where the disk is too small."""
    waiting = [row for row in rows if not row.done]
    width = max([len(row.work) for row in rows], default=0)
    lines = [f"{'stage':<12}{'what':<{width + 2}}{'time':>14}{'disk':>12}"]
    for row in rows:
        took = "" if row.seconds is None else time_in_words(row.seconds)
        if row.done and took:
            took = f"took {took}"
        lines.append(
            f"{row.stage:<12}{row.work:<{width + 2}}{took:>14}{'' if row.done else _bytes(row.disk_bytes):>12}"
        )
    needed = sum(row.disk_bytes for row in waiting)
    total_s = sum(row.seconds or 0.0 for row in waiting)
    lines.append(
        f"{'to do':<12}{'':<{width + 2}}{time_in_words(total_s):>14}{_bytes(needed):>12}   ({_bytes(free)} free)"
    )
    if needed > free:
        lines.append(
            f"warning: the disk has {_bytes(free)} free, and the run may need {_bytes(needed)}; give --out on another"
        )
    return lines


def _steps(steps: int, done: int) -> str:
    return f"{steps} steps" + (f", {done} done" if done else "")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _bytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
