"""A machine as version 0.2 learned it: by earlier views or embeddings, with a bank, changed copies and a record that says less."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from asd_daemon.judge.bundle.bundle import Bundle, file_entry
from asd_daemon.judge.bundle.onnx_sessions import open_embedder
from asd_daemon.judge.distances.fusion import Fusion
from asd_daemon.judge.scoring.scorer import HEARD, FeatureExtractor
from asd_daemon.judge.thresholds.calibration import calibrate
from asd_daemon.learn.enrolment_record import models_hash
from asd_daemon.learn.learning import LearnedMachine
from asd_daemon.learn.machine_files import write_machine
from asd_daemon.learn.normal_sound import NormalSound
from asd_daemon.learn.view_families import view_families
from rig.bundles import healthy_noise

STAMP = "20250101T000000"


def write_earlier_enrolment(
    bundle: Bundle, root: Path, machine: str, views: tuple[str, ...] = (HEARD,), *, tilt: float = 2.0
) -> None:
    """Write what 0.2 would have kept of 16 windows of healthy noise, judged by `views`."""
    rng = np.random.default_rng(5)
    extractor = FeatureExtractor(open_embedder(bundle))
    windows = [extractor.vectors(healthy_noise(rng, tilt), {HEARD, *views}, parts=True) for _ in range(16)]
    sound = NormalSound.from_windows([(own, {}) for own in windows])
    used = {view: sound.vectors[view] for view in views}
    fusion, held_out = Fusion.fit_held_out(view_families(views, None), used, sound.domains)
    weights = tuple((view, round(1 / len(views), 4)) for view in views)
    learned = LearnedMachine(fusion, weights, calibrate(held_out), None, 1.0, held_out)
    home = root / machine
    entry, _ = write_machine(home / STAMP, STAMP, learned=learned)
    np.save(home / STAMP / "bank.npy", sound.vectors[HEARD][:, 0], allow_pickle=False)
    arrays = {f"vectors/{view}": vectors for view, vectors in sound.vectors.items()}
    arrays |= {f"changed/{view}": vectors[None, :, 0] for view, vectors in sound.vectors.items()}
    np.savez(home / STAMP / "sound.npz", **arrays)  # type: ignore[arg-type]
    record = {
        "schema": 1,
        "machine": machine,
        "created": "2025-01-01T00:00:00Z",
        "bundle": f"{bundle.name} {bundle.version}",
        "models": models_hash(bundle),
        "entry": entry.model_dump(mode="json"),
        "files": {
            file.relative_to(home).as_posix(): file_entry(file).model_dump(mode="json")
            for file in sorted((home / STAMP).iterdir())
        },
        "windows": sound.windows,
        "source": "script",
        "microphone": None,
        "level_dbfs": [-20.0, -18.0, -16.0],
        "drift": 1.0,
        "pseudo_auc": 0.9,
        "weights": weights,
    }
    (home / "enrolled.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
