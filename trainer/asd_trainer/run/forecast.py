"""What a run is going to do: its stages, how long each will take on a device, and how much memory and disk it needs.

Owns the reckoning and its wording; what a step needs is counted by `step_cost`, nothing is run. It writes nothing.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from asd_daemon.errors import StageError
from asd_daemon.judge.features.log_mel import MEL_BINS
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_SAMPLES
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable, load_clip, training_clips
from asd_trainer.data.features import CLIP_FRAMES
from asd_trainer.recipe.encoder import ONNX
from asd_trainer.recipe.recipe import Recipe
from asd_trainer.run.devices import GB, Device
from asd_trainer.run.fitting import Fitting, fitted, needed_bytes
from asd_trainer.run.frozen_cost import frozen_cost
from asd_trainer.run.stage_clips import separated_clips, stage_table, workload
from asd_trainer.run.stages import stages_of
from asd_trainer.run.step_cost import StepCost, separating_cost
from asd_trainer.run.step_trace import Operation
from asd_trainer.training.checkpoint import KEPT, steps_done
from asd_trainer.training.progress import time_in_words
from asd_trainer.training.stage_mark import read_mark

LOG_MEL_BYTES = CLIP_FRAMES * MEL_BINS * 4  # 511 kB
BYTES_OF_A_WEIGHT = 12  # float32, with both moments of Adam
LONGEST_SOUND_BYTES = WINDOW_SAMPLES * 3  # of 24 bits, before FLAC makes less of it

# Work of one thread of the CPU for a clip of 10 s, by the notebook; the table of devices has the rest.
FEATURES_S = 0.005
SYNTHESIS_S = 0.09
WRITING_S = 0.05
AUGMENTING_S = 0.002


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
    memory_bytes: int = 0
    """What a step takes of the device's memory."""
    macs_of_a_step: float = 0.0
    """Multiply-accumulates of matrix products and convolutions, forwards and backwards."""
    remark: str = ""
    """What was lowered to fit the device, or why it does not fit."""

    def as_json(self) -> dict[str, Any]:
        """The row for a program."""
        return asdict(self)


def forecast(recipe: Recipe, table: ClipTable, run: Path, device: Device) -> tuple[StageForecast, ...]:
    """Every stage that a recipe asks for, in order, on a device; takes seconds, and the recordings need not be there.

    Raises:
        DataSetError: the recordings hold nothing that a stage could learn from.
        StageError: the mark of a stage is broken, or a teacher can't be had.
        RecordingError: the first recording can't be read.
    """
    rows = []
    for name in stages_of(recipe):
        folder = run / "stages" / name
        mark = read_mark(folder)
        if mark is not None:
            rows.append(StageForecast(name, True, "done already", mark.seconds, 0))
        elif name == "synthesize":
            rows.append(_synthesize(recipe, stage_table(name, recipe, table), folder))
        elif name == "frozen":
            rows.append(_frozen(recipe, stage_table(name, recipe, table), device))
        else:
            rows.append(_learning(name, recipe, stage_table(name, recipe, table), folder, device))
    return tuple(rows)


def _synthesize(recipe: Recipe, table: ClipTable, folder: Path) -> StageForecast:
    count = recipe.synthesize.clips
    there = sum(1 for _ in (folder / "sound").glob("*/train/*.flac"))
    return StageForecast(
        "synthesize",
        False,
        f"{_counted(count, 'clip')}" + (f", {there} there" if there else ""),
        (count - there) * SYNTHESIS_S,
        (count - there) * _sound_bytes(training_clips(table)),
    )


def _frozen(recipe: Recipe, table: ClipTable, device: Device) -> StageForecast:
    cost = frozen_cost(recipe)
    clips = training_clips(table) if recipe.frozen.standardise else ()
    untrained = "" if recipe.encoder.weights or recipe.encoder.name.startswith(ONNX) else " UNTRAINED"
    work = f"{recipe.encoder.name}{untrained}, {cost.words()}"
    counted = [Operation(2 * (cost.macs or 0.0), 0, low_precision=False)]
    window_s = device.seconds(counted) if cost.seconds is None else cost.seconds
    return StageForecast("frozen", False, work, window_s * (1 + len(clips)), 4 * cost.parameters)


def _learning(name: str, recipe: Recipe, table: ClipTable, folder: Path, device: Device) -> StageForecast:
    work = workload(name, recipe, table)
    fitting, remark = _fitting(name, recipe, table, device)
    cost = fitting.cost
    done = _done(name, recipe, table, folder)
    step_s = sum(part * device.seconds(trace.kernels) for part, trace in cost.traces)
    if name == "separate":
        clips = separated_clips(recipe, table)
        machines = len({clip.machine for clip in clips})
        words = (
            f"{_counted(machines, 'machine')}, {_steps(work.steps, done)}, {_counted(len(clips), 'clip')} to separate"
        )
        more_s = len(clips) * (device.seconds(separating_cost(recipe.separate.size)) + WRITING_S)
        disk = work.clips * _checkpoint_bytes(cost) + len(clips) * _sound_bytes(clips)
    else:
        words = f"{_counted(work.clips, 'clip')}, {cost.parameters / 1e6:.1f} M parameters, {_steps(work.steps, done)}"
        distilled = name == "finetune" and recipe.distil.teacher  # which leaves the features that it made
        features = 0 if done or distilled else work.clips + work.noises
        step_s += 0.0 if name == "pretrain" else work.batch * AUGMENTING_S
        if recipe.features == "compute":
            heard = work.batch * _heard_a_clip(name, recipe)
            words += f", needs {heard / step_s:.0f} log-mels a second"
            features = 0
        more_s = features * FEATURES_S
        disk = _checkpoint_bytes(cost) + features * LOG_MEL_BYTES
    return StageForecast(
        name,
        False,
        words,
        step_s * (work.steps - done) + more_s,
        disk,
        work.steps,
        done,
        round(needed_bytes(cost)),
        cost.macs,
        remark,
    )


def _heard_a_clip(name: str, recipe: Recipe) -> float:
    """Clips whose features go into one clip of a batch, on average: itself, a partner, a noise."""
    augment = recipe.finetune.augment
    return 1.0 if name == "pretrain" else 1.0 + augment.mixup_probability + augment.noise_probability


def _fitting(name: str, recipe: Recipe, table: ClipTable, device: Device) -> tuple[Fitting, str]:
    """How the stage is done, and what there is to say of it."""
    try:
        fitting = fitted(name, recipe, table, device)
    except StageError as e:
        if name == "distil" and "distil.teacher" in str(e):
            raise
        endless = Device("", "", 1, 1, 1, float("inf"), 1, 1, 0)
        return fitted(name, recipe.model_copy(update={"memory": "auto"}), table, endless), f"does not fit: {e}"
    return fitting, "; ".join(fitting.lowered)


def _done(name: str, recipe: Recipe, table: ClipTable, folder: Path) -> int:
    if name == "separate":
        networks = ["."] if recipe.separate.networks == "one" else {c.machine for c in separated_clips(recipe, table)}
        return sum(steps_done(folder / network) for network in networks)
    alone = name == "pretrain" and recipe.pretrain.decoder.warmup_steps
    return steps_done(folder) + (steps_done(folder / "decoder") if alone else 0)


def _checkpoint_bytes(cost: StepCost) -> int:
    return (KEPT + 1) * cost.parameters * BYTES_OF_A_WEIGHT


def _sound_bytes(clips: Sequence[Clip]) -> int:
    """Bytes of a clip written as separated and synthetic ones are; found from the first, where it is there."""
    if not clips or not clips[0].path.exists():
        return LONGEST_SOUND_BYTES
    buffer = io.BytesIO()
    sound = np.clip(load_clip(clips[0]), -1.0, 1.0)
    soundfile.write(buffer, sound, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_24")
    return len(buffer.getvalue())


def free_bytes(run: Path) -> int:
    """Room on the disk that a run folder lies on, or will."""
    there = next(folder for folder in (run.absolute(), *run.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


def printed(rows: Sequence[StageForecast], free: int, device: Device) -> list[str]:
    """The plan as lines of a table, with what is needed in all and a warning where the disk is too small."""
    waiting = [row for row in rows if not row.done]
    width = max([len(row.work) for row in rows], default=0)
    lines = [f"{'stage':<12}{'what':<{width + 2}}{'time':>14}{'memory':>12}{'disk':>12}"]
    for row in rows:
        took = "" if row.seconds is None else time_in_words(row.seconds)
        if row.done and took:
            took = f"took {took}"
        memory = _bytes(row.memory_bytes) if row.memory_bytes else ""
        lines.append(
            f"{row.stage:<12}{row.work:<{width + 2}}{took:>14}{memory:>12}{'' if row.done else _bytes(row.disk_bytes):>12}"
        )
    needed = sum(row.disk_bytes for row in waiting)
    total_s = sum(row.seconds or 0.0 for row in waiting)
    most = max((row.memory_bytes for row in waiting), default=0)
    lines.append(
        f"{'to do':<12}{'':<{width + 2}}{time_in_words(total_s):>14}{_bytes(most) if most else '':>12}{_bytes(needed):>12}"
        f"   ({_bytes(free)} of disk free)"
    )
    lines.append(
        f"device: {device.words}, {device.memory_bytes / GB:.1f} GB of memory; time reckoned from "
        + ("a measurement" if device.measured else "a table")
        + f", {device.arithmetic_share:.0%} of its arithmetic and {device.moving_share:.0%} of its memory's speed"
    )
    lines += [row.remark for row in waiting if row.remark]
    if needed > free:
        lines.append(
            f"warning: the disk has {_bytes(free)} free, and the run may need {_bytes(needed)}; give --out on another"
        )
    return lines


def _steps(steps: int, done: int) -> str:
    return f"{steps} steps" + (f", {done} done" if done else "")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _bytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
