"""What each step of the system is worth: one line a step, Ω with its bootstrap interval, two seeds, then each machine.

usage: python benchmarks/ablation.py --to FOLDER [--data DIR] [--general DIR] [--embedder RUN] [--seeds 0 1] [--only WORD ...]

Every row is a run of the trainer with another recipe, kept in FOLDER and resumed there; rows that share a model share the run. Without
--data: the realbench recordings beside the checkout. --general is a folder of everyday sound, which the first stage of pre-training
learns from; --embedder a run that learned from other machines, scored as it is. What is not there is skipped with a word. No choice of
a row looks at a test clip.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402

from asd_daemon.judge.features.views import VIEW_NAMES  # noqa: E402
from asd_trainer.data.dataset import ClipTable, read_dataset  # noqa: E402
from asd_trainer.evaluate.backend import RunScores, ScoredClip, Scoring, score_run  # noqa: E402
from asd_trainer.evaluate.bootstrap import interval, resampled_scores  # noqa: E402
from asd_trainer.evaluate.evaluation import machine_results, omega  # noqa: E402
from asd_trainer.evaluate.separation_trial import Separating  # noqa: E402
from asd_trainer.evaluate.views import run_views  # noqa: E402
from asd_trainer.recipe.recipe import load_recipe  # noqa: E402
from asd_trainer.run.stages import run_stage, run_stages  # noqa: E402
from asd_trainer.training.run_folder import claim_run  # noqa: E402

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
STAGE_ONE, SEPARATED = "stage-one", "separated"
QUANTILES = (
    "embedding.layers=patches",
    "embedding.pooling=quantiles",
    "finetune.kept_patches=1",
    "finetune.augment.mixup_probability=0",
)
NOISE = ("finetune.augment.noise_probability=0.8", "finetune.augment.noise_snr_db=[-10,5]")
SEPARATE = ("separate.enabled=true", "separate.steps={separator_steps}")


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    run: str
    """Rows of one name share a model."""
    overrides: tuple[str, ...] = ()
    scoring: Scoring = "nearest"
    separating: Separating = "never"
    views: tuple[str, ...] | None = None
    """Offered alone, so that the model does not matter and one seed tells all; None: as `scoring` says."""


def rows(general: bool) -> tuple[Row, ...]:
    """The table's lines, from the paper's plainest to the whole system."""
    pretrained = ("pretrain.steps={pretrain_steps}", "pretrain.batch_clips=4", "pretrain.mask.clones=8")
    stage_two = (*pretrained, "pretrain.optimiser.learning_rate=5e-4")
    stage_one = (
        (Row("stages 1 and 2, ArcFace", "both", (*stage_two, f"encoder.weights={STAGE_ONE}")),) if general else ()
    )
    steady = (*QUANTILES, *NOISE)
    separated = (*steady, *SEPARATE)
    synthetic = (*separated, "synthesize.clips={synthetic}")
    return (
        Row("ArcFace, attentive statistics", "plain"),
        Row("stage 2, ArcFace", "two", stage_two),
        *stage_one,
        Row("ArcFace, statistics of all blocks", "blocks", ("embedding.layers=all",)),
        Row("ArcFace, quantiles of patches", "quantiles", QUANTILES),
        Row("  + noise while learning", "noise", steady),
        Row("  + separated clips (c.)", SEPARATED, separated),
        Row("  c. + second score always", SEPARATED, separated, separating="always"),
        Row("  c. + second score where normal clips say so", SEPARATED, separated, separating="auto"),
        Row(
            "  second score, heard clips alone", "heard", (*separated, "finetune.separated=false"), separating="always"
        ),
        Row("  c. + synthetic clips", "synthetic", synthetic),
        Row("  c. + synthetic clips + second score always", "synthetic", synthetic, separating="always"),
        Row("  c. + synthetic clips + second score where…", "synthetic", synthetic, separating="auto"),
        Row("views, without the embedder", "noise", steady, "views", views=VIEW_NAMES),
        Row("views, embedder among them", "noise", steady, "views"),
        Row("views, embedder and separated sound", SEPARATED, separated, "views"),
    )


def trained(row: Row, table: ClipTable, folder: Path, seed: int, settings: argparse.Namespace) -> Path:
    """The run of a row, trained as far as it is not."""
    run = folder / f"{row.run}-{seed}"
    words = [word.format(**vars(settings)) for word in row.overrides]
    words = [
        word.replace(STAGE_ONE, str(first_stage(folder, seed, settings))) if STAGE_ONE in word else word
        for word in words
    ]
    recipe = load_recipe(settings.recipe, [f"seed={seed}", f"finetune.epochs={settings.epochs}", *words])
    claim_run(run, recipe)
    twin = folder / f"{SEPARATED}-{seed}"
    if (
        recipe.separate.enabled
        and row.run != SEPARATED
        and not (run / "stages").exists()
        and (twin / "stages").exists()
    ):
        shutil.copytree(
            twin / "stages" / "separate", run / "stages" / "separate"
        )  # it is the same: recipe, seed and clips are
        shutil.copytree(twin / "separated", run / "separated")
    run_stages(recipe, table, run)
    return run


def first_stage(folder: Path, seed: int, settings: argparse.Namespace) -> Path:
    """An encoder that learned from everyday sound."""
    run = folder / f"{STAGE_ONE}-{seed}"
    words = (f"pretrain.steps={settings.general_steps}", "pretrain.batch_clips=4", "pretrain.mask.clones=8")
    recipe = load_recipe(settings.recipe, [f"seed={seed}", *words, "pretrain.optimiser.learning_rate=5e-4"])
    claim_run(run, recipe)
    run_stage("pretrain", recipe, read_dataset([settings.general]), run)
    return run / "stages" / "pretrain"


def scores_of_row(row: Row, run: Path, table: ClipTable) -> RunScores:
    """What the row makes of the test clips."""
    if row.views is None:
        return score_run(run, table, scoring=row.scoring, separating=row.separating)
    train = tuple(clip for clip in table.select(split="train") if clip.label != "anomaly")
    test = table.select(split="test")
    found = run_views(run, train, test, row.views, own=False)
    scores = {
        clip: s for u, one in found.items() for clip, s in zip((c for c in test if c.unit == u), one.test, strict=True)
    }
    return RunScores(tuple(ScoredClip(clip, float(scores[clip])) for clip in test), (), {})


def line(name: str, found: list[RunScores]) -> dict[str, object]:
    """Print a row: Ω of each seed, the interval of their first, each machine over the seeds."""
    results = [machine_results(scores.test) for scores in found]
    values = [100 * omega(result) for result in results]
    # the interval says how far other test clips could have moved the first seed's Ω
    spread = interval(resampled_scores([found[0].test], np.random.default_rng(0))[0])
    machines = {m: float(np.mean([100 * omega({m: result[m]}) for result in results])) for m in results[0]}
    shown = " ".join(f"{value:5.1f}" for value in values)
    each = " ".join(f"{value:9.1f}" for value in machines.values())
    print(
        f"{name:46s} {np.mean(values):5.1f}  {shown}  {100 * spread.low:5.1f}–{100 * spread.high:4.1f}  {each}",
        flush=True,
    )
    return {"row": name, "omega": values, "interval": [100 * spread.low, 100 * spread.high], "machines": machines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="folder of the runs and of table.json")
    parser.add_argument("--data", type=Path, default=SHARED / "realbench")
    parser.add_argument("--general", type=Path, help="folder of everyday sound for the first stage")
    parser.add_argument("--embedder", type=Path, help="a run that learned from other machines")
    parser.add_argument("--recipe", default="smoke")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", default=[], help="rows whose run has one of these names")
    parser.add_argument("--epochs", type=int, default=20, help="of fine-tuning")
    parser.add_argument("--separator-steps", type=int, default=1000)
    parser.add_argument("--pretrain-steps", type=int, default=200)
    parser.add_argument("--general-steps", type=int, default=500)
    parser.add_argument("--synthetic", type=int, default=500, help="clips")
    settings = parser.parse_args()
    if not settings.data.is_dir():
        print(f"skipped: there is no {settings.data}", file=sys.stderr)
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.set_num_threads(1)
    table = read_dataset([settings.data])
    names = sorted({clip.machine for clip in table.select(split="test")})
    seeds = " ".join(f"s{seed:<4d}" for seed in settings.seeds)
    print(f"{'':46s} {'mean':>5s}  {seeds}  {'95 %':>10s}  {' '.join(f'{name[:9]:>9s}' for name in names)}")
    lines = []
    if settings.embedder:
        lines.append(
            line(f"{settings.embedder.name}, never heard these machines", [score_run(settings.embedder, table)])
        )
    for row in rows(settings.general is not None):
        if settings.only and row.run not in settings.only:
            continue
        seeds = settings.seeds if row.views is None else settings.seeds[:1]
        found = [scores_of_row(row, trained(row, table, settings.to, seed, settings), table) for seed in seeds]
        lines.append(line(row.name, found))
        (settings.to / "table.json").write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
