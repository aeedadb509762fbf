"""What the start of the daemon takes of the processor and of memory, process by process; of several checkouts in turns.

usage: PYTHONPATH=tests python benchmarks/starts.py [--against CHECKOUT] [--starts N] [--rate HZ]

A machine hears a virtual microphone. The first sample is taken when the sound server is asked for a recording, which it says itself;
until then, and until the first window is judged, processor time (user and system) of all processes is counted. Modules are compiled.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from asd_daemon.hear.simulator import SimulatedMachine
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_S
from rig import microphone
from rig.daemon import RunningDaemon
from rig.feeder import Feeder, as_s16

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 120.0
TICK = threading.Event()
MOMENTS = ("first sample", "listening", "first window judged")
_IMPORT = re.compile(r"^import time:\s+\d+ \|")


@dataclass
class Start:
    """One start; seconds of processor, and MB."""

    processor_s: dict[str, dict[str, float]] = field(default_factory=dict)
    """Moment → process → seconds."""
    clock_s: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, dict[str, float]] = field(default_factory=dict)
    """Process → kind of memory (rss, pss, private) → MB, when the first window is judged."""


class Recordings:
    """Says when something begins to record, as the sound server tells it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        words = ["stdbuf", "-oL", "pactl", "subscribe"]
        self._process = subprocess.Popen(words, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
        self._begun = threading.Event()
        self._told: Callable[[], None] = lambda: None
        threading.Thread(target=self._read, daemon=True).start()

    def expect(self, told: Callable[[], None]) -> None:
        """Call this at the next one, at once."""
        self._told = told
        self._begun.clear()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "'new' on source-output" in line and not self._begun.is_set():
                self._told()
                self._begun.set()

    def wait(self) -> None:
        """Until it has begun."""
        if not self._begun.wait(PATIENCE_S):
            sys.exit("nothing has begun to record")

    def close(self) -> None:
        """Ask no more."""
        self._process.kill()
        self._process.wait()


def processor_s(daemon: psutil.Process) -> dict[str, float]:
    """Seconds of processor so far: of the daemon, its recorder, and all that it has begun and that is over, or not yet."""
    used = {"daemon": _own_s(daemon.pid), "recorder": 0.0, "others": sum(daemon.cpu_times()[2:4])}
    for child in daemon.children():
        with contextlib.suppress(psutil.Error, OSError):
            kind = "recorder" if is_recorder(child) else "others"
            used[kind] += _own_s(child.pid) + sum(child.cpu_times()[2:4])
    return used


def is_recorder(process: psutil.Process) -> bool:
    """Whether it is the process that holds the microphone."""
    return "asd_daemon.hear" in " ".join(process.cmdline())


def _own_s(pid: int) -> float:
    """Of all threads of a process, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def memory_mb(process: psutil.Process) -> dict[str, float]:
    """What it holds: resident; its share of what it shares with others; what it alone has written to."""
    text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    kinds = {"rss": "Rss", "pss": "Pss", "private": "Private_Dirty"}
    return {
        kind: int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1]) / 1024  # type: ignore[index]
        for kind, name in kinds.items()
    }


def measure(words: tuple[object, ...], home: Path, environment: Mapping[str, str], recordings: Recordings) -> Start:
    """One start, until its first window is judged."""
    start, begin_s = Start(), time.monotonic()

    def note(moment: str) -> None:
        start.processor_s[moment], start.clock_s[moment] = processor_s(own), time.monotonic() - begin_s

    recordings.expect(lambda: note("first sample"))
    with RunningDaemon(*words, home=home, more=environment) as daemon:
        own = psutil.Process(daemon.process.pid)
        recordings.wait()
        _wait(daemon, lambda: any("listening to" in line for line in daemon.log))
        note("listening")
        _wait(daemon, lambda: any('"topic":"score"' in line for line in daemon.lines))
        note("first window judged")
        start.memory_mb["daemon"] = memory_mb(own)
        start.memory_mb["recorder"] = next(memory_mb(child) for child in own.children() if is_recorder(child))
        daemon.stop()
    return start


def _wait(daemon: RunningDaemon, done: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not done():
        if daemon.process.poll() is not None or time.monotonic() > deadline_s:
            sys.exit("the daemon does not come on: " + "".join(daemon.log[-3:]))
        TICK.wait(0.005)


def modules(words: tuple[object, ...], home: Path, environment: Mapping[str, str]) -> int:
    """How many modules the daemon has imported when its first window is judged."""
    more = {**environment, "PYTHONPROFILEIMPORTTIME": "1"}
    with RunningDaemon(*words, home=home, more=more) as daemon:
        _wait(daemon, lambda: any('"topic":"score"' in line for line in daemon.lines))
        daemon.stop()
        return sum(bool(_IMPORT.match(line)) for line in daemon.log)


def recorder_modules(environment: Mapping[str, str], home: Path) -> int:
    """How many modules a recorder imports that lists the devices, which is all but the recording."""
    words = [sys.executable, "-X", "importtime", "-m", "asd_daemon.hear.sources.recorder", '{"list": true}']
    done = subprocess.run(words, env={**environment, "HOME": str(home)}, capture_output=True, check=True)
    return sum(bool(_IMPORT.match(line)) for line in done.stderr.decode(errors="replace").splitlines())


@contextlib.contextmanager
def virtual_microphone(folder: Path, rate_hz: int) -> Iterator[dict[str, str]]:
    """A microphone that hears a healthy fan; its environment."""
    with microphone.VirtualMicrophone(folder / "mic", rate_hz) as mic, Feeder(mic.fifo, rate_hz) as feeder:
        fan = SimulatedMachine("fan").render(6 * WINDOW_S, np.random.default_rng(0))
        feeder.play(np.resize(as_s16(np.repeat(fan, rate_hz // SAMPLE_RATE_HZ)), 3600 * rate_hz))
        yield mic.environment


def compare(checkouts: Mapping[str, Path], starts: int, rate_hz: int) -> None:
    """Starts of several checkouts in turns, and what they took in the median."""
    taken: dict[str, list[Start]] = {name: [] for name in checkouts}
    imported: dict[str, tuple[int, int]] = {}
    with TemporaryDirectory() as name, virtual_microphone(Path(name), rate_hz) as heard:
        recordings = Recordings(heard)
        source = f"device:{microphone.NAME}?rate_hz={rate_hz}"
        words = ("run", "--machine", "fan", "--no-mqtt", "--events", "json", "--source", source)
        for turn in range(-1, starts):
            for title, checkout in checkouts.items():
                home = Path(name) / f"{title}-{turn}".replace(" ", "-")
                home.mkdir()
                environment = {
                    **heard,
                    "PYTHONPATH": str(checkout / "daemon"),
                    "PYTHONPYCACHEPREFIX": str(Path(name) / "compiled"),
                    "PYTHONDONTWRITEBYTECODE": "",
                }
                if turn < 0:  # which compiles what is imported
                    measure(words, home, environment, recordings)
                    more = {**os.environ, **environment}
                    imported[title] = (modules(words, home, environment), recorder_modules(more, home))
                else:
                    taken[title].append(measure(words, home, environment, recordings))
        recordings.close()
    for title in checkouts:
        print("\n".join(lines_of(title, taken[title], imported[title])), flush=True)


def lines_of(title: str, starts: list[Start], imported: tuple[int, int]) -> list[str]:
    """The medians as Markdown."""
    lines = [f"## {title}: {imported[0]} modules in the daemon, {imported[1]} in the recorder", ""]
    lines += ["| until | daemon | recorder | others | all, s of processor (least, most) | by the clock, s |"]
    lines += ["|---|---:|---:|---:|---:|---:|"]
    for moment in MOMENTS:
        used = [start.processor_s[moment] for start in starts]
        each = " | ".join(f"{np.median([u[name] for u in used]):.3f}" for name in ("daemon", "recorder", "others"))
        sums = [sum(u.values()) for u in used]
        clock = np.median([start.clock_s[moment] for start in starts])
        lines.append(f"| {moment} | {each} | {np.median(sums):.3f} ({min(sums):.3f}–{max(sums):.3f}) | {clock:.2f} |")
    lines += [
        "",
        "| MB when the first window is judged | resident | of what is shared, its part | written by it alone |",
    ]
    lines += ["|---|---:|---:|---:|"]
    for process in ("daemon", "recorder"):
        memories = [start.memory_mb[process] for start in starts]
        each = " | ".join(f"{np.median([m[kind] for m in memories]):.1f}" for kind in ("rss", "pss", "private"))
        lines.append(f"| {process} | {each} |")
    return [*lines, ""]


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--against", type=Path, help="another checkout, started in turns with this one")
    words.add_argument("--starts", type=int, default=7, help="of each")
    words.add_argument("--rate", type=int, default=SAMPLE_RATE_HZ, help="of the microphone")
    options = words.parse_args()
    if (why := microphone.missing()) is not None:
        sys.exit(f"skipped: {why}")
    checkouts = {"before": options.against.resolve()} if options.against else {}
    compare({**checkouts, "this checkout": ROOT}, options.starts, options.rate)


if __name__ == "__main__":
    main()
