"""Whether an alert names what has changed: each failure of each simulated machine, told by the daemon's own rules. Prints a table.

usage: python benchmarks/words.py [--tuned 0 1 2 3] [--reported 10 11 12 13 14] [--noise own|other] [--severity 1.0] [--machine NAME ...]
       [--sounds DIR]

A unit is a simulated machine of its own geometry in its own place (settings, noise and its loudness by chance). 26 normal windows are
remembered, then three windows of a fresh run with the failure are described. A kind counts as right if it is one of those that the
physics of the failure allows (`RIGHT`, from what the simulator says of each failure); only the first word counts. A rate is right if it
is within 3 % of one that the unit's kinematics promise (with a run's speed, 1 %). The rules were fitted to the units of --tuned; the
others were only measured. `false` is how many of eight held-out normal windows a unit are said to have changed at all, with 18 remembered.
--noise other puts the machine into the noise of its other domain. --sounds keeps what was rendered, which takes a minute a unit.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.hear.simulator import SimulatedMachine
from asd_daemon.hear.simulator.scene import DOMAINS, SceneStream, draw_scene
from asd_daemon.judge.features.change import Change
from asd_daemon.judge.features.recent_summaries import RecentSummaries
from asd_daemon.tell.change_words import change_text
from asd_daemon.waveform import WINDOW_SAMPLES

NORMAL, FAILING, REMEMBERED = 26, 3, 18
RIGHT = {  # kinds, then rates of the unit by which blows or pulses may come
    ("fan", "unbalance"): ("pulsing tone", "shaft"),
    ("fan", "blade_chip"): ("pulsing hiss", "shaft"),
    ("fan", "rubbing"): ("knocks hiss", "shaft"),
    ("gearbox", "tooth_damage"): ("knocks", "second_shaft"),
    ("gearbox", "wear"): ("hiss tone", ""),
    ("gearbox", "misalignment"): ("pulsing", "shaft second_shaft third_shaft"),
    ("bearing", "outer_race"): ("knocks", "outer_race"),
    ("bearing", "inner_race"): ("knocks", "inner_race shaft"),
    ("bearing", "ball"): ("knocks", "ball cage"),
    ("slider", "no_grease"): ("hiss", ""),
    ("slider", "rail_damage"): ("knocks", ""),
    ("valve", "leak"): ("hiss", ""),
    ("valve", "sticking"): ("knocks strokes", "cycle"),
    ("valve", "contamination"): ("duller strokes", ""),
    ("ToyCar", "bent_shaft"): ("pulsing knocks", "wheel"),
    ("ToyCar", "damaged_gear"): ("knocks", "wheel"),
    ("ToyCar", "deformed_tyre"): ("pulsing hiss louder", "wheel"),
    ("ToyTrain", "flat_wheel"): ("knocks", "wheel"),
    ("ToyTrain", "broken_shaft"): ("knocks", ""),
    ("ToyTrain", "dislocated_rail"): ("knocks", ""),
}

Sounds = dict[str, NDArray[np.int16]]


def rendered(name: str, serial: int, noise: str, severity: float, folder: Path | None) -> Sounds:
    """Normal and failing windows of a unit, as 16 bit; from the folder where they lie there already."""
    file = folder and folder / f"{name}_{serial}_{noise}_{severity:g}.npz"
    if file and file.exists():
        with np.load(file) as kept:
            return dict(kept)
    unit, rng = SimulatedMachine(name, serial), np.random.default_rng([serial, len(name)])
    scene = draw_scene(DOMAINS[name]["source"], rng)
    if noise == "other":
        scene = replace(scene, noise=DOMAINS[name]["target"].noises[0])
    stream = SceneStream(unit, scene, rng)
    sounds = {"normal": np.stack([_as_16_bit(stream.read(WINDOW_SAMPLES)) for _ in range(NORMAL)])}
    for failure in unit.failures:
        stream = SceneStream(unit, scene, rng)
        stream.fail(failure, severity)
        sounds[failure] = np.stack([_as_16_bit(stream.read(WINDOW_SAMPLES)) for _ in range(FAILING)])
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, allow_pickle=False, **sounds)
    return sounds


def _as_16_bit(sound: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.asarray(np.clip(sound, -1, 1) * 32767, np.int16)


def remembered(windows: NDArray[np.int16]) -> RecentSummaries:
    memory = RecentSummaries(every=1)
    for window in windows:
        memory.add(window.astype(np.float32) / 32767)
    return memory


def described(memory: RecentSummaries, windows: NDArray[np.int16]) -> Iterator[tuple[Change, ...]]:
    for window in windows:
        yield memory.changes(window.astype(np.float32) / 32767) or ()


def is_rate_right(change: Change, rates_hz: list[float]) -> bool:
    told = [hz for hz in (change.rate_hz, change.swell_hz) if hz is not None]
    return any(abs(hz - rate_hz) <= 0.03 * rate_hz + 0.05 for hz in told for rate_hz in rates_hz)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuned", type=int, nargs="*", default=[0, 1, 2, 3])
    parser.add_argument("--reported", type=int, nargs="*", default=[10, 11, 12, 13, 14])
    parser.add_argument("--machine", nargs="+", default=sorted({name for name, _ in RIGHT}))
    parser.add_argument("--noise", choices=("own", "other"), default="own")
    parser.add_argument("--severity", type=float, default=1.0)
    parser.add_argument("--sounds", type=Path)
    arguments = parser.parse_args()
    for title, serials in (("units the rules were fitted to", arguments.tuned), ("other units", arguments.reported)):
        if serials:
            table(title, serials, arguments)


def table(title: str, serials: list[int], arguments: argparse.Namespace) -> None:
    first: dict[tuple[str, str], Counter[str]] = {}
    right, rate, examples = Counter(), Counter(), {}
    false, normal = Counter(), 0
    for name in arguments.machine:
        for serial in serials:
            sounds = rendered(name, serial, arguments.noise, arguments.severity, arguments.sounds)
            print(f"{name} {serial}", file=sys.stderr)
            rates_hz = SimulatedMachine(name, serial).rates_hz(_setting(name, serial))
            memory = remembered(sounds["normal"])
            for failure in (f for n, f in RIGHT if n == name):
                kinds, wanted = RIGHT[name, failure]
                for changes in described(memory, sounds[failure]):
                    told = changes[0].kind.value if changes else "nothing"
                    first.setdefault((name, failure), Counter())[told] += 1
                    right[name, failure] += told in kinds.split()
                    if changes and wanted and changes[0].rate_hz and told != "strokes":
                        rate[name, failure, is_rate_right(changes[0], [rates_hz[w] for w in wanted.split()])] += 1
                    examples.setdefault((name, failure), change_text(changes))
            for changes in described(remembered(sounds["normal"][:REMEMBERED]), sounds["normal"][REMEMBERED:]):
                normal += 1
                false.update([f"{name}: {changes[0].kind.value}"] if changes else [])
    total = sum(sum(counted.values()) for counted in first.values())
    print(
        f"\n{title}: serials {' '.join(map(str, serials))}, {arguments.noise} noise, severity {arguments.severity:g}\n"
    )
    print("| machine | failure | first word right | rate right | first words | an example |\n|---|---|---|---|---|---|")
    for (name, failure), counted in first.items():
        good, told = rate[name, failure, True], rate[name, failure, True] + rate[name, failure, False]
        words = ", ".join(f"{kind} {times}" for kind, times in counted.most_common())
        share = f"{right[name, failure]} of {sum(counted.values())}"
        rates = f"{good} of {told}" if told else ""
        print(f"| {name} | {failure} | {share} | {rates} | {words} | {examples[name, failure]} |")
    rates_right = sum(times for (_, _, is_right), times in rate.items() if is_right)
    print(f"\nfirst word right: {sum(right.values())} of {total} ({sum(right.values()) / total:.1%})")
    print(f"rate right where one is told and known: {rates_right} of {sum(rate.values())}")
    print(f"false words on held-out normal windows: {sum(false.values())} of {normal} {dict(false) or ''}")


def _setting(name: str, serial: int) -> dict[str, str]:
    scene = draw_scene(DOMAINS[name]["source"], np.random.default_rng([serial, len(name)]))
    return dict(scene.attributes)


if __name__ == "__main__":
    main()
