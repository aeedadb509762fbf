"""Many machines in one process, on simulated sound: start, stop, memory and threads a machine.

usage: PYTHONPATH=tests python benchmarks/many_machines.py [--machines N …] [--model NAME]

Wall times hold for an idle box; on one that others use too look at the processor seconds beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from stopwatch import Row, held, table

from rig.daemon import RunningDaemon

PATIENCE_S = 300.0
START_S, STOP_S, MACHINE_MB = 20.0, 5.0, 4.0


@dataclass(frozen=True)
class Figures:
    """What a daemon of so many machines cost."""

    machines: int
    start_s: float
    start_cpu_s: float
    threads: int
    resident_mb: float
    proportional_mb: float
    stop_s: float
    stop_cpu_s: float
    exit_code: int


def measure(machines: int, model: str, wait_windows: float = 1.0) -> Figures:
    """Run a daemon until every machine was judged once, and stop it."""
    with TemporaryDirectory() as name:
        home = Path(name)
        configured = {
            f"m{n:03}": {"source": {"simulate": f"fan?speed=1&serial={n}&seed={n}"}, "model": model}
            for n in range(machines)
        }
        (home / "c.yaml").write_text(json.dumps({"machines": configured}), encoding="utf-8")  # which is YAML too
        begin_s = time.monotonic()
        with RunningDaemon("run", "--no-mqtt", "--config", home / "c.yaml", home=home) as daemon:
            own = psutil.Process(daemon.process.pid)
            wait(daemon, lambda: any("listening to" in line for line in daemon.log))
            start_s, start_cpu_s = time.monotonic() - begin_s, sum(own.cpu_times()[:2])
            wait(daemon, lambda: sum('"topic":"score"' in line for line in daemon.lines) >= machines * wait_windows)
            memory, threads = own.memory_full_info(), own.num_threads()
            before_s, stop_begin_s = sum(own.cpu_times()[:2]), time.monotonic()
            daemon.process.send_signal(signal.SIGTERM)
            spent_s = before_s
            while daemon.process.poll() is None:
                try:
                    spent_s = sum(own.cpu_times()[:2])
                except psutil.NoSuchProcess:
                    break
                threading.Event().wait(0.02)
            stop_s = time.monotonic() - stop_begin_s
            code = daemon.wait(10)
    return Figures(
        machines,
        start_s,
        start_cpu_s,
        threads,
        memory.rss / 2**20,
        memory.pss / 2**20,
        stop_s,
        spent_s - before_s,
        code,
    )


def wait(daemon: RunningDaemon, done: object) -> None:
    """Until it is done; the daemon's end or too long a wait ends the benchmark with its last words."""
    tick, deadline_s = threading.Event(), time.monotonic() + PATIENCE_S
    while not done():  # type: ignore[operator]
        if daemon.process.poll() is not None or time.monotonic() > deadline_s:
            sys.exit("the daemon does not come on: " + "".join(daemon.log[-3:]))
        tick.wait(0.05)


def rows_of(first: Figures, many: Figures) -> list[Row]:
    """One machine against many."""
    each_mb = (many.resident_mb - first.resident_mb) / (many.machines - first.machines)
    more_threads = many.threads - first.threads
    return [
        Row(
            f"{many.machines} machines: start until all are heard",
            f"{many.start_s:.1f} s",
            held(many.start_s, START_S, f"≤ 20 s; {many.start_cpu_s:.1f} s of processor time"),
        ),
        Row(
            f"{many.machines} machines: stop",
            f"{many.stop_s:.1f} s",
            held(many.stop_s, STOP_S, f"≤ 5 s; {many.stop_cpu_s:.1f} s of processor time; exit code {many.exit_code}"),
        ),
        Row(
            "memory of a further machine",
            f"{each_mb:.1f} MB",
            held(
                each_mb, MACHINE_MB, f"≤ 4 MB; {first.resident_mb:.0f} MB with one, {many.resident_mb:.0f} MB with all"
            ),
        ),
        Row("threads", f"{many.threads}", f"{first.threads} with one machine, {more_threads} more"),
    ]


def many_machine_rows(count: int = 200, model: str = "fan") -> list[Row]:
    """One machine, then many."""
    return rows_of(measure(1, model), measure(count, model))


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--machines", type=int, default=200)
    words.add_argument("--model", default="fan", help="by what they are judged, from the program's own bundle")
    given = words.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    print(
        "\n".join(
            table("Many machines in one process, simulated sound", many_machine_rows(given.machines, given.model))
        )
    )
