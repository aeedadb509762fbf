"""Small folders of recordings in the DCASE layout, and runs that were "trained" on them, for tests of what comes after training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import soundfile

from asd_daemon.waveform import SAMPLE_RATE_HZ
from asd_trainer.networks.embedder import save_embedder
from asd_trainer.recipe.recipe import load_recipe
from asd_trainer.training.run_folder import RUN_RECIPE, claim_run
from rig.bundles import failing_noise, healthy_noise
from rig.networks import tiny_embedder


def write_recordings(root: Path, machines: Mapping[str, float], train: int = 6, test: int = 2) -> Path:
    """Write train clips and normal and anomalous test clips of machines that sound like `healthy_noise` with the given tilts."""
    for number, (machine, tilt) in enumerate(machines.items()):
        rng = np.random.default_rng(number)
        for split in ("train", "test"):
            (root / machine / split).mkdir(parents=True)
        for n in range(train):
            _write(
                root / machine / "train" / f"section_00_source_train_normal_{n:04d}_vel_{n % 2}.wav",
                healthy_noise(rng, tilt),
            )
        for n in range(test):
            name = f"section_00_source_test_{{}}_{n:04d}_vel_0.wav"
            _write(root / machine / "test" / name.format("normal"), healthy_noise(rng, tilt))
            _write(root / machine / "test" / name.format("anomaly"), failing_noise(rng, tilt))
    return root


def write_trained_run(run: Path, data: Path) -> Path:
    """A run folder whose fine-tuning is done: an embedder of the real architecture with fresh weights."""
    stage = run / "stages" / "finetune"
    stage.mkdir(parents=True)
    save_embedder(tiny_embedder(), stage)
    (stage / "done").touch()
    if not (run / RUN_RECIPE).exists():
        claim_run(run, load_recipe("smoke"))
    (run / "data.json").write_text(json.dumps({"roots": [str(data)]}), encoding="utf-8")
    return run


def _write(path: Path, sound: np.ndarray) -> None:
    soundfile.write(str(path), sound, SAMPLE_RATE_HZ, subtype="PCM_16")
