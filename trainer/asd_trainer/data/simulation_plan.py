"""What a simulated data set holds: its parameters, every clip's name, setting and failure, and the table of attributes.

Owns the names and numbers of the DCASE 2025 layout; it makes no sound and writes no file (simulation.py does).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from asd_daemon.errors import UsageError
from asd_daemon.hear.simulator import MACHINES, SHORTEST_S, SimulatedMachine
from asd_daemon.hear.simulator.machine import stable_seed
from asd_daemon.hear.simulator.scene import DOMAINS, SNR_DB, DomainName
from asd_daemon.waveform import WINDOW_S

WITHOUT_ATTRIBUTES = ("ToyTrain", "bearing", "slider")  # as in the 2025 development set
CLEAN_MACHINES = (
    "fan",
    "gearbox",
    "slider",
    "ToyCar",
)  # supplemental clips of the machine alone; the others: of the noise alone
SEVERITY = (0.4, 1.0)
SIMULATION_NOTE = "simulation.json"  # beside the machines; figures of such clips are not set beside published ones

Split = Literal["train", "test", "supplemental"]
Alone = Literal["machine", "noise"]


@dataclass(frozen=True)
class SimulationPlan:
    """What a simulated data set holds; the defaults are the sizes of the challenge."""

    machines: tuple[str, ...] = MACHINES
    source_train: int = 990
    target_train: int = 10
    test: int = 50
    """Clips of each domain and condition: four times as many in all."""
    supplemental: int = 100
    supplement: Literal["either", "both"] = "either"
    """What supplemental clips hold alone: of some machines the machine and of others their noise, as in the challenge, or by turns both of
    every machine."""
    seconds: float = WINDOW_S
    source_snr_db: tuple[float, float] = SNR_DB["source"]
    target_snr_db: tuple[float, float] = SNR_DB["target"]
    severity: tuple[float, float] = SEVERITY
    """Range that the severity of anomalous clips is drawn from, in (0, 1]."""
    seed: int = 0
    serial: int = 0
    """Which unit of each machine is section 00."""
    sections: int = 1
    """Units of each machine; section 01 is the unit after section 00's. All sizes are of one section."""

    def check(self) -> None:
        """Refuse what can't be made.

        Raises:
            UsageError: names the parameter, its value and what is allowed.
        """
        if not self.machines:
            raise UsageError("no machine to simulate: name at least one")
        for machine in self.machines:
            if machine not in MACHINES:
                raise UsageError(f"machine {machine!r} can't be simulated: use one of {', '.join(MACHINES)}")
        for name in ("source_train", "target_train", "test", "supplemental", "seed", "serial"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}: give 0 or more")
        if self.supplement not in ("either", "both"):
            raise UsageError(f"supplement is {self.supplement!r}: give either or both")
        if not 1 <= self.sections <= 100:
            raise UsageError(f"sections is {self.sections}: give 1 to 100")
        if not SHORTEST_S <= self.seconds < float("inf"):
            raise UsageError(f"seconds is {self.seconds}: give {SHORTEST_S} or more")
        for name in ("source_snr_db", "target_snr_db", "severity"):
            low, high = getattr(self, name)
            if not low <= high:
                raise UsageError(f"{name} is {low} to {high}: give the lower bound first")
        if not 0 < self.severity[0] <= self.severity[1] <= 1:
            raise UsageError(f"severity is {self.severity[0]} to {self.severity[1]}: keep it within (0, 1]")


SMOKE = SimulationPlan(source_train=96, target_train=8, test=10, supplemental=20)


@dataclass(frozen=True)
class PlannedClip:
    """One file of the set: where it lies and what is heard on it."""

    machine: str
    section: int
    split: Split
    name: str
    domain: DomainName
    setting: Mapping[str, str]
    failure: str | None
    severity: float
    seed: tuple[int, ...]
    alone: Alone | None = None
    """What a supplemental clip holds."""

    @property
    def relative(self) -> str:
        """Path below dev_data/raw, with slashes."""
        return f"{self.machine}/{self.split}/{self.name}"


def plan_clips(plan: SimulationPlan, machine: str) -> Iterator[PlannedClip]:
    """Every file of one machine, in the order in which the set lists them."""
    for section in range(plan.sections):
        yield from plan_section(plan, machine, section)


def plan_section(plan: SimulationPlan, machine: str, section: int) -> Iterator[PlannedClip]:
    """Every file of one unit."""
    train: tuple[tuple[DomainName, int], ...] = (("source", plan.source_train), ("target", plan.target_train))
    for domain, count in train:
        for number in range(count):
            yield _planned(plan, machine, section, "train", domain, number)
    domains: tuple[DomainName, ...] = ("source", "target")
    for domain in domains:
        for anomalous in (False, True):
            for number in range(plan.test):
                yield _planned(plan, machine, section, "test", domain, number, anomalous)
    for number in range(plan.supplemental):
        yield _planned(plan, machine, section, "supplemental", "source", number)


def _planned(
    plan: SimulationPlan,
    machine: str,
    section: int,
    split: Split,
    domain: DomainName,
    number: int,
    anomalous: bool = False,
) -> PlannedClip:
    """One file: settings and failures go round, so that few clips still hold all of them; the rest is chance."""
    settings = DOMAINS[machine][domain].settings
    order = np.random.default_rng([plan.seed, *stable_seed("settings", machine, domain)]).permutation(len(settings))
    setting = settings[int(order[number % len(settings)])]
    label = "anomaly" if anomalous else "normal"
    seed = (plan.seed, *stable_seed("clip", machine, plan.serial + section, split, domain, label, number))
    failures = SimulatedMachine(machine, plan.serial + section).failures
    severity = float(np.random.default_rng([*seed, 1]).uniform(*plan.severity))
    words = "_".join(f"{name}_{value}" for name, value in setting.items())
    if machine in WITHOUT_ATTRIBUTES:
        words = "noAttribute"
    alone: Alone | None = None
    if split == "supplemental":
        alone = _alone(plan, machine, number)
        name = f"section_{section:02d}_{alone}_{number + 1:04d}_{words if alone == 'machine' else ''}.wav"
    else:
        name = f"section_{section:02d}_{domain}_{split}_{label}_{number:04d}_{words}.wav"
    return PlannedClip(
        machine=machine,
        section=section,
        split=split,
        name=name,
        domain=domain,
        setting=setting,
        failure=failures[number % len(failures)] if anomalous else None,
        severity=severity if anomalous else 0.0,
        seed=seed,
        alone=alone,
    )


def _alone(plan: SimulationPlan, machine: str, number: int) -> Alone:
    if plan.supplement == "both":
        return "noise" if number % 2 else "machine"
    return "machine" if machine in CLEAN_MACHINES else "noise"


def attributes_csv(plan: SimulationPlan, machine: str, section: int = 0) -> str:
    """One section's table: file_name, then name and value of each attribute in turn; one empty pair where there are none."""
    names = tuple(SimulatedMachine(machine).attributes)
    hidden = machine in WITHOUT_ATTRIBUTES
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = range(1, 2 if hidden else len(names) + 1)
    writer.writerow(["file_name", *(f"d{i}{kind}" for i in columns for kind in "pv")])
    for clip in plan_section(plan, machine, section):
        pairs = [word for name in names for word in (name, clip.setting[name])]
        if hidden:
            pairs = ["noAttribute", ""]
        elif clip.alone == "noise":
            pairs = [""] * len(pairs)
        writer.writerow([clip.relative, *pairs])
    return text.getvalue()
