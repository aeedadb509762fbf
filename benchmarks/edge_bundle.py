"""A bundle of edge size to measure with: both networks trained for minutes on simulated machines, through the programs' own doors.

What is there is not made again, so that the second `make bench` takes no training. Times do not depend on how well a network is trained;
errors of int8 do, and are those of such networks.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asd_daemon.judge.bundle.bundle import MANIFEST, Bundle, Manifest, file_entry, load_bundle
from asd_daemon.judge.bundle.onnx_sessions import open_embedder, open_separator
from asd_daemon.judge.scoring.scorer import HEARD, SEPARATED, FeatureExtractor
from asd_daemon.learn.machine_files import Bank, write_machine
from asd_trainer.data.dataset import load_clip, read_dataset

MACHINES = ("fan", "valve", "bearing")
SIMULATE = ["--small", "--source-train", "24", "--target-train", "4", "--test", "20"]
# a few minutes of training leave distances near zero, of which any rounding is a large share; and their Ω says nothing
EXPORT = ("--machine", "fan", "--no-test")
INT8 = ("--score-error", "9")
RECIPE = [
    "encoder.size=edge",
    "finetune.epochs=1",
    "separate.enabled=true",
    "separate.steps=30",
    "separate.crop_s=1",
    "separate.batch_mixtures=4",
]


@dataclass(frozen=True)
class EdgeBundles:
    """The same networks, listening in int8 and in fp32; `fan` is scored with heard and separated sound."""

    int8: Bundle
    fp32: Bundle

    @property
    def figures(self) -> dict[str, Any]:
        """What the exporter measured of the int8 models."""
        return dict(self.int8.manifest.figures)


def edge_bundles(folder: Path) -> EdgeBundles:
    """Make what is missing in a folder, and load it."""
    data, run = folder / "data", folder / "run"
    machines = [word for name in MACHINES for word in ("--machine", name)]
    if not (run / "stages" / "finetune" / "done").exists():
        program("asd-train", "simulate", data, *machines, *SIMULATE)
        keys = [word for key in RECIPE for word in ("--set", key)]
        program("asd-train", "run", "smoke", "--data", data, "--out", run, *keys)
    made = {}
    for precision, words in (("int8", INT8), ("fp32", ["--fp32"])):
        bundle = folder / precision
        if not (bundle / MANIFEST).is_file():
            program("asd-export", run, bundle, "--data", data, *EXPORT, *words)
            score_with_separator(bundle, data)
        made[precision] = load_bundle(bundle)
    return EdgeBundles(made["int8"], made["fp32"])


def program(name: str, *words: object) -> None:
    """Run one of the programs; its failure is the benchmark's."""
    print("making the edge bundle:", name, *words, file=sys.stderr, flush=True)
    command = [str(Path(sys.executable).with_name(name)), *map(str, words)]
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        sys.exit(f"{name} failed; see above")


def score_with_separator(folder: Path, data: Path) -> None:
    """Let the fan be scored with its separated sound too, whatever its clips say of that: all steps shall run."""
    bundle = load_bundle(folder)
    hearing = FeatureExtractor(open_embedder(bundle), open_separator(bundle))
    clips = read_dataset([data]).select(split="train", machine="fan", label="normal")
    heard = [hearing.vectors(load_clip(clip), (HEARD, SEPARATED)) for clip in clips]
    heard_bank, separated_bank = (np.concatenate([one[view] for one in heard]) for view in (HEARD, SEPARATED))
    shutil.rmtree(bundle.folder("fan"))
    entry, _ = write_machine(bundle.folder("fan"), "machines/fan", Bank(heard_bank, separated_bank))
    inside = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != MANIFEST]
    changed: Manifest = bundle.manifest.model_copy(
        update={
            "machines": {**bundle.manifest.machines, "fan": entry},
            "files": {p.relative_to(folder).as_posix(): file_entry(p) for p in inside},
            "reference": (),  # scores of another fan
        }
    )
    (folder / MANIFEST).write_text(json.dumps(changed.model_dump(mode="json", by_alias=True)) + "\n")
