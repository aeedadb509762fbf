"""The provisional threshold on kinds of machine that it does not know: healthy windows flagged, failing ones found. Prints the table.

usage: python benchmarks/provisional.py [--data DIR ...] [--cache DIR] [--windows N ...] [--draws N] [--budget B]

Without --data: the real recordings beside the checkout. How later windows of other machines score (`LaterWindows`) is estimated without
the machine's kind, from the test clips in good order of the other kinds of real machines: medians over kinds of the mean above that of the
held-out windows, and of the standard deviation. (Simulated machines have no other day.) A simulated fan is a fan. Machines are learned from
all training clips, and from random draws of so many.

budget    the threshold exactly for the budget; `learning` is the one that a daemon begins with, which spends a week's budget in a day
3 minutes  the share of spells of 18 windows, drawn from a machine's test clips, in which an alert opens (2 of 3); mean over machines
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
from described_machines import DescribedMachine, described_set  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from asd_daemon.judge.features.views import VIEW_NAMES  # noqa: E402
from asd_daemon.judge.thresholds.calibration import (  # noqa: E402
    calibrate_fused,
    provisional_exceedance,
    window_exceedance,
)
from asd_daemon.judge.thresholds.later_windows import OTHER_MACHINES, LaterWindows  # noqa: E402
from asd_daemon.learn.learning import learn  # noqa: E402
from asd_daemon.learn.normal_sound import NormalSound  # noqa: E402

F32 = NDArray[np.float32]
SHARED = Path(__file__).resolve().parents[1].parent / "shared"
REAL_SETS = (SHARED / "realbench", SHARED / "realbench2")
SPELL, SPELLS = 18, 400


@dataclass(frozen=True)
class Learned:
    """A machine learned from some of its training clips, and what its test clips score."""

    machine: DescribedMachine
    held_out: F32
    normal: F32
    failing: F32


def learned_from(machine: DescribedMachine, rows: NDArray[np.int64]) -> Learned:
    """Learn a machine from the training clips at these positions, as a box does: one domain."""
    vectors = {view: machine.train[view][rows] for view in VIEW_NAMES}
    learned = learn(NormalSound(vectors, {}, np.zeros(len(rows), np.int64)))
    scores = learned.fusion.score({view: machine.heard[view] for view in VIEW_NAMES})
    is_failing = np.array([clip.label == "anomaly" for clip in machine.test])
    return Learned(machine, learned.held_out, scores[~is_failing], scores[is_failing])


def estimated(learned: Iterable[Learned]) -> LaterWindows:
    """How later windows of those machines score that are real; each kind counts once."""
    shifts: dict[str, list[float]] = {}
    variances: dict[str, list[float]] = {}
    for one in learned:
        if one.machine.is_simulated:
            continue
        shifts.setdefault(one.machine.kind, []).append(float(one.normal.mean() - one.held_out.mean()))
        variances.setdefault(one.machine.kind, []).append(float(one.normal.var(ddof=1)))
    shift = float(np.median([np.mean(own) for own in shifts.values()]))
    spread = float(np.median([np.sqrt(np.mean(own)) for own in variances.values()]))
    return LaterWindows(shift, spread, OTHER_MACHINES.worth)


def alerted(scores: F32, threshold: float, rng: np.random.Generator) -> float:
    """Share of spells of windows in which two of three in a row lie above a threshold."""
    above = rng.choice(scores, (SPELLS, SPELL)) > threshold
    return float((above[:, :-2].astype(int) + above[:, 1:-1] + above[:, 2:] >= 2).any(axis=1).mean())


def share(flagged: Sequence[NDArray[np.bool_]]) -> str:
    """Counts, and the 95 % interval of the share, in %, over bootstraps of windows within machines."""
    rng = np.random.default_rng(0)
    drawn = [[rng.choice(own, own.size).sum() for own in flagged] for _ in range(1000)]
    total = sum(own.size for own in flagged)
    low, high = 100 * np.quantile(np.sum(drawn, axis=1) / total, (0.025, 0.975))
    hits = sum(int(own.sum()) for own in flagged)
    return f"{hits:5d}/{total:<5d} {100 * hits / total:5.1f} % [{low:.1f}, {high:.1f}]"


def report(title: str, tried: Sequence[Learned], left_out: dict[str, LaterWindows], budget: float, each: bool) -> None:
    """Print what the thresholds flag and find."""
    for name, exceedance in (
        ("budget", window_exceedance(budget, 2, 3, 10)),
        ("learning", provisional_exceedance(budget, 2, 3, 10)),
    ):
        rng = np.random.default_rng(1)
        limits = [calibrate_fused(o.held_out, left_out[o.machine.kind]).threshold(exceedance) for o in tried]
        spells = [
            [
                alerted(scores, limit, rng)
                for o, limit in zip(tried, limits, strict=True)
                for scores in (getattr(o, of),)
            ]
            for of in ("normal", "failing")
        ]
        flagged = share([o.normal > limit for o, limit in zip(tried, limits, strict=True)])
        found = share([o.failing > limit for o, limit in zip(tried, limits, strict=True)])
        minutes = " / ".join(f"{100 * np.mean(own):.0f} %" for own in spells)
        print(f"{title:22s} {name:9s} healthy {flagged} | failing {found} | 3 minutes {minutes}", flush=True)
        for o, limit in zip(tried, limits, strict=True) if each else ():
            print(
                f"    {o.machine.data_set:10s} {o.machine.name:12s} {o.held_out.size:4d} windows, threshold {limit:.2f}:"
                f" {(o.normal > limit).sum()}/{o.normal.size} healthy, {(o.failing > limit).sum()}/{o.failing.size} failing;"
                f" alert within 3 minutes {100 * alerted(o.failing, limit, rng):.0f} % of failing spells"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", help="a data set's root (repeatable)")
    parser.add_argument("--cache", type=Path, help="folder for vectors, kept between runs")
    parser.add_argument("--windows", type=int, action="append", help="draws of so many training clips (repeatable)")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--budget", type=float, default=1.0, help="false alarms a week")
    arguments = parser.parse_args()
    roots = [root for root in arguments.data or REAL_SETS if root.is_dir()]
    machines = [m for root in roots for m in described_set(root, arguments.cache)]
    if not machines:
        sys.exit("no data: name a data set's root with --data")
    whole = [learned_from(m, np.arange(len(m.domains))) for m in machines]
    kinds = sorted({m.kind for m in machines})
    left_out = {kind: estimated([o for o in whole if o.machine.kind != kind]) for kind in kinds}
    print(
        "estimated without each kind: " + ", ".join(f"{k} {v.shift:.2f}, {v.spread:.2f}" for k, v in left_out.items())
    )
    print(f"with all of them {estimated(whole)}; the program has {OTHER_MACHINES}")
    groups = {
        "real": [o for o in whole if not o.machine.is_simulated],
        "simulated": [o for o in whole if o.machine.is_simulated],
    }
    for name, own in groups.items():
        if own:
            report(f"{name}, all clips", own, left_out, arguments.budget, each=True)
    for count in arguments.windows or (16, 20, 30, 60):
        for name, own in groups.items():
            drawn = [
                learned_from(
                    o.machine, np.sort(np.random.default_rng([count, n]).permutation(len(o.machine.domains))[:count])
                )
                for o in own
                if len(o.machine.domains) > count
                for n in range(arguments.draws)
            ]
            if drawn:
                report(f"{name}, {count} clips", drawn, left_out, arguments.budget, each=False)


if __name__ == "__main__":
    main()
