"""Machines that the program knows, and their sound: well and failing.

The fan is of the bundle that comes with the program. The lathe is real: it is learned as a user would have the box learn it, with
`asd-daemon enroll`, from recordings of the lathe in good order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.hear.simulator import SimulatedMachine
from asd_daemon.hear.simulator.scene import DOMAINS, SceneStream, draw_scene
from asd_daemon.judge.bundle.bundle import default_bundle
from asd_daemon.waveform import read_waveform
from rig.daemon import ask

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Ear:
    """A bundle, a machine that can be judged with it, and that machine's sound."""

    bundle: Path
    machine: str
    healthy: F32
    """float32 at 16 kHz, at least half a minute."""
    failing: F32
    """The same machine out of order."""


def simulated_fan(seed: int = 11) -> Ear:
    """A simulated fan of the kind that the program's own bundle knows."""
    rng = np.random.default_rng(seed)
    stream = SceneStream(SimulatedMachine("fan"), draw_scene(DOMAINS["fan"]["source"], rng), rng, block_s=40)
    healthy = next(stream)
    stream.fail("rubbing")
    return Ear(default_bundle(), "fan", healthy, next(stream))


def real_lathe(home: Path, realbench: Path) -> Ear:
    """The lathe of realbench, enrolled below `home` with the 22 windows of its training split; heard is the first of its test split."""
    raw = realbench / "dev_data" / "raw" / "lathe"
    learned = ask("enroll", "--machine", "lathe", "--source", f"folder:{raw / 'train'}", home=home)
    assert learned.returncode == 0, learned.stderr
    normal, anomalous = (sorted((raw / "test").glob(f"*_{label}_*.flac"))[:4] for label in ("normal", "anomaly"))
    healthy, failing = (np.concatenate([read_waveform(p) for p in paths]) for paths in (normal, anomalous))
    return Ear(default_bundle(), "lathe", healthy, failing)
