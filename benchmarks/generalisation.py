"""How right the views are on machines of a kind that nothing was picked on: one line a method, Ω, paired intervals, each machine.

usage: python benchmarks/generalisation.py [--data DIR ...] [--cache DIR] [--seed N] [--draws N]

Without --data: the real recordings beside the checkout; a folder that is not there is skipped with a word. A folder made by `asd-train
simulate` counts as simulated. Machines are learned from training clips alone and test clips are only scored. Where something is picked by
test clips it is picked on the other kinds of machine, and the kind left out is scored with it; a simulated fan is a fan.

*   known in hindsight: the line shows what this method can do, nobody could have known that it is the right one
!   picked on these very machines: an upper bound
!!  wins against the rule as shipped where it was picked, and not on the kinds left out
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
from described_machines import (  # noqa: E402
    EARLIER,
    MODULATION,
    SIMPLE,
    DescribedMachine,
    described_set,
    reference_of_moving_views,
    simple_scores,
)
from kinds_left_out import PICKS, Choice, KindsLeftOut  # noqa: E402
from learned_machines import LearnedMachine  # noqa: E402

from asd_daemon.judge.features.moving_views import MOVING_VIEWS  # noqa: E402
from asd_daemon.judge.features.steady_views import STEADY_VIEWS  # noqa: E402
from asd_daemon.judge.features.views import F32, VIEW_NAMES  # noqa: E402
from asd_trainer.evaluate.backend import ScoredClip  # noqa: E402
from asd_trainer.evaluate.bootstrap import interval, resampled_scores  # noqa: E402
from asd_trainer.evaluate.evaluation import machine_results, omega  # noqa: E402

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
REAL_SETS = (SHARED / "realbench", SHARED / "realbench2")
FIXED_FOUR = "four views, mean of cubes"
FOUR = ("steady-quiet", *EARLIER, MODULATION)
SHIPPED = "rule as shipped"
Scores = dict[tuple[str, str], F32]
"""Test scores (Q,) of each machine."""


def four_fixed(machine: LearnedMachine) -> F32:
    """Steady part, rhythm, loud percentiles and modulation, alike for all machines: the floor that was to be beaten."""
    spreads = np.stack([machine.spreads[view] for view in FOUR])
    return np.asarray(np.mean(np.maximum(spreads, 0) ** 3, axis=0) + 1e-3 * spreads.mean(axis=0), np.float32)


def simple(view: str, machine: LearnedMachine) -> F32:
    """A simple method."""
    return simple_scores(machine.described, view)


def alone(view: str, machine: LearnedMachine) -> F32:
    """One view."""
    return machine.spreads[view]


def mixed(share: float | None, softly: bool, machine: LearnedMachine) -> F32:
    """Both families, the moving one believed by a share, or (None) by the share that its contrast gives it."""
    believed = machine.shipped_share if share is None else share
    return machine.joined(tuple(STEADY_VIEWS), tuple(MOVING_VIEWS), believed, softly=softly)


def methods() -> dict[str, Callable[[LearnedMachine], F32]]:
    """Every line that picks nothing."""
    return {
        **{name: partial(simple, view) for name, view in SIMPLE.items()},
        FIXED_FOUR: four_fixed,
        **{f"view {view} *": partial(alone, view) for view in VIEW_NAMES},
        "steady family *": partial(mixed, 0.0, True),
        "moving family *": partial(mixed, 1.0, True),
        "half and half": partial(mixed, 0.5, False),
        "half and half, soft union": partial(mixed, 0.5, True),
        "rule, weighted mean for soft union": partial(mixed, None, False),
        SHIPPED: lambda machine: machine.shipped,
    }


def scored_clips(machines: list[DescribedMachine], scores: Mapping[tuple[str, str], F32]) -> list[ScoredClip]:
    """Scores with their clips."""
    return [ScoredClip(c, float(s)) for m in machines for c, s in zip(m.test, scores[m.key], strict=True)]


def figures(machines: list[DescribedMachine], scores: Mapping[tuple[str, str], F32]) -> tuple[float, dict[str, float]]:
    """Ω and each machine's harmonic mean, in percent."""
    results = machine_results(scored_clips(machines, scores))
    return 100 * omega(results), {name: 100 * omega({name: result}) for name, result in results.items()}


def table(machines: list[DescribedMachine], lines: dict[str, Scores], seed: int, draws: int) -> None:
    """Print the table of one data set."""
    found = {name: figures(machines, scores) for name, scores in lines.items()}
    drawn = dict(
        zip(
            lines,
            100
            * resampled_scores([scored_clips(machines, s) for s in lines.values()], np.random.default_rng(seed), draws),
            strict=True,
        )
    )
    best = max(SIMPLE, key=lambda name: found[name][0])
    names = [m.name for m in machines]
    print(
        f"\n{machines[0].data_set}; gains (95 %, paired) over the best simple method for all, {best}, and over the {FIXED_FOUR}"
    )
    print(
        f"{'method':44s} {'Ω':>5s} {'95 %':>11s} {'over simple':>13s} {'over four':>13s}  {' '.join(f'{n[:11]:>11s}' for n in names)}"
    )
    for name, (value, each) in found.items():
        spread = interval(drawn[name])
        gains = [interval(drawn[name] - drawn[other]) for other in (best, FIXED_FOUR)]
        words = " ".join(f"{gain.low:+5.1f} … {gain.high:+5.1f}" for gain in gains)
        row = " ".join(f"{each[n]:11.1f}" for n in names)
        print(
            f"{name + mark(name, found):44s} {value:5.1f} {spread.low:4.1f} … {spread.high:4.1f} {words}  {row}",
            flush=True,
        )
    simple = " ".join(f"{max(found[name][1][n] for name in SIMPLE):11.1f}" for n in names)
    print(f"{'best simple method, each *':44s} {'':45s}  {simple}")


def mark(name: str, found: dict[str, tuple[float, dict[str, float]]]) -> str:
    """Whether a line that was picked wins only where it was picked."""
    if name.endswith(", on others") and found[name][0] < found[SHIPPED][0] < found[picked_here(name)][0]:
        return " !!"
    return ""


def picked_here(name: str) -> str:
    """The line of the same choice, made on all machines."""
    return name.removesuffix(", on others") + ", here !"


def grouped(choices: Mapping[str, Choice]) -> dict[str, str]:
    """Each choice with the kinds that were left out when it was made."""
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for kind, choice in choices.items():
        kinds[str(choice)].append(kind)
    return {choice: ", ".join(of_choice) for choice, of_choice in kinds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", help="a data set's root (repeatable)")
    parser.add_argument("--cache", type=Path, help="keep vectors here between runs; empty it when a view changes")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws")
    arguments = parser.parse_args()
    machines: list[DescribedMachine] = []
    for root in arguments.data or REAL_SETS:
        if root.is_dir():
            machines += described_set(root, arguments.cache)
        else:
            print(f"skipped: there is no {root}", file=sys.stderr)
    if not machines:
        return
    reference = reference_of_moving_views(arguments.cache)
    learned = [LearnedMachine.of(machine, (*VIEW_NAMES, *FOUR[1:]), reference) for machine in machines]
    lines = {name: {m.described.key: score(m) for m in learned} for name, score in methods().items()}
    choices = KindsLeftOut(learned)
    notes = []
    for name, pick in PICKS.items():
        here, _ = choices.scores(pick, leave_out=False)
        there, words = choices.scores(pick, leave_out=True)
        lines |= {f"{name}, here !": here, f"{name}, on others": there}
        notes += [f"  {name}, without {kinds}: {choice}" for choice, kinds in grouped(words).items()]
    for data_set in dict.fromkeys(m.data_set for m in machines):
        table([m for m in machines if m.data_set == data_set], lines, arguments.seed, arguments.draws)
    print("\nmachine: contrast of movement, share of the moving family")
    for m in learned:
        print(f"  {m.described.data_set} {m.described.name}: {m.contrasts['moving-rhythm']:.2f}, {m.shipped_share:.2f}")
    print("what was picked on the other kinds:", *notes, sep="\n")


if __name__ == "__main__":
    main()
