"""Every figure that must be held, measured on this machine: log-mel, a window by step, the daemon at rest, several machines, search.

usage: make bench    (or: PYTHONPATH=tests python benchmarks/edge.py [--bundle DIR] [--work DIR] [--sizes N …] [--write FILE])

A ratio is of two times of one run. The edge-size networks are made in --work at the first call (minutes; see edge_bundle.py).
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
import onnxruntime as ort  # noqa: E402
from edge_bundle import RECIPE, edge_bundles  # noqa: E402
from listening import mel_rows, model_rows, shipped_rows, step_rows  # noqa: E402
from resident import daemon_rows, sharing_rows  # noqa: E402
from search import search_lines  # noqa: E402
from stopwatch import Row, table  # noqa: E402

from asd_daemon.hear.simulator import SimulatedMachine  # noqa: E402
from asd_daemon.judge.bundle.bundle import Bundle, default_bundle, load_bundle  # noqa: E402
from asd_daemon.waveform import WINDOW_S  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def processor() -> str:
    """The processor's name, as Linux knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def commit() -> str:
    """The checkout's commit, marked where files differ from it."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def head(command: str) -> list[str]:
    """What the figures are of."""
    load = f"{os.getloadavg()[0]:.1f}"
    return [
        "# Benchmarks",
        "",
        f"{processor()}, {platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, NumPy {np.__version__},"
        f" onnxruntime {ort.__version__}; commit {commit()}; load average at the start {load}.",
        f"Command: `{command}`. Times are medians of processor time on one thread; starts are wall time.",
        "",
    ]


def size_rows(bundle: Bundle) -> list[Row]:
    """What lies on the disk for each machine."""
    rows = []
    for machine in bundle.machines:
        inside = {p.name: p.stat().st_size / 1e3 for p in sorted(bundle.folder(machine).iterdir())}
        files = ", ".join(f"{name} {kb:.0f}" for name, kb in inside.items())
        rows.append(
            Row(machine, f"{sum(inside.values()):.0f} kB", f"{bundle.machine(machine).vectors} windows; {files}")
        )
    return rows


def main() -> None:
    """Measure and print the tables."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--bundle", type=Path, default=default_bundle(), help="the bundle that the daemon listens with")
    words.add_argument("--work", type=Path, default=ROOT / "build" / "bench", help="where the edge-size networks lie")
    words.add_argument("--windows", type=int, default=5, help="windows that the daemon at rest is watched for")
    words.add_argument(
        "--sizes", type=int, nargs="*", default=[1_000, 100_000], help="vectors of the banks searched in"
    )
    words.add_argument("--write", type=Path, help="also write the tables to this Markdown file")
    options = words.parse_args()
    written: list[str] = []

    def say(lines: list[str]) -> None:
        written.extend(lines)
        print("\n".join(lines), flush=True)

    edge, shipped = edge_bundles(options.work), load_bundle(options.bundle)
    window = SimulatedMachine("fan").render(WINDOW_S, np.random.default_rng(0))
    say(head("make bench" if len(sys.argv) <= 3 else " ".join(["benchmarks/edge.py", *sys.argv[1:]])))
    say(table("Log-mel", mel_rows(window)))
    say(table("A window, edge size", step_rows(edge.int8, edge.fp32, window)))
    say(
        [
            f"Networks of edge size, trained for a few minutes on three simulated machines (recipe smoke with {' '.join(RECIPE)})."
        ]
    )
    say(["Times do not depend on the training; errors do, and those of such networks say little.", ""])
    say(["## int8, edge size, as `asd-export` measured it", ""])
    say(["| model | way | MB | ms | score error | dB lost | Ω | |", "|---|---|---:|---:|---:|---:|---:|---|"])
    say([f"| {' | '.join(cells)} |" for cells in model_rows(edge.figures)] + [""])
    say(
        table(
            f"A window, the bundle that comes with the program ({shipped.name} {shipped.version})",
            shipped_rows(shipped, window),
        )
    )
    say(table("The daemon, one machine, the same bundle", daemon_rows(options.bundle, options.windows)))
    say(
        table(
            "Machines of one process that share the models, edge size, int8",
            sharing_rows(edge.int8.path, (1, 4, 16), 2),
        )
    )
    say(table("Normal sound on the disk, the bundle that comes with the program", size_rows(shipped)))
    say(["## Search", ""])
    for line in search_lines(options.sizes, threads=1):
        say([line])
    if options.write:
        options.write.write_text("\n".join(written).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
