"""False alarms while a fork lift passes a machine, with one microphone and with two. Prints a table.

    python benchmarks/fork_lift.py

Each simulated machine is learned in a hall as loud as itself, give or take 5 dB, with calm minutes; then a fork lift passes by for two
minutes, 8 to 20 dB louder than the machine, and its alarm opens after two of three windows above the provisional threshold of one
false alarm a week. Fork lifts are vehicles of the simulator that drive through the hall; two seeds.

normal, failing   windows without a fork lift: above the threshold of so many, failing ones of half to full severity
fork lift         normal windows while it passes: above the threshold, and alerts that open
hall              as with two microphones, windows that the hall drowns left out; and how many those are
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from halls import Plan, clips, crosstalk_of, described, simulated

from asd_daemon.hear.simulator import MACHINES, SimulatedMachine, render_noise
from asd_daemon.hear.simulator.scene import DOMAINS
from asd_daemon.hear.simulator.two_microphones import TwoMicrophones, draw_two_microphones, hear_in_hall
from asd_daemon.judge.hall.cancelling import without_hall
from asd_daemon.judge.hall.usual_hall import UsualHall
from asd_daemon.judge.scoring.scorer import DEFAULT_EXCEEDANCE
from asd_daemon.learn.learning import learn
from asd_daemon.learn.normal_sound import NormalSound

SEEDS = (1, 2)
PASSINGS, WINDOWS = 2, 12
LIFT_DB = (-20.0, -8.0)


@dataclass
class Counts:
    """Of windows above the threshold, and alerts."""

    above: dict[str, int] = field(default_factory=dict)
    of: dict[str, int] = field(default_factory=dict)

    def add(self, what: str, above: int, of: int) -> None:
        self.above[what] = self.above.get(what, 0) + above
        self.of[what] = self.of.get(what, 0) + of

    def words(self, what: str) -> str:
        return f"{self.above.get(what, 0)}/{self.of.get(what, 0)}"


def alerts(above: Sequence[bool]) -> int:
    """How many open: two of the last three windows, one at a time until three in a row are quiet."""
    opened, is_open, recent = 0, False, [False] * 3
    for one in above:
        recent = [*recent[1:], one]
        if not is_open and sum(recent) >= 2:
            opened, is_open = opened + 1, True
        elif is_open and not any(recent):
            is_open = False
    return opened


def passing(machine: str, rng: np.random.Generator, places: TwoMicrophones) -> list[np.ndarray]:
    """Windows (160 000, 2) of two minutes in which a fork lift drives through the hall."""
    unit, place = SimulatedMachine(machine), DOMAINS[machine]["source"]
    level_db, found = float(rng.uniform(*LIFT_DB)), []
    lift = draw_two_microphones(rng, 1, moving=1)
    where = replace(lift, hall=places.hall, machine_m=places.machine_m, near_m=places.near_m, far_m=places.far_m)
    where = replace(where, crosstalk_db=places.crosstalk_db, far_gain_db=places.far_gain_db)
    for n in range(WINDOWS):
        own = unit.render(10, rng, place.settings[int(rng.integers(len(place.settings)))])
        usual = hear_in_hall(places, own, [render_noise(str(rng.choice(place.noises)), 10, rng)])
        loud = hear_in_hall(where, own, [render_noise("vehicles", 10, rng)]).mixed(
            level_db + 3 * np.sin(np.pi * n / WINDOWS)
        )
        found.append(usual.mixed(float(rng.uniform(-5, 5))).both + loud.noise)
    return found


def judged(machine: str, seed: int) -> Counts:
    rng = np.random.default_rng([seed, MACHINES.index(machine), 7])
    plan, counts = Plan((48, 0), (20, 0), (20, 0)), Counts()
    found = clips(simulated(machine), rng, plan)
    places = draw_two_microphones(np.random.default_rng([seed, MACHINES.index(machine), 7]), 2)  # the same hall
    windows = [clip.at(0.0).both for clip in found]
    train = [clip.split == "train" for clip in found]
    crosstalk = crosstalk_of([window for window, learned in zip(windows, train, strict=True) if learned])
    streams = [passing(machine, rng, places) for _ in range(PASSINGS)]

    def both(window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.ascontiguousarray(window[:, 0]), np.ascontiguousarray(window[:, 1])

    cleaned = [without_hall(*both(window), crosstalk) for window in windows]
    usual = UsualHall.of([one for one, learned in zip(cleaned, train, strict=True) if learned])
    for way in ("one", "two"):
        vectors = [
            described(one.sound if way == "two" else both(window)[0])
            for one, window in zip(cleaned, windows, strict=True)
        ]
        rows = [own for own, learned in zip(vectors, train, strict=True) if learned]
        learned = learn(NormalSound.from_windows([(own, {}) for own in rows]))
        threshold = learned.calibration.threshold(DEFAULT_EXCEEDANCE)

        def score(own, fusion=learned.fusion):
            return float(fusion.score({view: x[None, 0] for view, x in own.items()})[0])

        for clip, own in zip(found, vectors, strict=True):
            if clip.split == "test":
                counts.add(f"{way} {'failing' if clip.anomalous else 'normal'}", score(own) > threshold, 1)
        for stream in streams:
            heard = [without_hall(*both(window), crosstalk) for window in stream]
            sounds = [one.sound if way == "two" else both(window)[0] for one, window in zip(heard, stream, strict=True)]
            above = [score(described(sound)) > threshold for sound in sounds]
            counts.add(f"{way} lift", sum(above), len(above))
            counts.add(f"{way} alerts", alerts(above), 1)
            if way == "two":
                drowned = [usual.is_drowned_by(one.hall_dbfs) for one in heard]
                left = [one for one, out in zip(above, drowned, strict=True) if not out]
                counts.add("hall lift", sum(left), len(left))
                counts.add("hall alerts", alerts(left), 1)
                counts.add("hall drowned", sum(drowned), len(drowned))
    return counts


def main() -> None:
    columns = (
        "one normal",
        "two normal",
        "one failing",
        "two failing",
        "one lift",
        "two lift",
        "hall lift",
        "hall drowned",
        "one alerts",
        "two alerts",
        "hall alerts",
    )
    print(f"{'machine':10s}" + "".join(f"{column:>13s}" for column in columns))
    total = Counts()
    for machine in MACHINES:
        own = Counts()
        for seed in SEEDS:
            found = judged(machine, seed)
            for what, of in found.of.items():
                own.add(what, found.above[what], of)
                total.add(what, found.above[what], of)
        print(f"{machine:10s}" + "".join(f"{own.words(column):>13s}" for column in columns), flush=True)
    print(f"{'all':10s}" + "".join(f"{total.words(column):>13s}" for column in columns))


if __name__ == "__main__":
    main()
