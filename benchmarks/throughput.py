"""What training costs: clips a second of each stage, the share of it that is not the model, and memory over many clips.

usage: python benchmarks/throughput.py [RECIPE] [--set KEY=VALUE …] [--clips N] [--steps N] [--threads N]

A simulated recording of each machine is written once and linked until there are N clips: each is read, transformed and cached as in
a run. Times are of the processor with one thread and of the clock with more. "Outside model" is what a batch costs before the model sees
it (cached features read, augmentation), as a share of the model's step; "waits" is the share of time in which the model really waits
for it, as batches are made ahead in a thread of their own.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import torch

from asd_daemon.hear.simulator import MACHINES, SimulatedMachine
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_S
from asd_trainer.data.dataset import ClipTable, read_dataset
from asd_trainer.data.features import cached_log_mels
from asd_trainer.finetune.classification import ClassificationTask
from asd_trainer.finetune.training_set import training_set
from asd_trainer.networks.eat import SIZES, Eat
from asd_trainer.pretrain.stage import Pretrainer, PretrainingTask
from asd_trainer.recipe.keys import OptimiserRecipe
from asd_trainer.recipe.recipe import Recipe, load_recipe
from asd_trainer.run.stage_clips import pretraining_clips
from asd_trainer.training.loop import Task, build_optimiser
from asd_trainer.training.prefetch import PrefetchedTask

MB = 1e6


def write_clips(root: Path, clips: int) -> Path:
    """Links to one recording of each machine, as many in all as asked for, a tenth of them noise-only; gives the root."""
    for machine in MACHINES:
        sound = SimulatedMachine(machine).render(WINDOW_S, np.random.default_rng(0))
        original = root / f"{machine}.flac"
        original.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(original, sound, SAMPLE_RATE_HZ)
        for number in range(clips // len(MACHINES)):
            supplemental = number % 10 == 9
            domain = "target" if number % 10 == 8 else "source"
            split, what = ("supplemental", "noise") if supplemental else ("train", "normal")
            link = (
                root
                / "raw"
                / machine
                / split
                / f"section_00_{domain}_{split}_{what}_{number:05d}_unit_{number % 4}.flac"
            )
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(original, link)
    return root / "raw"


def own_memory_bytes() -> int:
    """Memory of this process that is not a mapped file."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def train_step(
    task: Task, optimiser: torch.optim.Optimizer, settings: OptimiserRecipe, step: int, source: Task
) -> float:
    """One update on a batch of `source`; seconds that passed until the batch was there."""
    begun = time.perf_counter()
    batch = source.batch(step, 0, 1)
    waited_s = time.perf_counter() - begun
    optimiser.zero_grad()
    task.model(**batch)["loss"].backward()
    torch.nn.utils.clip_grad_norm_(task.model.parameters(), settings.clip_norm or float("inf"))
    optimiser.step()
    return waited_s


def learning_row(name: str, task: Task, settings: OptimiserRecipe, batch_clips: int, steps: int, threads: int) -> str:
    """Clips a second, the share of a step outside the model, and the share that is waited for."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    optimiser = build_optimiser(task.model.train(), settings)
    whole, outside = [], []
    for step in range(steps + 1):
        begun = clock()
        task.batch(step, 0, 1)
        outside.append(clock() - begun)
        train_step(task, optimiser, settings, step, task)
        whole.append(clock() - begun - outside[-1])
    ahead, started, waited_s = PrefetchedTask(task), 0.0, 0.0
    for step in range(steps + 1):
        if step == 1:
            started, waited_s = time.perf_counter(), 0.0
        waited_s += train_step(task, optimiser, settings, step, ahead)
    made_s, step_s = float(np.median(outside[1:])), float(np.median(whole[1:]))
    share, waits = made_s / step_s, waited_s / (time.perf_counter() - started)
    return f"{name:<12}{batch_clips / step_s:>10.1f}{share:>16.1%}{waits:>10.1%}   {step_s:.2f} s a step of {batch_clips} clips"


def feature_row(table: ClipTable, folder: Path) -> str:
    """Clips a second into the cache, and memory before, half way and after."""
    clips = pretraining_clips(table)
    half = len(clips) // 2
    before = own_memory_bytes()
    begun = time.process_time()
    cached_log_mels(clips[:half], folder / "half")
    middle = own_memory_bytes()
    cached_log_mels(clips, folder / "features")
    seconds = time.process_time() - begun
    after = own_memory_bytes()
    rate = (half + len(clips)) / seconds
    memory = f"{before / MB:.0f} MB, after {half} clips {middle / MB:.0f}, after {len(clips)} more {after / MB:.0f}"
    return f"{'features':<12}{rate:>10.1f}{'':>26}   memory {memory}"


def pretraining_task(recipe: Recipe, table: ClipTable, folder: Path) -> PretrainingTask:
    """Pre-training as a run would do it."""
    encoder = Eat(SIZES[recipe.encoder.size])
    generator = torch.Generator().manual_seed(recipe.seed)
    encoder.initialise(generator)
    log_mels = cached_log_mels(pretraining_clips(table), folder / "features")
    model = Pretrainer(encoder, recipe.pretrain, generator)
    return PretrainingTask(model, log_mels, recipe.pretrain, seed=recipe.seed, fingerprint="")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipe", nargs="?", default="edge")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--clips", type=int, default=700)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    alone = ["separate.enabled=false", "synthesize.clips=0", "distil.teacher=''"]
    recipe = load_recipe(asked.recipe, [*asked.set, *alone])
    with TemporaryDirectory(prefix="throughput-") as made:
        root = Path(made)
        begun = time.process_time()
        table = read_dataset([write_clips(root / "data", asked.clips)])
        print(f"{asked.recipe}, encoder {recipe.encoder.size}, {asked.threads} thread(s), {len(table.clips)} clips")
        print(f"{'stage':<12}{'clips/s':>10}{'outside model':>16}{'waits':>10}")
        print(f"{'listing':<12}{len(table.clips) / (time.process_time() - begun):>10.1f}")
        print(feature_row(table, root))
        if recipe.pretrain.steps:
            task = pretraining_task(recipe, table, root)
            settings = recipe.pretrain
            print(learning_row("pretrain", task, settings.optimiser, settings.batch_clips, asked.steps, asked.threads))
        learned = training_set(recipe, table, root / "stages" / "finetune")
        last = ClassificationTask(recipe, learned.clips, learned.log_mels, learned.background)
        chosen = recipe.finetune
        print(learning_row("finetune", last, chosen.optimiser, chosen.batch_clips, asked.steps, asked.threads))
        before = own_memory_bytes()
        for step in range(len(learned.clips) // chosen.batch_clips):
            last.batch(step, 0, 1)
        print(
            f"an epoch of batches, {len(learned.clips)} clips: memory {before / MB:.0f} MB before, {own_memory_bytes() / MB:.0f} after"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
