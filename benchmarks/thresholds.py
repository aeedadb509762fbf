"""False alarms a week by the clock, and faults found, of thresholds that learn. Prints the table.

usage: python benchmarks/thresholds.py [--stream NAME ...] [--seeds N] [--weeks N] [--budget B ...] [--faults] [--scores DIR]

Months are simulated on scores, one every 10 s, and go window by window through the daemon's own alarm and learned threshold, from a
threshold enrolled in 20 minutes of one working day. With --scores the streams are those that benchmarks/noisy_weeks.py made of sound.
With --faults a fault comes after six weeks of health; `frozen` is the same threshold, not allowed to move from then on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from asd_daemon.judge.alarm.alarm import Alarm, AlarmMemory, AlertKind
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.judge.thresholds.calibration import calibrate_fused, provisional_exceedance
from asd_daemon.judge.thresholds.learned_threshold import LearnedThreshold
from asd_daemon.judge.thresholds.tail_memory import TailMemory
from asd_daemon.judge.thresholds.threshold import EnrolledThreshold, LearningRule

F64 = NDArray[np.float64]
HOP_S = 10.0
DAY = 8640
WEEK = 7 * DAY
DEVIATION = 0.12  # of scores of like windows, whose mean is 1
ENROLLED_WINDOWS = 120
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
ALARM = AlarmRule(hysteresis=0.05, cool_down_s=60, relapse_s=86_400)  # the settings' defaults
STREAMS = {
    "light": "like windows, Gaussian, each like the one before",
    "heavy": "the same, with the tails of Student's t of 4 degrees",
    "regimes": "levels by hour, day and shift, bursts of noise, mostly by day",
    "regimes_heavy": "the same, bursts with a heavy tail",
    "drift": "the same, and a level that goes up and down by day and over six weeks",
}
FAULT_WEEKS = 6
FAULTS = {  # deviations; days in which they grow
    "sudden 6": (6.0, 0.0),
    "sudden 10": (10.0, 0.0),
    "sudden 15": (15.0, 0.0),
    "15 in 3 days": (15.0, 3.0),
    "15 in 21 days": (15.0, 21.0),
    "5 in 21 days": (5.0, 21.0),
}


def correlated(rng: np.random.Generator, count: int, share: float, kind: str) -> F64:
    """Noise of deviation 1 of which each value holds a share of the one before."""
    fresh = {
        "normal": lambda: rng.standard_normal(count),
        "t4": lambda: rng.standard_t(4, count) / 2**0.5,
        "gamma": lambda: (rng.gamma(2, 1, count) - 2) / 2**0.5,
    }[kind]()
    return np.asarray(lfilter([(1 - share**2) ** 0.5], [1, -share], fresh), np.float64)


def stream(name: str, weeks: int, seed: int) -> F64:
    """Scores (weeks · 60 480,) of a healthy machine from a Monday at 00:00 on."""
    rng = np.random.default_rng([seed, sum(map(ord, name))])
    count = weeks * WEEK
    if name in ("light", "heavy"):
        return (1 + DEVIATION * correlated(rng, count, 0.7, "normal" if name == "light" else "t4")).clip(0)
    t = np.arange(count)
    works = ((t // 360 % 24 >= 6) & (t // 360 % 24 < 18) & (t // DAY % 7 < 5)).astype(float)
    hourly, daily = rng.normal(0, 0.4, weeks * 7 * 24), rng.normal(0, 0.4, weeks * 7)
    spread = np.where(works > 0, 1.0, 0.6) * np.exp(np.repeat(rng.normal(0, 0.15, weeks * 7 * 24), 360))
    z = correlated(rng, count, 0.6, "gamma") * spread + 0.8 * works + np.repeat(hourly, 360) + np.repeat(daily, DAY)
    has_heavy_bursts = name in ("regimes_heavy", "drift")
    for start in np.flatnonzero(rng.random(count) < np.where(works > 0, 6 / 4320, 1 / 8640)):
        length = 1 + rng.geometric(1 / 5)
        size = (1.2 * rng.pareto(3.5) if has_heavy_bursts else rng.exponential(1.2)) + 0.5
        part = z[start : start + length]
        part += size * (0.7 + 0.6 * rng.random(part.size))
    if name == "drift":
        z += 1.2 * np.sin(2 * np.pi * t / DAY / 45 + rng.random() * 6) + 0.8 * np.sin(2 * np.pi * t / DAY)
    return np.asarray((1 + DEVIATION * z).clip(0), np.float64)


def enrolled(name: str, seed: int) -> F64:
    """Scores (120,) in a row of a working day of another week."""
    rng = np.random.default_rng(seed)
    begin = rng.integers(0, 4) * DAY + rng.integers(7 * 360, 16 * 360)
    return stream(name, 1, 10_000 + seed)[begin : begin + ENROLLED_WINDOWS]


@dataclass
class Box:
    """An alarm and its threshold, which learns or stays."""

    rule: LearningRule
    level: EnrolledThreshold
    tail: TailMemory | None = None
    alarm: AlarmMemory | None = None
    frozen_at: float | None = None

    def hear(self, scores: F64, times: list[datetime]) -> list[int]:
        """Which windows opened an alert."""
        alarm, learned = Alarm(ALARM, memory=self.alarm), LearnedThreshold(self.rule, self.level, self.tail)
        opens = []
        for number, (score, at) in enumerate(zip(scores.tolist(), times, strict=True)):
            limit = learned.threshold.value if self.frozen_at is None else self.frozen_at
            event = alarm.update(score, limit, at)
            if event is not None and event.kind is AlertKind.OPEN:
                opens.append(number)
            if self.frozen_at is None:
                learned.hear(score, at, alert_open=alarm.open_alert is not None)
        self.tail, self.alarm, self.threshold = learned.memory, alarm.memory, learned.threshold
        return opens


def box(scores: F64, budget: float, hop_s: float = HOP_S, **rule: float) -> Box:
    """A box that knows a machine by its enrolled scores."""
    calibration = calibrate_fused(scores)
    threshold = calibration.threshold(provisional_exceedance(budget, 2, 3, hop_s))
    learning = LearningRule(hop_s=hop_s, false_alarms_per_week=budget, **rule)  # type: ignore[arg-type]
    return Box(learning, EnrolledThreshold(calibration.fingerprint, calibration.centre, threshold))


def clock(count: int, first: int = 0, hop_s: float = HOP_S) -> list[datetime]:
    """UTC times of windows from one on."""
    return [MONDAY + timedelta(seconds=hop_s * (first + n) + hop_s / 2) for n in range(count)]


def interval(values: list[float]) -> str:
    """Mean, and its 95 % interval over bootstraps."""
    drawn = np.random.default_rng(0).choice(np.array(values), (2000, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{np.mean(values):6.2f} [{low:.2f}, {high:.2f}]"


def health(name: str, seeds: int, weeks: int, budgets: list[float]) -> None:
    """Print the false alarms a week of a healthy machine."""
    by_week: dict[float, list[list[int]]] = {b: [] for b in budgets}
    alone: dict[float, list[float]] = {b: [] for b in budgets}
    rooms: dict[float, list[float]] = {b: [] for b in budgets}
    calibrated = dict.fromkeys(budgets, 0)
    times = clock(weeks * WEEK)
    for seed in range(seeds):
        scores, known = stream(name, weeks, seed), enrolled(name, seed)
        for budget in budgets:
            learning, fixed = box(known, budget), box(known, budget)
            opens = np.array(learning.hear(scores, times))
            by_week[budget].append([int(np.sum(opens // WEEK == week)) for week in range(weeks)])
            fixed.frozen_at = fixed.level.threshold
            alone[budget].append(float(len(fixed.hear(scores[WEEK : 2 * WEEK], times[WEEK : 2 * WEEK]))))
            room = learning.level.threshold - learning.level.centre
            rooms[budget].append((learning.threshold.value - learning.level.centre) / room)
            calibrated[budget] += learning.threshold.state == "calibrated"
            print(f"  {name} seed {seed} budget {budget:g}: by week {by_week[budget][-1]}", flush=True)
    for budget in budgets:
        table = np.array(by_week[budget])
        later, late = table[:, 1:].mean(axis=1).tolist(), table[:, 2:].mean(axis=1).tolist()
        print(
            f"{name:14s} budget {budget:<4g} enrolled alone {np.mean(alone[budget]):6.2f} | week 1 {table[:, 0].mean():6.2f}"
            f" week 2 {table[:, 1].mean():6.2f} | weeks 2-{weeks} {interval(later)} median {np.median(later):.2f}"
            f" | weeks 3-{weeks} {interval(late)} | rooms {np.median(rooms[budget]):.2f} calibrated {calibrated[budget]}/{seeds}",
            flush=True,
        )


def faults(name: str, seeds: int, budgets: list[float]) -> None:
    """Print when faults are found, against the same threshold that may not move."""
    rows: dict[tuple[str, float], list[tuple[float, float, float]]] = {}
    begin = FAULT_WEEKS * WEEK + 2 * DAY + 3600
    for seed in range(seeds):
        scores, known = stream(name, FAULT_WEEKS + 4, seed), enrolled(name, seed)
        for budget in budgets:
            learning = box(known, budget)
            learning.hear(scores[:begin], clock(begin))
            room, before = learning.level.threshold - learning.level.centre, learning.threshold.value
            for fault, (size, days) in FAULTS.items():
                count = round((days + 1) * DAY) if days else DAY // 4
                grown = np.minimum(1, np.arange(count) / (days * DAY)) if days else np.ones(count)
                failing, times = scores[begin : begin + count] + DEVIATION * size * grown, clock(count, begin)
                found = []
                for frozen_at in (None, before):
                    ill = Box(learning.rule, learning.level, learning.tail, learning.alarm, frozen_at)
                    opens = ill.hear(failing, times)
                    found.append(float(opens[0]) if opens else np.inf)
                    if frozen_at is None:
                        moved = (ill.threshold.value - before) / room
                rows.setdefault((fault, budget), []).append((found[0], found[1], moved))
        print(f"  {name} seed {seed} done", flush=True)
    for (fault, budget), seen in rows.items():
        learned, frozen, moved = np.array(seen).T
        unit, word = (1, "windows") if fault.startswith("sudden") else (DAY, "days")
        print(
            f"{name:14s} {fault:14s} budget {budget:<4g} found {np.isfinite(learned).sum()}/{seeds}"
            f" after {np.median(learned) / unit:.2f} {word} (worst {learned.max() / unit:.2f});"
            f" frozen {np.isfinite(frozen).sum()}/{seeds} after {np.median(frozen) / unit:.2f} (worst {frozen.max() / unit:.2f});"
            f" threshold went up {moved.max():.2f} rooms at most",
            flush=True,
        )


@dataclass(frozen=True)
class HeardMachine:
    """What noisy_weeks.py made of a machine's sound."""

    name: str
    scores: F64
    enrolled: F64
    per_hour: int
    failing: dict[str, F64]


def recorded(folder: Path) -> Iterator[HeardMachine]:
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as kept:
            failing = {key.removeprefix("failing/"): kept[key] for key in kept.files if key.startswith("failing/")}
            scores, enrolled = (kept[key].astype(float) for key in ("scores", "held_out"))
            yield HeardMachine(file.stem, scores, enrolled, int(kept["per_hour"]), failing)


def found_at(scores: F64, threshold: float) -> int | None:
    """The window of failing sound with which an alert opens."""
    alarm = Alarm(ALARM)
    for number, (score, at) in enumerate(zip(scores.tolist(), clock(scores.size), strict=True)):
        if alarm.update(score, threshold, at) is not None:
            return number + 1
    return None


def heard(folder: Path, budgets: list[float]) -> None:
    """Print false alarms and failures found of streams that were made of sound: per machine, and all together."""
    counts: dict[float, list[float]] = {b: [] for b in budgets}
    found: dict[float, list[bool]] = {b: [] for b in budgets}
    for machine in recorded(folder):
        hop_s, week = 3600 / machine.per_hour, 168 * machine.per_hour
        weeks, times = machine.scores.size / week, clock(machine.scores.size, hop_s=3600 / machine.per_hour)
        for budget in budgets:
            learning, fixed = (
                box(machine.enrolled, budget, hop_s, least_windows=100 * machine.per_hour) for _ in range(2)
            )
            fixed.frozen_at = fixed.level.threshold
            opens, alone = np.array(learning.hear(machine.scores, times)), fixed.hear(machine.scores, times)
            if weeks > 1:
                counts[budget].append(float(np.sum(opens >= week)) / (weeks - 1))
            at = {f: found_at(scores, learning.threshold.value) for f, scores in machine.failing.items()}
            found[budget] += [number is not None for number in at.values()]
            missed = ", ".join(f for f, number in at.items() if number is None)
            print(
                f"{machine.name:9s} budget {budget:<4g} {weeks:.1f} weeks: enrolled alone {len(alone) / weeks:6.2f} a week;"
                f" learned: week 1 {np.sum(opens < week)}, later {np.sum(opens >= week)}; threshold"
                f" {learning.level.threshold:.3f} → {learning.threshold.value:.3f}, {learning.threshold.words};"
                f" failures missed: {missed or 'none'} of {len(at)}",
                flush=True,
            )
    for budget in budgets:
        print(
            f"all machines budget {budget:g}: from the second week on "
            f"{f'{np.mean(counts[budget]):.2f} a week' if counts[budget] else 'nothing is known'}; "
            f"{sum(found[budget])} of {len(found[budget])} failures found within 10 windows"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stream", action="append", choices=sorted(STREAMS), help="this one only (repeatable)")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--weeks", type=int, default=7)
    parser.add_argument("--budget", type=float, action="append", help="false alarms a week (repeatable)")
    parser.add_argument("--faults", action="store_true", help="faults in place of health")
    parser.add_argument("--scores", type=Path, help="a folder of noisy_weeks.py in place of simulated scores")
    arguments = parser.parse_args()
    budgets = arguments.budget or [0.2, 1.0, 5.0]
    if arguments.scores is not None:
        heard(arguments.scores, budgets)
        return
    for name in arguments.stream or STREAMS:
        print(f"{name}: {STREAMS[name]}", flush=True)
        if arguments.faults:
            faults(name, arguments.seeds, budgets)
        else:
            health(name, arguments.seeds, arguments.weeks, budgets)


if __name__ == "__main__":
    main()
