"""Can a product that was never heard be told from a failure? Simulated machines, both at once, by the scores that they get.

usage: python benchmarks/unknown_states.py [--seed N] [--machine NAME ...]

Each machine is learned at one setting of the attribute that has most values, or at two of them as two states. Then it runs at the
settings that were never heard, and well set but with each of its failures at severity 1; windows of three runs each.

median, deviation  of the scores; 1 is normal
over      windows above the threshold of one false alarm a week
lasting   runs of 24 windows, drawn from these, of which the alert would be told as an unknown state
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402

from asd_daemon.hear.simulator import MACHINES, SimulatedMachine  # noqa: E402
from asd_daemon.hear.simulator.scene import DOMAINS, SceneStream, draw_scene  # noqa: E402
from asd_daemon.judge.alarm.lasting_change import LastingChange  # noqa: E402
from asd_daemon.judge.features.views import F32, view_vectors  # noqa: E402
from asd_daemon.judge.scoring.scorer import DEFAULT_EXCEEDANCE  # noqa: E402
from asd_daemon.learn.learned_states import LearnedStates, learn_states  # noqa: E402
from asd_daemon.learn.normal_sound import NormalSound  # noqa: E402
from asd_daemon.learn.states import find_states  # noqa: E402
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_SAMPLES  # noqa: E402

SNR_DB = 8.0
SERIAL = 7
KNOWN_RUNS, RUNS, DRAWS, LASTS = 5, 3, 50, 24
Rows = list[dict[str, F32]]


class Bench:
    """One machine in one place."""

    def __init__(self, kind: str, rng: np.random.Generator) -> None:
        self.machine, self._rng = SimulatedMachine(kind, SERIAL), rng
        domain = DOMAINS[kind]["source"]
        self._usual = dict(domain.settings[0])
        self._scene = draw_scene(domain, rng, setting=self._usual, snr_db=(SNR_DB, SNR_DB))
        self.product = max(self.machine.attributes, key=lambda name: len(self.machine.attributes[name]))
        self.values = self.machine.attributes[self.product]

    def windows(self, count: int, value: str, failure: str | None = None, runs: int = RUNS) -> Rows:
        """Windows at a setting, some of each run."""
        rows: Rows = []
        scene = replace(self._scene, attributes={**self._usual, self.product: value})
        for _ in range(runs):
            stream = SceneStream(self.machine, scene, self._rng)
            if failure is not None:
                stream.fail(failure)
            stream.read(SAMPLE_RATE_HZ)  # in which the failure sets in
            rows += [view_vectors(stream.read(WINDOW_SAMPLES)) for _ in range(count // runs)]
        return rows


def sound(rows: Rows) -> NormalSound:
    return NormalSound.from_windows([(own, {}) for own in rows])


def scores(learned: LearnedStates, rows: Rows) -> F32:
    heard = {view: vectors[:, 0] for view, vectors in sound(rows).vectors.items()}
    fusions = [state.learned.fusion for state in learned.running] or [learned.machine.fusion]
    return np.asarray(np.min([fusion.score(heard) for fusion in fusions], axis=0), np.float32)


def lasting(own: F32, threshold: float, rng: np.random.Generator) -> float:
    """Share of runs of windows that would be told as an unknown state."""
    found = 0
    for _ in range(DRAWS):
        change = LastingChange()
        change.update(1.0, threshold, alert_open=False)
        found += any(change.update(float(s), threshold, alert_open=True) for s in rng.choice(own, LASTS))
    return found / DRAWS


def line(what: str, own: F32, threshold: float, rng: np.random.Generator) -> None:
    over, lasts = float((own > threshold).mean()), lasting(own, threshold, rng)
    print(f"    {what:24s}{np.median(own):6.1f}{own.std():6.2f}   over {over:4.0%}   lasting {lasts:4.0%}", flush=True)


def tell(kind: str, rng: np.random.Generator) -> None:
    bench = Bench(kind, rng)
    known = [bench.windows(20, value, runs=KNOWN_RUNS) for value in bench.values[:2]]
    well = [bench.windows(6, value) for value in bench.values[:2]]
    fresh = {value: bench.windows(9, value) for value in bench.values[2:]}
    ill = {failure: bench.windows(9, bench.values[0], failure) for failure in bench.machine.failures}
    both, names = sound([*known[0], *known[1]]), [value for value in bench.values[:2] for _ in range(20)]
    numbers = find_states(both)
    right = max(float((numbers == order).mean()) for order in (np.repeat([0, 1], 20), np.repeat([1, 0], 20)))
    found = f"{int(numbers.max()) + 1} states found" + (f", {right:.0%} right" if numbers.any() else "")
    print(f"\n{kind} by {bench.product}, {bench.values[0]} and {bench.values[1]} known: {found}")
    for words, learned in (
        ("one state", learn_states(sound(known[0]))),
        ("two states", learn_states(both, names=names)),
    ):
        threshold = learned.machine.calibration.threshold(DEFAULT_EXCEEDANCE)
        print(f"  {words}, threshold {threshold:.2f}")
        for value, rows in zip(bench.values, well[: 1 + len(learned.running) // 2], strict=False):
            line(f"healthy at {value}", scores(learned, rows), threshold, rng)
        for value, rows in fresh.items():
            line(f"never heard at {value}", scores(learned, rows), threshold, rng)
        for failure, rows in ill.items():
            line(f"failure {failure}", scores(learned, rows), threshold, rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--machine", action="append", choices=MACHINES, default=[])
    arguments = parser.parse_args()
    for kind in arguments.machine or MACHINES:
        tell(kind, np.random.default_rng([arguments.seed, MACHINES.index(kind)]))


if __name__ == "__main__":
    main()
