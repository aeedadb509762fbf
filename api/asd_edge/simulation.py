"""Sound of simulated machines, healthy and failing, to try things with.

Owns nothing but the door: the physics is asd_daemon.hear.simulator's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import UsageError
from asd_daemon.hear.source import Block
from asd_daemon.hear.source_spec import SourceSpec
from asd_daemon.hear.sources.simulation import open_simulation

F32 = NDArray[np.float32]


def simulate(
    machine: str, seconds: float = 10.0, *, failure: str | None = None, seed: int = 0, **options: str | float
) -> F32:
    """Sound of a simulated machine among noise, as `--source simulate:MACHINE?…` plays it; the same arguments give the same sound.

    >>> sound = simulate("fan", 2)
    >>> sound.shape, sound.dtype.name
    ((32000,), 'float32')

    Args:
        machine: fan, gearbox, bearing, slider, valve, ToyCar or ToyTrain.
        seconds: how long, whole seconds; 1 or more.
        failure: what is wrong with it from the first second on, such as rubbing; None: it is well.
        seed: draws the run and, where they are not given, its settings and its noise.
        options: severity (0 to 1), serial (which unit), domain (source or target), noise, snr (dB), and the machine's own settings.

    Returns:
        float32, shape (16 000 · seconds,), at 16 kHz, about -30 dBFS.

    Raises:
        UsageError: a machine, failure or option that there is not, or out of range; says which there are.
    """
    if seconds != int(seconds):
        raise UsageError(f"seconds is {seconds}: give whole seconds")
    words = {"seconds": f"{seconds:g}", "seed": f"{seed}", "speed": "max"} | {k: f"{v}" for k, v in options.items()}
    if failure is not None:
        words["fail"] = failure
    source = open_simulation(SourceSpec("simulate", machine, words))
    return np.concatenate([event.samples for event in source.events() if isinstance(event, Block)])
