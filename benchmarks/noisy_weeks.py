"""Weeks of sound of the seven simulated machines in noise that changes by hour and day, as scores for benchmarks/thresholds.py.

usage: python benchmarks/noisy_weeks.py --to DIR [--days N] [--per-hour N]; then python benchmarks/thresholds.py --scores DIR

A box that hears some windows of 10 s in each hour: a machine is enrolled from 120 windows in a row of a working hour and runs on in its
place; the noise is louder or softer by shift (±2 dB), day and hour (each a deviation of 1 dB). Windows of the weeks are pairs of 120
further windows of the machine and 120 of the noise. What each failure scores at severity 1 is kept too. After every day the scores so far
are written; a run that was stopped begins anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.hear.simulator.mechanics import gain, limit
from asd_daemon.hear.simulator.scene import DOMAINS
from asd_daemon.hear.simulator.unit import SimulatedMachine, stream_noise
from asd_daemon.judge.features.views import view_vectors
from asd_daemon.learn.learning import learn
from asd_daemon.learn.normal_sound import NormalSound
from asd_daemon.waveform import WINDOW_SAMPLES

F32 = NDArray[np.float32]
ENROLLED_WINDOWS, POOL = 120, 120
FAILING_WINDOWS = 10
USUAL_SNR_DB = 9.0
SHIFT_DB = 2.0  # louder at work, softer else


def mixed(machine: F32, noise: F32, louder_db: float) -> F32:
    """A window, float32 (160 000,), of a machine in its noise."""
    return limit(machine + np.float32(gain(louder_db - USUAL_SNR_DB)) * noise)


def generator(machine: str, *numbers: int) -> np.random.Generator:
    letters = sum(ord(letter) * 31**place for place, letter in enumerate(machine)) % 2**31
    return np.random.default_rng([letters, *numbers])


class Post:
    """A microphone at one machine."""

    def __init__(self, machine: str) -> None:
        self.machine = machine
        self.scores: list[float] = []
        self.days = 0
        domain = DOMAINS[machine]["source"]
        rng = generator(machine, 1)
        self._unit, self._setting = SimulatedMachine(machine), domain.settings[0]
        running = self._unit.stream(rng, self._setting)
        noise = stream_noise(domain.noises[0], generator(machine, 100))
        louder_db = SHIFT_DB + rng.normal() + rng.normal()  # a working hour of some day
        heard = [
            mixed(running.read(WINDOW_SAMPLES), noise.read(WINDOW_SAMPLES), louder_db) for _ in range(ENROLLED_WINDOWS)
        ]
        self._learned = learn(NormalSound.from_windows([(view_vectors(window), {}) for window in heard]))
        self._running = [running.read(WINDOW_SAMPLES) for _ in range(POOL)]
        self._noise = [noise.read(WINDOW_SAMPLES) for _ in range(POOL)]

    def score(self, window: F32) -> float:
        return float(self._learned.fusion.score(view_vectors(window, parts=False))[0])

    def failing(self) -> dict[str, list[float]]:
        """What windows with each failure score, failure → FAILING_WINDOWS, in a working hour."""
        scores = {}
        for number, failure in enumerate(self._unit.failures):
            rng = generator(self.machine, 3, number)
            running = self._unit.stream(rng, self._setting)
            running.fail(failure)
            running.read(WINDOW_SAMPLES)
            scores[failure] = [
                self.score(mixed(running.read(WINDOW_SAMPLES), self._noise[rng.integers(POOL)], SHIFT_DB))
                for _ in range(FAILING_WINDOWS)
            ]
        return scores

    def hear_day(self, per_hour: int) -> None:
        rng = generator(self.machine, 2, self.days)
        of_day = rng.normal()
        for hour in range(24):
            works = self.days % 7 < 5 and 6 <= hour < 18
            louder_db = (SHIFT_DB if works else -SHIFT_DB) + of_day + rng.normal()
            for _ in range(per_hour):
                window = mixed(self._running[rng.integers(POOL)], self._noise[rng.integers(POOL)], louder_db)
                self.scores.append(self.score(window))
        self.days += 1

    def write(self, folder: Path, per_hour: int, failing: dict[str, list[float]]) -> None:
        np.savez(
            folder / f"{self.machine}.npz",
            scores=np.array(self.scores),
            held_out=self._learned.held_out,
            per_hour=per_hour,
            **{f"failing/{failure}": np.array(scores) for failure, scores in failing.items()},  # type: ignore[arg-type]
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="folder for the scores")
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--per-hour", type=int, default=4, help="windows an hour, at least 3")
    parser.add_argument("--machine", action="append", choices=sorted(DOMAINS), help="this one only (repeatable)")
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    posts = [Post(machine) for machine in arguments.machine or DOMAINS]
    failing = {}
    for post in posts:
        failing[post.machine] = post.failing()
        post.write(arguments.to, arguments.per_hour, failing[post.machine])
    for day in range(arguments.days):
        for post in posts:
            post.hear_day(arguments.per_hour)
            post.write(arguments.to, arguments.per_hour, failing[post.machine])
        print(
            f"day {day}: "
            + ", ".join(f"{p.machine} {np.median(p.scores[-24 * arguments.per_hour :]):.2f}" for p in posts),
            flush=True,
        )


if __name__ == "__main__":
    main()
