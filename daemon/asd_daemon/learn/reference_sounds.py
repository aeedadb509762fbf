"""Views of other machines' sounds, which tell whether a machine's movement is its own; and how they were made.

`python -m asd_daemon.learn.reference_sounds` writes the file anew: simulated machines of every kind in the noise of their places, so that
nothing recorded ships with the program.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.hear.simulator import MACHINES, SimulatedMachine
from asd_daemon.hear.simulator.scene import DOMAINS, SceneStream, draw_scene
from asd_daemon.judge.features.views import view_vectors
from asd_daemon.learn.view_families import CONTRAST_VIEWS
from asd_daemon.waveform import WINDOW_SAMPLES

F32 = NDArray[np.float32]
FILE = Path(__file__).with_suffix(".npz")
UNITS = 8
"""Of each kind of machine; each gives a window from each of its domains."""
SEED = 2026


@cache
def reference_vectors() -> Mapping[str, F32]:
    """View → (K, D): other machines' sounds in the views that the contrast is measured in."""
    with FILE.open("rb") as content, np.load(content, allow_pickle=False) as saved:
        return {view: np.asarray(saved[view], np.float32) for view in CONTRAST_VIEWS}


def make_reference_vectors(views: Sequence[str] = CONTRAST_VIEWS) -> dict[str, NDArray[np.float16]]:
    """Simulate the sounds and take some of their views; the same on every machine but for rounding."""
    rng = np.random.default_rng(SEED)
    vectors: dict[str, list[F32]] = {view: [] for view in views}
    for kind in MACHINES:
        for serial in range(UNITS):
            machine = SimulatedMachine(kind, 900 + serial)
            for domain in DOMAINS[kind].values():
                stream = SceneStream(machine, draw_scene(domain, rng), rng)
                described = view_vectors(stream.read(WINDOW_SAMPLES), views=views, parts=False)
                for view, own in described.items():
                    vectors[view].append(own[0])
    return {view: np.stack(own).astype(np.float16) for view, own in vectors.items()}


if __name__ == "__main__":
    with FILE.open("wb") as out:
        np.savez_compressed(out, **make_reference_vectors())  # type: ignore[arg-type]
