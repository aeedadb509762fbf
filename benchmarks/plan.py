"""What a plan says against what the stages then take: memory and time of each stage of a recipe, really run for a few steps.

usage: PYTHONPATH=tests python benchmarks/plan.py [RECIPE] [--set KEY=VALUE …] [--steps N] [--threads N]

Simulated recordings, the recipe's own batches, few steps. Every stage is run twice, once by the clock and once with every allocation of
torch on the CPU counted; the plan is made for this machine, once from the table of devices and once measured.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from asd_trainer.data.dataset import read_dataset
from asd_trainer.data.simulation import write_dataset
from asd_trainer.data.simulation_plan import SimulationPlan
from asd_trainer.recipe.recipe import Recipe, load_recipe
from asd_trainer.run.devices import Device, device_here, measured
from asd_trainer.run.fitting import SLACK
from asd_trainer.run.forecast import StageForecast, forecast
from asd_trainer.run.stages import run_stage, stages_of
from asd_trainer.training.stage_mark import read_mark
from rig.allocations import peak_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="edge")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=6, help="of separation and pre-training")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    logging.basicConfig(level=logging.WARNING)
    recipe = load_recipe(
        chosen.recipe,
        [
            *chosen.overrides,
            f"separate.steps={chosen.steps}",
            f"pretrain.steps={chosen.steps}",
            "pretrain.decoder.warmup_steps=0",
            "synthesize.clips=20",
            "finetune.epochs=1",
        ],
    )
    with TemporaryDirectory() as folder:
        compare(recipe, Path(folder))


def compare(recipe: Recipe, folder: Path) -> None:
    """Run every stage and print a table."""
    small = SimulationPlan(machines=("fan", "valve"), source_train=40, target_train=8, test=1, supplemental=8)
    write_dataset(folder / "data", small, jobs=1)
    table = read_dataset([folder / "data"])
    here = device_here()
    print(f"{here.words}; {measured(here)}")
    print(
        f"{'stage':<12}{'MB planned':>12}{'MB taken':>12}{'ratio':>8}{'s table':>10}{'s measured':>12}{'s taken':>10}"
    )
    for stage in stages_of(recipe):
        row, other = (_row(recipe, stage, folder, device) for device in (here, measured(here)))
        run_stage(stage, recipe, table, folder / "timed")
        mark = read_mark(folder / "timed" / "stages" / stage)
        assert mark is not None
        taken = peak_bytes(lambda stage=stage: run_stage(stage, recipe, table, folder / "counted"))  # type: ignore[misc]
        planned = row.memory_bytes / SLACK
        memory = f"{planned / 1e6:>12.0f}{taken / 1e6:>12.0f}{planned / taken:>8.2f}" if planned else " " * 32
        print(f"{stage:<12}{memory}{row.seconds:>10.1f}{other.seconds:>12.1f}{mark.seconds:>10.1f}", flush=True)


def _row(recipe: Recipe, stage: str, folder: Path, device: Device) -> StageForecast:
    rows = forecast(recipe, read_dataset([folder / "data"]), folder / "timed", device)
    return next(row for row in rows if row.stage == stage)


if __name__ == "__main__":
    main()
