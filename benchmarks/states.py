"""Machines in the place of one machine's states: what a state of its own is worth, and whether states are found without a word.

usage: python benchmarks/states.py [--data DIR ...] [--cache DIR] [--draws N] [--seed N]

Several real machines are taken for one machine that is sometimes one and sometimes the other. Their training clips are learned together,
in four ways; their test clips are scored, one after the other, without being told which machine is heard. Ω is the harmonic mean over the
machines, with the 95 % interval of the paired gain over one bank from a bootstrap over test clips.

one bank   one normal for all of them, the nearest window judges: as a machine is judged that was learned without states
found      states that `enroll` finds by itself
named      states that somebody names, `enroll --state NAME --add`
alone      each machine enrolled and scored for itself: nobody has to tell which one is heard
right      test clips, healthy and failing, that are judged in the right one of the named states
false, found  test clips above the threshold of one false alarm a week; found of failing ones
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
from described_machines import DescribedMachine, described_set  # noqa: E402

from asd_daemon.judge.features.views import F32, VIEW_NAMES  # noqa: E402
from asd_daemon.judge.scoring.scorer import DEFAULT_EXCEEDANCE  # noqa: E402
from asd_daemon.learn.learned_states import LearnedStates, learn_states  # noqa: E402
from asd_daemon.learn.learning import LearnedMachine, learn  # noqa: E402
from asd_daemon.learn.normal_sound import NormalSound  # noqa: E402
from asd_daemon.learn.states import find_states  # noqa: E402
from asd_trainer.evaluate.backend import ScoredClip  # noqa: E402
from asd_trainer.evaluate.bootstrap import resampled_scores  # noqa: E402
from asd_trainer.evaluate.evaluation import machine_results, omega  # noqa: E402

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
REAL_SETS = (SHARED / "realbench", SHARED / "realbench2")
WAYS = ("one bank", "found", "named", "alone")


@dataclass(frozen=True)
class Mixture:
    """Machines in the place of states, their test clips one machine after the other."""

    machines: tuple[DescribedMachine, ...]

    @property
    def sound(self) -> NormalSound:
        """Training clips of all of them."""
        vectors = {view: np.concatenate([m.train[view] for m in self.machines]) for view in VIEW_NAMES}
        return NormalSound(vectors, {}, np.zeros(vectors[VIEW_NAMES[0]].shape[0], np.int64))

    @property
    def names(self) -> list[str]:
        """Whose each training clip is."""
        return [m.name for m in self.machines for _ in m.domains]

    @property
    def heard(self) -> dict[str, F32]:
        """Test clips of all of them, view → (Q, D)."""
        return {view: np.concatenate([m.heard[view] for m in self.machines]) for view in VIEW_NAMES}

    @property
    def is_anomaly(self) -> np.ndarray:
        """(Q,)."""
        return np.array([clip.label == "anomaly" for m in self.machines for clip in m.test])

    @property
    def tested(self) -> list[str]:
        """Whose each test clip is."""
        return [m.name for m in self.machines for _ in m.test]


@dataclass(frozen=True)
class Judged:
    """What one way of learning makes of the test clips."""

    scores: F32
    threshold: float
    right: float | None = None
    words: str = ""


def by_one(learned: LearnedMachine, heard: dict[str, F32]) -> Judged:
    return Judged(learned.fusion.score(heard), learned.calibration.threshold(DEFAULT_EXCEEDANCE))


def by_states(found: LearnedStates, mixture: Mixture, words: str = "") -> Judged:
    if not found.running:
        return by_one(found.machine, mixture.heard)
    scores = np.stack([state.learned.fusion.score(mixture.heard) for state in found.running], axis=1)
    names = np.array([state.name for state in found.running])[scores.argmin(axis=1)]
    right = float(np.mean(names == np.array(mixture.tested)))
    threshold = found.machine.calibration.threshold(DEFAULT_EXCEEDANCE)
    return Judged(np.asarray(scores.min(axis=1), np.float32), threshold, right, words)


def found_by_itself(mixture: Mixture) -> Judged:
    """As `enroll` does it without a word; says whether the states are the machines."""
    numbers = find_states(mixture.sound)
    count, own = int(numbers.max()) + 1, np.array(mixture.names)
    pure = [sum(np.unique(own[numbers == n], return_counts=True)[1].max() for n in range(count)), len(own)]
    words = f"{count} of {len(mixture.machines)} states, {pure[0]}/{pure[1]} clips with their own kind"
    found = learn_states(mixture.sound, names=[str(n) for n in numbers]) if count > 1 else None
    judged = by_one(learn(mixture.sound), mixture.heard) if found is None else by_states(found, mixture)
    return Judged(judged.scores, judged.threshold, None, words)


def alone(machines: tuple[DescribedMachine, ...]) -> tuple[F32, np.ndarray]:
    """Scores of each machine's test clips by itself, and the threshold that each of them has (Q,)."""
    scores, thresholds = [], []
    for machine in machines:
        own = Mixture((machine,))
        judged = by_one(learn(own.sound), machine.heard)
        scores.append(judged.scores)
        thresholds.append(np.full(len(judged.scores), judged.threshold))
    return np.concatenate(scores), np.concatenate(thresholds)


def scored(mixture: Mixture, scores: F32) -> list[ScoredClip]:
    clips = [clip for machine in mixture.machines for clip in machine.test]
    return [ScoredClip(clip, float(score)) for clip, score in zip(clips, scores, strict=True)]


def omega_of(mixture: Mixture, scores: F32) -> float:
    return 100 * omega(machine_results(scored(mixture, scores)))


def gain_interval(mixture: Mixture, scores: F32, over: F32, draws: int, seed: int) -> tuple[float, float]:
    """95 % of the gain of one way over another on the same draws of test clips."""
    both = resampled_scores([scored(mixture, own) for own in (scores, over)], np.random.default_rng(seed), draws)
    low, high = np.percentile(100 * (both[0] - both[1]), (2.5, 97.5))
    return float(low), float(high)


def line(mixture: Mixture, draws: int, seed: int) -> None:
    heard, ill = mixture.heard, mixture.is_anomaly
    own_scores, own_thresholds = alone(mixture.machines)
    named = learn_states(mixture.sound, names=mixture.names)
    ways = {
        "one bank": by_one(learn(mixture.sound), heard),
        "found": found_by_itself(mixture),
        "named": by_states(named, mixture),
    }
    print(f"\n{' + '.join(m.name for m in mixture.machines)}: {ways['found'].words}")
    for way in WAYS:
        scores = own_scores if way == "alone" else ways[way].scores
        threshold = own_thresholds if way == "alone" else ways[way].threshold
        over = scores > threshold
        low, high = (
            gain_interval(mixture, scores, ways["one bank"].scores, draws, seed) if way != "one bank" else (0, 0)
        )
        right = "" if way != "named" else f"  right {ways[way].right:.0%}"
        print(
            f"  {way:9s} Ω {omega_of(mixture, scores):5.1f}  gain {low:+5.1f} … {high:+5.1f}  false {over[~ill].sum()}/{(~ill).sum()}"
            f"  found {over[ill].sum()}/{ill.sum()}{right}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", help="a data set's root (repeatable)")
    parser.add_argument("--cache", type=Path, help="keep vectors here between runs")
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="*", default=[2, 3, 4], help="how many machines are mixed")
    arguments = parser.parse_args()
    for root in arguments.data or REAL_SETS:
        if not root.is_dir():
            print(f"skipped: there is no {root}", file=sys.stderr)
            continue
        machines = described_set(root, arguments.cache)
        print(f"\n{root.name}: each machine by itself is found to have", end=" ")
        print(", ".join(str(int(find_states(Mixture((m,)).sound).max()) + 1) for m in machines), "states")
        for size in arguments.sizes:
            for some in combinations(machines, size):
                line(Mixture(some), arguments.draws, arguments.seed)


if __name__ == "__main__":
    main()
