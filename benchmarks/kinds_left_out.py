"""Choices made by test clips of some kinds of machine and scored on the kind left out.

Owns what can be picked (edges and shares of the gate, its evidence, subsets of views, how families are joined) and the picking: the choice
with the best mean logarithm of a machine's harmonic mean, over kinds; what is simulated weighs as much as two kinds together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from learned_machines import LearnedMachine
from numpy.typing import NDArray

from asd_daemon.judge.features.moving_views import MOVING_VIEWS
from asd_daemon.judge.features.steady_views import STEADY_VIEWS
from asd_daemon.judge.features.views import F32
from asd_daemon.learn.view_families import CONTRAST_VIEWS, LEAST_SHARE, MOST_SHARE
from asd_trainer.evaluate.evaluation import contrasts
from asd_trainer.evaluate.roc import area

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
SHARES = np.array([0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 1])
ALL_STEADY, ALL_MOVING = tuple(STEADY_VIEWS), tuple(MOVING_VIEWS)
STEADY_SUBSETS = [c for n in range(1, len(ALL_STEADY) + 1) for c in combinations(ALL_STEADY, n)]
MOVING_SUBSETS = [c for n in range(1, len(ALL_MOVING) + 1) for c in combinations(ALL_MOVING, n)]
LOW_EDGES, WIDTHS = np.arange(0.6, 3.3, 0.2), (0.4, 1.0, 2.0)
LEAST_SHARES, MOST_SHARES = (0.0, 0.1, 0.2, 0.35), (0.9, 0.98, 1.0)
SIMULATED_WEIGHT = 2.0
CLEAR_DIFFERENCE = 0.1  # of harmonic means, as fractions: one family is right and the other is not


@dataclass(frozen=True)
class Gate:
    """From evidence to the share of the moving family: a ramp, or (no evidence) the same for every machine."""

    evidence: str | None
    low: float = 0.0
    width: float = 1.0
    least: float = LEAST_SHARE
    most: float = MOST_SHARE

    def share(self, machine: LearnedMachine) -> float:
        """How far the moving family is believed."""
        if self.evidence is None:
            return self.least
        return ramp(machine.contrasts[self.evidence], self.low, self.width, self.least, self.most)


@dataclass(frozen=True)
class Pick:
    """What may be picked; everything else is as shipped."""

    evidence: tuple[str | None, ...] = CONTRAST_VIEWS
    steady: Sequence[tuple[str, ...]] = (ALL_STEADY,)
    moving: Sequence[tuple[str, ...]] = (ALL_MOVING,)
    softly: tuple[bool, ...] = (True,)
    middle_of_gap: bool = False
    """The edge lies half way between the kinds whose steady family is right and those whose moving one is; no figure decides more."""


PICKS = {
    "edge in the middle of the gap": Pick(middle_of_gap=True),
    "edges and shares": Pick(),
    "edges, shares, how families join": Pick(softly=(True, False)),
    "edges, shares, moving views": Pick(moving=MOVING_SUBSETS),
    "edges, shares, all views": Pick(steady=STEADY_SUBSETS, moving=MOVING_SUBSETS),
    "edges, shares, evidence": Pick(evidence=ALL_MOVING),
    "everything": Pick(ALL_MOVING, STEADY_SUBSETS, MOVING_SUBSETS, (True, False)),
    "one share for all machines": Pick(evidence=(None,)),
    "one share for all, all views": Pick((None,), STEADY_SUBSETS, MOVING_SUBSETS, (True, False)),
}


@dataclass(frozen=True)
class Choice:
    """What was picked."""

    gate: Gate
    steady: tuple[str, ...] = ALL_STEADY
    moving: tuple[str, ...] = ALL_MOVING
    softly: bool = True

    def scores(self, machine: LearnedMachine) -> F32:
        """What it makes of a machine's test clips, (Q,)."""
        return machine.joined(self.steady, self.moving, self.gate.share(machine), softly=self.softly)

    def __str__(self) -> str:
        own = self.gate
        words = f"{own.least:.2f}" if own.evidence is None else f"{own.least:.2f} to {own.most:.2f}"
        edges = "" if own.evidence is None else f" of {own.evidence} {own.low:.1f} to {own.low + own.width:.1f}"
        views = [name.split("-")[1] for name in (*self.steady, *self.moving)]
        named = "all views" if len(views) == len(ALL_STEADY) + len(ALL_MOVING) else "+".join(views)
        return f"share {words}{edges}; {named}; {'soft union' if self.softly else 'mean'}"


class KindsLeftOut:
    """Picks for every kind of machine by the others; what is measured once serves all picks."""

    def __init__(self, machines: Sequence[LearnedMachine]) -> None:
        self.machines = machines
        self._measured: dict[tuple[tuple[str, ...], tuple[str, ...], bool], F64] = {}

    def scores(self, pick: Pick, *, leave_out: bool) -> tuple[dict[tuple[str, str], F32], dict[str, Choice]]:
        """Every machine's test scores and each kind's choice; without `leave_out` the choice is made on all machines."""
        found: dict[tuple[str, str], F32] = {}
        choices: dict[str, Choice] = {}
        for kind in dict.fromkeys(m.described.kind for m in self.machines):
            used = [n for n, m in enumerate(self.machines) if not leave_out or m.described.kind != kind]
            choices[kind] = self._middle(used) if pick.middle_of_gap else self._best(pick, used)
            found |= {m.described.key: choices[kind].scores(m) for m in self.machines if m.described.kind == kind}
        return found, choices

    def _best(self, pick: Pick, used: Sequence[int]) -> Choice:
        gates = [gate for evidence in pick.evidence for gate in gates_of(evidence)]
        rows = np.array([[np.abs(SHARES - g.share(self.machines[n])).argmin() for n in used] for g in gates])  # (G, K)
        weights = self._weights(used)
        best = (-np.inf, Choice(gates[0]))
        for steady, moving, softly in product(pick.steady, pick.moving, pick.softly):
            logs = np.log(self._means(steady, moving, softly)[used])  # (K, SHARES)
            means = logs[np.arange(len(used)), rows] @ weights  # (G,)
            ties = np.flatnonzero(means >= means.max() - 1e-12)
            own = int(ties[len(ties) // 2])  # where many gates are as good, one from their middle
            if means[own] > best[0]:
                best = (float(means[own]), Choice(gates[own], steady, moving, softly))
        return best[1]

    def _middle(self, used: Sequence[int]) -> Choice:
        """The gate between recorded machines; simulated ones where no others tell."""
        means = self._means(ALL_STEADY, ALL_MOVING, True)
        real = [n for n in used if not self.machines[n].described.is_simulated]
        [evidence] = CONTRAST_VIEWS
        gains = {n: means[n, -1] - means[n, 0] for n in real or used}
        steady = [self.machines[n].contrasts[evidence] for n, gain in gains.items() if gain < -CLEAR_DIFFERENCE]
        moving = [self.machines[n].contrasts[evidence] for n, gain in gains.items() if gain > CLEAR_DIFFERENCE]
        if not (steady and moving):
            return Choice(Gate(evidence, low=2.0))  # one kind alone shows no gap
        return Choice(Gate(evidence, low=(max(steady) + min(moving)) / 2 - 0.5))

    def _weights(self, used: Sequence[int]) -> F64:
        """Of each machine in a mean over kinds, (K,)."""
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for place, n in enumerate(used):
            described = self.machines[n].described
            groups["simulated" if described.is_simulated else described.kind].append(place)
        weights = np.zeros(len(used))
        for name, places in groups.items():
            weights[places] = (SIMULATED_WEIGHT if name == "simulated" else 1.0) / len(places)
        return np.asarray(weights / weights.sum(), np.float64)

    def _means(self, steady: tuple[str, ...], moving: tuple[str, ...], softly: bool) -> F64:
        """Harmonic mean of each machine's figures by share of the moving family, (machines, SHARES)."""
        key = (steady, moving, softly)
        if key not in self._measured:
            shares = [float(share) for share in SHARES]
            rows = [[harmonic(m, m.joined(steady, moving, s, softly=softly)) for s in shares] for m in self.machines]
            self._measured[key] = np.array(rows)
        return self._measured[key]


def gates_of(evidence: str | None) -> list[Gate]:
    """Every gate that can be picked with an evidence; without any, every share."""
    if evidence is None:
        return [Gate(None, least=float(share)) for share in SHARES]
    grid = product(LOW_EDGES, WIDTHS, LEAST_SHARES, MOST_SHARES)
    return [Gate(evidence, float(low), width, least, most) for low, width, least, most in grid]


def ramp(contrast: float, low: float, width: float, least: float, most: float) -> float:
    """From the least share to the most while the contrast crosses the gate."""
    return float(least + (most - least) * np.clip((contrast - low) / width, 0, 1))


def harmonic(machine: LearnedMachine, scores: F32) -> float:
    """Harmonic mean of a machine's AUCs and pAUC, as a fraction."""
    found = contrasts(machine.described.test).values()
    areas = [area(np.asarray(scores, np.float64), one.normal, one.anomalous, one.max_fpr) for one in found]
    return float(len(areas) / np.sum([1 / max(a, 1e-6) for a in areas]))
