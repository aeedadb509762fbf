"""What a window costs on this machine: one thread, ratios measured in one run.

usage: make bench    (or: python benchmarks/edge.py [--bundle DIR] [--write FILE])
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402

from asd_daemon.hear.simulator import SimulatedMachine  # noqa: E402
from asd_daemon.judge.bundle import Bundle, ModelEntry, default_bundle, load_bundle  # noqa: E402
from asd_daemon.judge.index import ExactIndex  # noqa: E402
from asd_daemon.judge.mel import eat_input, log_mel  # noqa: E402
from asd_daemon.judge.scorer import EmbedderSession, Scorer, window_features  # noqa: E402
from asd_daemon.waveform import WINDOW_S  # noqa: E402

Row = tuple[str, float, str]


def median_ms(work: Callable[[], object], runs: int = 41, clock: Callable[[], float] = time.process_time) -> float:
    """Median time of `work` in milliseconds after three runs that are not counted: of the processor unless `clock` says otherwise."""
    for _ in range(3):
        work()
    times = []
    for _ in range(runs):
        start = clock()
        work()
        times.append(clock() - start)
    return float(np.median(times)) * 1000


def mel_rows(window: np.ndarray) -> list[Row]:
    """Log-mel against Kaldi's C++ through Python, and librosa."""
    import kaldi_native_fbank as knf
    import librosa

    def kaldi() -> object:
        options = knf.FbankOptions()
        options.frame_opts.dither = 0
        options.frame_opts.window_type = "hanning"
        options.mel_opts.num_bins = 128
        options.use_energy = False
        bank = knf.OnlineFbank(options)
        bank.accept_waveform(16_000, window)
        bank.input_finished()
        return np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])

    def with_librosa() -> object:
        return np.log(
            librosa.feature.melspectrogram(y=window, sr=16_000, n_fft=512, win_length=400, hop_length=160, n_mels=128)
            + 1e-10
        )

    ours = median_ms(lambda: log_mel(window))
    theirs, librosas = median_ms(kaldi), median_ms(with_librosa)
    return [
        ("log-mel of 10 s", ours, "1"),
        ("  kaldi-native-fbank 1.22.5 (C++)", theirs, f"ours takes {ours / theirs:.2f} of it"),
        ("  librosa", librosas, f"ours takes {ours / librosas:.2f} of it"),
    ]


def window_rows(bundle: Bundle, machine: str, window: np.ndarray) -> list[Row]:
    """A window end to end, by step."""
    features = window_features(window)[None]
    rows: list[Row] = []
    manifest = bundle.manifest
    entries: list[ModelEntry] = [e for e in (manifest.embedder_fp32, manifest.embedder) if e is not None]
    times = {}
    for entry in entries:
        session = EmbedderSession(bundle.path / entry.file, entry)
        times[entry.precision] = median_ms(lambda s=session: s.embed(features))  # type: ignore[misc]
        size = manifest.files[entry.file].bytes / 1e6
        rows.append((f"embedder {entry.precision}, {size:.1f} MB", times[entry.precision], ""))
    if len(times) == 2:
        rows[-1] = (*rows[-1][:2], f"{times['int8'] / times['fp32']:.2f} of fp32")
    query = bundle.bank(machine)[:1]
    index, exact = bundle.index(machine), ExactIndex(np.asarray(bundle.bank(machine)))
    rows.append((f"search, {index.size} vectors ({type(index).__name__})", median_ms(lambda: index.nearest(query)), ""))
    if type(index) is not ExactIndex:
        rows.append((f"search, {index.size} vectors (ExactIndex)", median_ms(lambda: exact.nearest(query)), ""))
    scorer = Scorer(bundle, machine)
    whole = median_ms(lambda: scorer.score(window))
    heard = log_mel(window)
    rows.append(("normalise and pad", median_ms(lambda: eat_input(heard)), ""))
    views = ", ".join(bundle.machine(machine).views) or "nearest neighbour of the embedding"
    rows.append(
        (
            f"window of {machine} end to end ({views})",
            whole,
            f"{whole / (WINDOW_S * 1000):.2%} of real time (hold: ≤ 5 %)",
        )
    )
    return rows


def start_rows(bundle: Path) -> list[Row]:
    """From nothing to a scorer that is ready, in a process of its own."""
    code = (
        "from pathlib import Path; from asd_daemon.judge.bundle import load_bundle; from asd_daemon.judge.scorer import Scorer;"
        f"b = load_bundle(Path({str(bundle)!r})); Scorer(b, b.machines[0])"
    )
    ready = median_ms(lambda: subprocess.run([sys.executable, "-c", code], check=True), runs=5, clock=time.perf_counter)
    bare = median_ms(
        lambda: subprocess.run([sys.executable, "-c", "import numpy"], check=True), runs=5, clock=time.perf_counter
    )
    return [("start to a scorer that is ready", ready, f"{ready / bare:.1f} × `import numpy`")]


def main() -> None:
    """Measure and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--bundle", type=Path, default=default_bundle())
    arguments.add_argument("--write", type=Path, help="also write the table to this Markdown file")
    options = arguments.parse_args()
    bundle = load_bundle(options.bundle)
    machine = bundle.machines[0]
    window = SimulatedMachine("fan").render(WINDOW_S, np.random.default_rng(0))
    rows = [*mel_rows(window), *window_rows(bundle, machine, window), *start_rows(options.bundle)]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    lines = [
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__}, commit {commit};"
        " one thread, medians of processor time in one run (starts: wall time)",
        "",
        "| step | ms | |",
        "|---|---:|---|",
        *(f"| {name} | {ms:.2f} | {remark} |" for name, ms, remark in rows),
    ]
    print("\n".join(lines))
    if options.write:
        options.write.write_text("\n".join(["# Benchmarks", "", "`make bench` prints this table.", "", *lines]) + "\n")


if __name__ == "__main__":
    main()
