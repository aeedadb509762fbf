"""Fine-tuning on a site's own few clips: what attributes, pseudo-attributes and low-rank adaptation are worth, Ω with paired intervals.

    OMP_NUM_THREADS=1 python benchmarks/adaptation.py OUT DATA… [--start RUN] [--recipe default] [--epochs 20] [--seeds 2]

Every row is a run in OUT that learns from the training clips of all DATA together, and each set is evaluated by itself, without separation.
"Told nothing" means names without attributes; their clips are links in OUT. With --start the encoder of that run's embedder is where all
rows begin, and those of low-rank adaptation are added; it must have blocks. Rows that are done are not done again.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from asd_trainer.networks.eat import Eat
from asd_trainer.networks.embedder import Embedder, load_embedder
from asd_trainer.networks.weights import save_encoder

PROGRAM = [sys.executable, "-m", "asd_trainer"]
TOLD = "attributes told"
Rows = Mapping[str, tuple[bool, Mapping[str, object]]]
"""Name → whether attributes are told, and keys of the recipe; None: as the recipe says."""
ROWS: Rows = {
    TOLD: (True, {}),
    "told nothing": (False, {}),
    "told nothing, pseudo-attributes auto": (False, {"finetune.pseudo_attributes": "auto"}),
    "told nothing, 4 pseudo-attributes": (False, {"finetune.pseudo_attributes": 4}),
}
ADAPTED: Rows = {
    TOLD: (True, {}),
    "LoRA of rank 4": (True, {"encoder.lora.rank": 4, "encoder.lora.alpha": 4}),
    "LoRA of rank 16, mlp too": (
        True,
        {
            "encoder.lora.rank": 16,
            "encoder.lora.alpha": 16,
            "encoder.lora.projections": "[query, key, value, output, mlp]",
        },
    ),
    "fresh weights": (True, {"encoder.weights": None}),
}


def asd_train(*words: object) -> str:
    """What the program prints; it ends this one where it fails."""
    return subprocess.run([*PROGRAM, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True).stdout


def start_of(run: Path, out: Path) -> Path:
    """The encoder of a run's embedder, as a folder of first weights."""
    embedder = load_embedder(run)
    assert isinstance(embedder, Embedder)
    assert isinstance(embedder.encoder, Eat)
    out.mkdir(parents=True, exist_ok=True)
    save_encoder(embedder.encoder, out)
    return out


def told_nothing(data: Path, out: Path) -> Path:
    """The same clips without a word on their conditions: links, without tables of attributes."""
    for clip in sorted(data.rglob("section_*")):
        name = re.sub(r"^(section_\d+_(?:source|target)_(?:train|test)_[a-z]+_\d+)_.*(\.\w+)$", r"\1\2", clip.name)
        link = out / clip.parent.relative_to(data) / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(clip.resolve())
    return out


def train(recipe: str, run: Path, sets: Sequence[Path], keys: Mapping[str, object]) -> None:
    """One row of one seed."""
    data = [word for each in sets for word in ("--data", each)]
    settings = [word for key, value in keys.items() if value is not None for word in ("--set", f"{key}={value}")]
    asd_train("run", recipe, "--out", run, *data, *settings, "--threads", 1)


def main() -> None:
    """Train what is missing; one table a data set, in Markdown."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("out", type=Path)
    asked.add_argument("data", type=Path, nargs="+")
    asked.add_argument("--start", type=Path)
    asked.add_argument("--recipe", default="default")
    asked.add_argument("--epochs", type=int, default=20)
    asked.add_argument("--seeds", type=int, default=2)
    given = asked.parse_args()
    silent = [told_nothing(data, given.out / "silent" / data.name) for data in given.data]
    rows = ADAPTED if given.start else ROWS
    same: dict[str, object] = {
        "separate.enabled": "false",
        "synthesize.clips": 0,
        "pretrain.steps": 0,
        "finetune.epochs": given.epochs,
    }
    if given.start:
        same["encoder.weights"] = start_of(given.start, given.out / "start")
    runs: dict[tuple[str, int], Path] = {}
    for seed in range(given.seeds):
        for name, (is_told, keys) in rows.items():
            run = given.out / f"{re.sub('[^a-z0-9]+', '-', name.lower())}-{seed}"
            train(given.recipe, run, given.data if is_told else silent, {**same, "seed": seed, **keys})
            runs[name, seed] = run
    for data in silent:
        print(f"\n| {data.name} | " + " | ".join(f"seed {seed}: Ω | gain" for seed in range(given.seeds)) + " |")
        print("|---" * (1 + 2 * given.seeds) + "|")
        cells: dict[str, list[str]] = {name: [] for name in rows}
        for seed in range(given.seeds):
            each = [runs[name, seed] for name in rows]
            found = json.loads(asd_train("evaluate", *each, "--separation", "never", "--data", data, "--json"))
            for name, row in zip(rows, found["runs"], strict=True):
                omega = {key: 100 * np.array(value) for key, value in row["omega"].items()}
                low, high = omega.get("gain_interval", (0.0, 0.0))
                cells[name] += [f"{omega['value']:.1f}", f"{omega.get('gain', 0.0):+.1f} [{low:+.1f}, {high:+.1f}]"]
        for name, row in cells.items():
            print(f"| {name} | " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
