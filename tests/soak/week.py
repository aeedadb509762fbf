"""A week of sound through the daemon's own process: a machine that breaks and is repaired twice a day, a broker, and memory that is flat.

    PYTHONPATH=tests python -m soak.week [--days 7]

Hours of a simulated fan are rendered first, and a week is laid out of them: the simulator takes twice as long as the daemon. It is played
as fast as it is judged, so what goes by the clock (scores on disk, ages) sees an hour and not a week: scores are written every second
instead. Flat is less than 1 MB a week by the slope of Theil and Sen over medians of six hours, after a day of warming up.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import soundfile
from scipy.stats import theilslopes

from asd_daemon.hear.source import Block
from asd_daemon.hear.source_spec import parse_source
from asd_daemon.hear.sources.simulation import open_simulation
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_S
from rig.broker import Broker, Subscriber
from rig.daemon import RunningDaemon

HOUR_S = 3600
FAULT_EVERY_H = 12
FAILURES = ("rubbing", "blade_chip", "unbalance")
HEALTHY = 5
"""Different healthy hours; which one comes when changes from day to day."""
FLAT_MB = 1.0  # a week
CLIPS_MB = 8
_SUM = re.compile(r"stopped: (\d+) windows? heard, (\d+) scored, (\d+) unusable, (\d+) dropped, (\d+) alerts?")
_DAY_WINDOWS = 24 * HOUR_S / WINDOW_S


@dataclass(frozen=True)
class Sample:
    """What the daemon holds at some moment."""

    windows: int
    """Judged so far."""
    mb: float
    """Resident memory."""
    descriptors: int
    threads: int
    disk_mb: float
    """Of the state folder."""


@dataclass(frozen=True)
class WeekReport:
    """What came of it."""

    days: float
    faults_planned: int
    heard: int
    scored: int
    unusable: int
    dropped: int
    said: int
    """Alerts that the daemon says it has opened."""
    messages: list[dict[str, Any]]
    """Alerts that arrived at a subscriber."""
    samples: list[Sample]
    took_s: float
    processor_s: float

    def of_kind(self, kind: str) -> set[str]:
        """Alerts that were told so."""
        return {message["event_id"] for message in self.messages if message["kind"] == kind}

    def warm(self) -> list[Sample]:
        """After a day, or a tenth of a shorter run."""
        after = min(_DAY_WINDOWS, self.heard / 10)
        return [sample for sample in self.samples if sample.windows >= after] or self.samples[-1:]

    def slope(self) -> tuple[float, float, float]:
        """MB a day, with a 95 % interval; of memory over windows, by medians of six hours."""
        by_bin: dict[int, list[float]] = {}
        for sample in self.warm():
            by_bin.setdefault(int(sample.windows / (_DAY_WINDOWS / 4)), []).append(sample.mb)
        if len(by_bin) < 3:
            return 0.0, float("-inf"), float("inf")
        medians = [sorted(values)[len(values) // 2] for values in by_bin.values()]
        slope, _, low, high = theilslopes(medians, [number / 4 for number in by_bin], 0.95)
        return float(slope), float(low), float(high)

    def faults(self) -> list[str]:
        """What is not as it must be."""
        found, warm = [], self.warm()
        if self.heard != self.scored + self.unusable + self.dropped:
            found.append("windows are unaccounted for")
        opened, closed = self.of_kind("open"), self.of_kind("close")
        if len(opened) != self.said:
            found.append(f"{self.said} alerts opened, {len(opened)} arrived")
        if opened != closed:
            found.append(f"{len(opened - closed)} alerts never closed, {len(closed - opened)} never opened")
        if len(opened) < self.faults_planned:
            found.append(f"the machine broke {self.faults_planned} times, {len(opened)} alerts")
        if self.slope()[0] * 7 >= FLAT_MB:
            found.append(f"memory grows by {self.slope()[0] * 7:.2f} MB a week")
        edge = max(1, len(warm) // 10)
        for name in ("descriptors", "threads"):
            # A file that is being written just then is no leak; one that leaks is there at every look
            first = max(getattr(s, name) for s in warm[:edge])
            last = min(getattr(s, name) for s in warm[-edge:])
            if last > first:
                found.append(f"{name} went from {first} to {last}")
        clips_and_scores_mb = CLIPS_MB + 3 + 1.0 * self.days
        if max(s.disk_mb for s in self.samples) > clips_and_scores_mb:
            found.append(f"the state folder took more than {clips_and_scores_mb:.0f} MB")
        return found


def render(spec: str, file: Path) -> None:
    """Write an hour of a simulated machine."""
    source = open_simulation(parse_source(f"{spec}&seconds={HOUR_S}&speed=max"))
    with soundfile.SoundFile(str(file), "w", SAMPLE_RATE_HZ, 1, "PCM_16") as sound:
        for block in source.events():
            assert isinstance(block, Block)
            sound.write(block.samples)


def lay_out(hours: int, folder: Path) -> int:
    """Make a folder of so many hours, in which the machine breaks every twelfth and is repaired half an hour later; how often it breaks."""
    rendered = folder.parent / "rendered"
    for each in (rendered, folder):
        each.mkdir()
    for number in range(min(HEALTHY, hours)):
        render(f"simulate:fan?seed={number}", rendered / f"healthy-{number}.wav")
    broken = [hour for hour in range(hours) if hour % FAULT_EVERY_H == FAULT_EVERY_H // 2]
    kinds = {hour: FAILURES[n % len(FAILURES)] for n, hour in enumerate(broken)}
    for kind in sorted(set(kinds.values())):
        render(f"simulate:fan?seed=0&fail={kind}&fail_after=900&repair_after=2700", rendered / f"{kind}.wav")
    for hour in range(hours):
        name = f"{kinds[hour]}.wav" if hour in kinds else f"healthy-{(hour + hour // 24) % HEALTHY}.wav"
        os.link(rendered / name, folder / f"{hour:04d}.wav")
    return len(broken)


def listen(hours: int, folder: Path, every_s: float = 1.0) -> WeekReport:
    """Lay the sound out and play it to a daemon with a broker."""
    faults = lay_out(hours, folder / "sound")
    configuration = folder / "week.yaml"
    configuration.write_text(f"keep: {{scores_every_s: 1, clips_mb: {CLIPS_MB}}}\nnode: box\n")
    samples: list[Sample] = []
    processor_s, windows, seen, start_s = 0.0, 0, 0, time.monotonic()
    with Broker(folder / "broker") as broker, Subscriber(broker.port, "asd/box/fan/+") as heard:
        words = ["run", "--machine", "fan", "--broker", f"127.0.0.1:{broker.port}", "--config", configuration]
        with RunningDaemon(*words, "--source", f"folder:{folder / 'sound'}?speed=max", home=folder) as daemon:
            process = psutil.Process(daemon.process.pid)
            while daemon.process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    daemon.process.wait(every_s)
                    break
                new = len(heard.messages)
                windows += sum(message.topic.endswith("/score") for message in islice(heard.messages, seen, new))
                seen = new
                try:
                    times = process.cpu_times()
                    with process.oneshot():
                        held = (process.memory_info().rss / 2**20, process.num_fds(), process.num_threads())
                except psutil.NoSuchProcess:
                    continue
                processor_s = times.user + times.system
                samples.append(Sample(windows, *held, _size_mb(folder / "state")))
            code = daemon.wait()
            log = "".join(daemon.log)
        took_s = time.monotonic() - start_s
        messages = heard.of("/alert")
    found = _SUM.search(log)
    assert code == 0, log[-3000:]
    assert found, log[-3000:]
    heard_windows, scored, unusable, dropped, said = map(int, found.groups())
    return WeekReport(
        hours / 24,
        faults,
        heard_windows,
        scored,
        unusable,
        dropped,
        said,
        messages,
        samples,
        took_s,
        processor_s,
    )


def _size_mb(folder: Path) -> float:
    sizes = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            sizes.append(path.lstat().st_size)
    return sum(sizes) / 1e6


def main() -> int:
    """Listen for a week, and print what came of it."""
    words = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    words.add_argument("--days", type=float, default=7.0)
    words.add_argument("--samples", type=Path, help="write every reading into this file, as lines of JSON")
    wanted = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="asd-week-") as home:
        report = listen(round(wanted.days * 24), Path(home))
    if wanted.samples:
        wanted.samples.write_text("".join(json.dumps(vars(sample)) + "\n" for sample in report.samples))
    warm, (slope, low, high) = report.warm(), report.slope()
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    sys.stdout.write(
        f"{report.days:g} days of sound in {report.took_s / 60:.0f} min ({report.processor_s / 60:.0f} min of one core, load {load}): "
        f"{report.heard} windows heard = {report.scored} scored + {report.unusable} unusable + {report.dropped} dropped; "
        f"broken {report.faults_planned} times, {report.said} alerts, {len(report.of_kind('open'))} arrived, "
        f"{len(report.of_kind('close'))} closed\n"
        f"memory {warm[0].mb:.1f} MB after warming up, {warm[-1].mb:.1f} at the end, at most {max(s.mb for s in warm):.1f}; "
        f"{slope:+.3f} MB a day [{low:+.3f}, {high:+.3f}]; descriptors {warm[0].descriptors} to {warm[-1].descriptors}, "
        f"threads {warm[0].threads} to {warm[-1].threads}; state folder at most {max(s.disk_mb for s in report.samples):.1f} MB\n"
    )
    for fault in report.faults():
        sys.stdout.write(f"FAULT: {fault}\n")
    return 1 if report.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
