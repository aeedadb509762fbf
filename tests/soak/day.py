"""A day of sound, as fast as it goes, through the daemon's own process: memory stays flat and every window is accounted for.

`PYTHONPATH=tests python -m soak.day --hours 24 [--bundle FOLDER]`
"""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from asd_daemon.waveform import WINDOW_S
from rig.daemon import ROOT, RunningDaemon

DEFAULT_BUNDLE = ROOT / "daemon" / "asd_daemon" / "bundles" / "default"
LONG_S = 1800
WARM_UP = 0.1  # of the windows: allocators and caches find their size
_SUM = re.compile(r"stopped: (\d+) windows? heard, (\d+) scored, (\d+) unusable, (\d+) dropped, (\d+) alerts?")


@dataclass(frozen=True)
class DayReport:
    """What came of it."""

    heard: int
    scored: int
    unusable: int
    dropped: int
    alerts: int
    told_scores: int
    """Score lines that were told."""
    took_s: float
    speed: float
    """Times faster than real time."""
    processor_s: float
    """Of one core, up to the last reading."""
    warm_mb: float
    """Resident memory after warming up."""
    growth_mb: float
    """From there to the end: the median of the last tenth of the readings minus that of the first after warming up."""
    descriptors: tuple[int, int]
    """Open after warming up and at the end."""

    @property
    def processor_speed(self) -> float:
        """Times faster than real time where a core is free; on a machine with other work the clock says less."""
        return self.heard * WINDOW_S / max(self.processor_s, 1e-9)

    def faults(self, most_growth_mb: float = 2.0) -> list[str]:
        """What is not as it must be."""
        found = []
        if self.heard != self.scored + self.unusable + self.dropped:
            found.append("windows are unaccounted for")
        if self.told_scores != self.scored:
            found.append(f"{self.scored} windows scored but {self.told_scores} scores told")
        if self.growth_mb >= most_growth_mb:
            found.append(f"memory grew by {self.growth_mb:.1f} MB")
        if self.descriptors[1] > self.descriptors[0]:
            found.append(f"descriptors went from {self.descriptors[0]} to {self.descriptors[1]}")
        return found


def listen(seconds: int, folder: Path, bundle: Path, machine: str = "fan") -> DayReport:
    """Run the daemon over so many seconds of a simulated machine that fails at half time and is repaired an eighth later."""
    plan = f"fail=blade_chip&fail_after={seconds // 2}&repair_after={seconds * 5 // 8}"
    # The first batch of scores opens a database: before a long run has warmed up, and not at all in one that is over at once
    every_s = 1 if seconds >= LONG_S else 300
    configuration = folder / "day.yaml"
    configuration.write_text(f"keep: {{scores_every_s: {every_s}}}\n")
    words = ["run", "--machine", machine, "--bundle", bundle, "--no-mqtt", "--config", configuration]
    words += ["--source", f"simulate:fan?speed=max&seconds={seconds}&{plan}"]
    readings: list[tuple[int, float, int]] = []  # windows told so far, MB, descriptors
    windows, processor_s = seconds / WINDOW_S, 0.0
    start_s = time.monotonic()
    with RunningDaemon(*words, home=folder) as daemon:
        process = psutil.Process(daemon.process.pid)
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.process.wait(0.1 if seconds < LONG_S else 0.5)
                break
            try:
                times = process.cpu_times()
                processor_s = times.user + times.system
                seen = (len(daemon.lines), process.memory_info().rss / 2**20, process.num_fds())
            except psutil.NoSuchProcess:
                continue
            readings.append(seen)
        took_s = time.monotonic() - start_s
        code = daemon.wait()
        log, told = "".join(daemon.log), sum('"topic":"score"' in line for line in daemon.lines)
    assert code == 0, log
    found = _SUM.search(log)
    assert found, log
    heard, scored, unusable, dropped, alerts = map(int, found.groups())
    # Up to the last window: at the end scores that wait open their database
    warm = [r for r in readings if WARM_UP * windows <= r[0] < windows] or readings[-1:]
    edge = max(1, len(warm) // 10)
    first, last = _median([r[1] for r in warm[:edge]]), _median([r[1] for r in warm[-edge:]])
    # A file that is being written just then is no leak; one that leaks is there at every look
    descriptors = (max(r[2] for r in warm[:edge]), min(r[2] for r in warm[-edge:]))
    speed = seconds / took_s
    return DayReport(
        heard, scored, unusable, dropped, alerts, told, took_s, speed, processor_s, first, last - first, descriptors
    )


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def main() -> int:
    """Listen for a day, and print what came of it."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--hours", type=float, default=24.0)
    words.add_argument("--bundle", type=Path, help="default: the program's own where there is one, else a tiny one")
    wanted = words.parse_args()
    with tempfile.TemporaryDirectory() as home:
        bundle = wanted.bundle or DEFAULT_BUNDLE
        if not bundle.is_dir():
            from rig.bundles import write_tiny_bundle

            bundle = Path(home) / "tiny"
            write_tiny_bundle(bundle)
        report = listen(int(wanted.hours * 3600), Path(home), bundle)
    sys.stdout.write(
        f"{wanted.hours:g} h of sound in {report.took_s / 60:.1f} min ({report.speed:.0f} times real time; "
        f"{report.processor_s:.0f} s of one core, {report.processor_speed:.0f} times), bundle {bundle.name}:"
        f" {report.heard} windows heard = {report.scored} scored + {report.unusable} unusable + {report.dropped} dropped,"
        f" {report.alerts} alerts; memory {report.warm_mb:.1f} MB {report.growth_mb:+.2f} MB after warming up;"
        f" descriptors {report.descriptors[0]} to {report.descriptors[1]}\n"
    )
    for fault in report.faults():
        sys.stdout.write(f"FAULT: {fault}\n")
    return 1 if report.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
