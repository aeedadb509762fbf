"""What a graphics card is worth, in at most ten minutes: `python benchmarks/on_a_card.py --to FOLDER [--small]`.

In this order, each with a time of its own that it is ended after, so that whatever is cut off there is something to read:

    simulate     a data set of the challenge's size, on all cores
    paper        a few steps of every stage of the paper's recipe, fresh weights: memory and seconds a step, beside what the plan says
    edge         the edge recipe from beginning to end in bf16, its steps as given
    evaluate     its official figures
    export       int8 bundle, within the exporter's budgets
    accelerate   the same pre-training by one process and by two

FOLDER/results.json holds the figures as they come; FOLDER/weights the weights, none above 16 MB. `--small` is for a machine without a card:
the same way with hardly any steps, the edge separator in the paper's place, which takes 20 s a clip on a CPU, and ten times the limits.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from asd_trainer.data.dataset import read_dataset
from asd_trainer.recipe.recipe import load_recipe
from asd_trainer.run.devices import device_here
from asd_trainer.run.fitting import SLACK
from asd_trainer.run.forecast import forecast
from asd_trainer.run.stages import run_stage, stages_of
from asd_trainer.training.stage_mark import read_mark

LARGEST_WEIGHTS = 16e6
STEPS = 4
BF16 = [f"{stage}.optimiser.mixed_precision=bf16" for stage in ("separate", "pretrain", "finetune")]
TINY = [
    "--machine",
    "fan",
    "--machine",
    "valve",
    "--source-train",
    "24",
    "--target-train",
    "8",
    "--test",
    "4",
    "--supplemental",
    "6",
]
HARDLY_ANY = [
    "separate.steps=3",
    "synthesize.clips=20",
    "pretrain.steps=3",
    "finetune.epochs=1",
    "finetune.batch_clips=8",
]


class Report:
    """Figures on disk as they come."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "results.json"
        self._begun = time.monotonic()
        self._found: dict[str, object] = {"device": device_here().words, "torch": torch.__version__}

    def add(self, name: str, figures: object) -> None:
        """Keep and print the figures of a step."""
        self._found[name] = figures
        self._file.write_text(json.dumps(self._found, indent=1) + "\n")
        print(f"{time.monotonic() - self._begun:6.0f} s  {name}: {json.dumps(figures)}", flush=True)


def run(limit_s: float, *words: str, environment: dict[str, str] | None = None) -> dict[str, object]:
    """A command with a limit: how long it took, how it ended, its last lines."""
    begun = time.monotonic()
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
            env={**os.environ, **(environment or {})},
        )
        ended, said = str(done.returncode), done.stdout + done.stderr
    except subprocess.TimeoutExpired as e:
        ended, said = "cut off", (e.stderr or b"").decode(errors="replace")
    return {"seconds": round(time.monotonic() - begun, 1), "ended": ended, "said": said.splitlines()[-3:]}


def train(*words: str) -> list[str]:
    """The words of asd-train in this environment."""
    return [sys.executable, "-m", "asd_trainer", *words]


def steps_of_the_paper(data: Path, folder: Path, *, small: bool) -> None:
    """Memory and time of a few steps of each stage, planned and taken, into FOLDER/figures.json stage by stage."""
    sizes = (
        ["encoder.size=smoke", "separate.size=edge", "separate.crop_s=1", "separate.batch_mixtures=2"] if small else []
    )
    sizes += ["pretrain.batch_clips=2", "pretrain.mask.clones=2", "finetune.batch_clips=4"] if small else []
    overrides = [
        "encoder.weights=''",
        "pretrain.decoder.warmup_steps=0",
        "years=[]",
        f"separate.steps={STEPS}",
        "synthesize.clips=20",
    ]
    recipe = load_recipe("paper", [*overrides, f"pretrain.steps={STEPS}", "finetune.epochs=1", *sizes])
    table = read_dataset([data])
    found: dict[str, object] = {}
    for stage in stages_of(recipe):
        row = next(one for one in forecast(recipe, table, folder, device_here()) if one.stage == stage)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        run_stage(stage, recipe, table, folder)
        taken = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        mark = read_mark(folder / "stages" / stage)
        found[stage] = {
            "planned_gb": round(row.memory_bytes / SLACK / 1e9, 3),
            "taken_gb": None if taken is None else round(taken / 1e9, 3),  # what benchmarks/plan.py measures on a CPU
            "planned_s": round(row.seconds or 0.0, 1),
            "taken_s": None if mark is None else mark.seconds,
        }
        (folder / "figures.json").write_text(json.dumps(found))


def paper(limit_s: float, to: Path, *, small: bool) -> dict[str, object]:
    """The same in a process of its own, which ends at its limit or takes its memory with it where that is not enough."""
    figures = to / "paper" / "figures.json"
    words = [sys.executable, __file__, "--to", str(to), "--paper-only", *(["--small"] if small else [])]
    done = run(limit_s, *words)
    return {**done, "stages": json.loads(figures.read_text()) if figures.exists() else {}}


def two_processes(data: Path, folder: Path, limit_s: float, *, small: bool) -> dict[str, object]:
    """The same pre-training of the edge encoder by one process and by two."""
    steps = 4 if small else 60
    words = [
        "-m",
        "asd_trainer",
        "run",
        "edge",
        "--data",
        str(data),
        "--set",
        "separate.enabled=false",
        "--set",
        "synthesize.clips=0",
    ]
    words += ["--set", f"pretrain.steps={steps}", "--set", "finetune.epochs=1", "--set", "finetune.batch_clips=8"]
    found: dict[str, object] = {}
    for count in (1, 2):
        out = folder / f"processes-{count}"
        launcher = (
            [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"]
            if count > 1
            else [sys.executable]
        )
        done = run(limit_s / 2, *launcher, *words, "--out", str(out))
        mark = read_mark(out / "stages" / "pretrain")
        found[str(count)] = {**done, "pretrain_s": None if mark is None else mark.seconds}
    return found


def keep_weights(run_folder: Path, to: Path) -> list[str]:
    """Copy the weights of a run with what describes them; files that are too large in half precision, or, larger still, not at all."""
    kept = []
    for file in sorted(run_folder.rglob("*")):
        if file.suffix not in {".safetensors", ".json", ".yaml"}:
            continue
        target = to / file.relative_to(run_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.stat().st_size <= LARGEST_WEIGHTS:
            shutil.copy2(file, target)
        elif file.suffix == ".safetensors" and file.stat().st_size <= 2 * LARGEST_WEIGHTS:
            save_file({name: tensor.half() for name, tensor in load_file(file).items()}, target)
        else:
            continue
        kept.append(file.relative_to(run_folder).as_posix())
    return [name for name in kept if name.endswith(".safetensors")]


def main() -> None:
    """As on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--small", action="store_true")
    parser.add_argument(
        "--paper-only", action="store_true", help="the steps of the paper's recipe alone, on the data that is there"
    )
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="of the edge recipe"
    )
    said = parser.parse_args()
    folder, small = said.to.absolute(), said.small
    folder.mkdir(parents=True, exist_ok=True)
    data, tiny, edge = folder / "data", folder / "tiny", folder / "edge"
    if said.paper_only:
        steps_of_the_paper(tiny, folder / "paper", small=small)
        return
    patience = 10 if small else 1
    report = Report(folder)
    report.add("simulate", run(60 * patience, *train("simulate", str(data), *(TINY if small else []))))
    run(30 * patience, *train("simulate", str(tiny), *TINY))
    report.add("paper", paper(80 * patience, folder, small=small))
    overrides = [*BF16, *(HARDLY_ANY if small else []), *said.overrides]
    settings = [word for key in overrides for word in ("--set", key)]
    report.add("edge", run(200 * patience, *train("run", "edge", "--data", str(data), "--out", str(edge), *settings)))
    report.add("weights", keep_weights(edge, folder / "weights"))
    evaluate = train("evaluate", str(edge), "--separation", "always", "--data", str(data))
    report.add("evaluate", run(45 * patience, *evaluate))
    score_error = ["--score-error", "100", "--omega-loss", "100"] if small else []
    export = [str(Path(sys.executable).with_name("asd-export")), str(edge), str(folder / "bundle"), "--data", str(tiny)]
    export += ["--score", "nearest", "--no-twin", *score_error]
    report.add("export", run(100 * patience, *export))
    report.add("accelerate", two_processes(tiny, folder, 80 * patience, small=small))


if __name__ == "__main__":
    main()
