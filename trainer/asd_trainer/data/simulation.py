"""A complete DCASE 2025 data set of simulated machines: folders, names, attributes, domains, supplemental clips.

Owns the writing; what the set holds is simulation_plan.py's, the sound comes from asd_daemon.hear. Each file follows from (seed, serial,
machine, its own place in the set) alone, so a run that was broken off goes on where it stopped, in any number of processes. Loading
a data set is dataset.py's.
"""

from __future__ import annotations

import io
import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import soundfile

from asd_daemon.errors import DataSetError, UsageError
from asd_daemon.hear.simulator import SimulatedMachine
from asd_daemon.hear.simulator.scene import DOMAINS, Scene, SceneStream, draw_scene
from asd_daemon.waveform import SAMPLE_RATE_HZ
from asd_trainer.data.simulation_plan import (
    SIMULATION_NOTE,
    SMOKE,
    PlannedClip,
    SimulationPlan,
    attributes_csv,
    plan_clips,
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SimulationSummary:
    """What was done."""

    root: Path
    written: int
    kept: int
    """Clips that were there already, complete."""
    clips: Mapping[str, int] = field(default_factory=dict)
    """Clips of each machine, written and kept."""


def write_dataset(
    out: Path, plan: SimulationPlan, *, jobs: int = 1, progress: Progress | None = None
) -> SimulationSummary:
    """Write OUT/dev_data/raw/<machine>/{train,test,supplemental}/*.wav, attributes_00.csv and OUT/simulation.json.

    Files that are there and complete are kept. `progress(done, total)` counts clips.

    Args:
        out: the folder; made if it is missing.
        plan: what to make.
        jobs: processes to use.
        progress: called in this process, once at the start and after every clip.

    Raises:
        UsageError: a plan that can't be made, or jobs below 1.
        DataSetError: OUT holds a set made by another plan, or can't be written.
    """
    plan.check()
    if jobs < 1:
        raise UsageError(f"jobs is {jobs}: give 1 or more")
    clips = [clip for machine in plan.machines for clip in plan_clips(plan, machine)]
    try:
        _claim(out, plan)
        written = _write(out, plan, clips, jobs, progress)
    except BrokenProcessPool as e:
        raise DataSetError(
            f"{out}: one of {jobs} processes was ended from outside; the same command goes on, try fewer jobs"
        ) from e
    except OSError as e:
        raise DataSetError(f"{out}: can't be written: {e}; choose a folder with room that you may write to") from e
    counts = Counter(clip.machine for clip in clips)
    return SimulationSummary(root=out, written=written, kept=len(clips) - written, clips=dict(counts))


def _write(out: Path, plan: SimulationPlan, clips: Sequence[PlannedClip], jobs: int, progress: Progress | None) -> int:
    """Everything below a claimed folder; returns how many clips had to be made."""
    raw = out / "dev_data" / "raw"
    for machine, split in sorted({(clip.machine, clip.split) for clip in clips}):
        (raw / machine / split).mkdir(parents=True, exist_ok=True)
    for machine in plan.machines:
        for section in range(plan.sections):
            _replace(raw / machine / f"attributes_{section:02d}.csv", attributes_csv(plan, machine, section).encode())
    todo = [clip for clip in clips if not _complete(raw / clip.relative, plan)]
    kept = len(clips) - len(todo)
    _tell(progress, kept, len(clips))
    for done, _ in enumerate(_made(raw, plan, todo, jobs), start=kept + 1):
        _tell(progress, done, len(clips))
    truth = {clip.relative: _truth(plan, clip) for clip in clips if clip.split == "test"}
    _replace(out / SIMULATION_NOTE, _report(plan, truth))
    return len(todo)


def write_smoke_dataset(
    out: Path, *, seed: int = 0, jobs: int = 1, progress: Progress | None = None
) -> SimulationSummary:
    """Write the small set that the smoke recipe learns from in a few minutes.

    Raises:
        UsageError, DataSetError: as `write_dataset`.
    """
    return write_dataset(out, replace(SMOKE, seed=seed), jobs=jobs, progress=progress)


@lru_cache(maxsize=64)
def _unit(machine: str, serial: int) -> SimulatedMachine:
    return SimulatedMachine(machine, serial)


def _scene(plan: SimulationPlan, clip: PlannedClip) -> tuple[Scene, np.random.Generator]:
    rng = np.random.default_rng(clip.seed)
    snr_db = plan.source_snr_db if clip.domain == "source" else plan.target_snr_db
    return draw_scene(DOMAINS[clip.machine][clip.domain], rng, snr_db, setting=clip.setting), rng


def _open(plan: SimulationPlan, clip: PlannedClip) -> SceneStream:
    scene, rng = _scene(plan, clip)
    return SceneStream(_unit(clip.machine, plan.serial + clip.section), scene, rng, plan.seconds, clip.alone)


def _make(raw: Path, plan: SimulationPlan, clip: PlannedClip) -> str:
    """Render and write one file; runs in any process."""
    stream = _open(plan, clip)
    if clip.failure is not None:
        stream.fail(clip.failure, clip.severity)
    buffer = io.BytesIO()
    soundfile.write(buffer, next(stream), SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    _replace(raw / clip.relative, buffer.getvalue())
    return clip.relative


def _made(raw: Path, plan: SimulationPlan, todo: Sequence[PlannedClip], jobs: int) -> Iterator[str]:
    make = partial(_make, raw, plan)
    if jobs == 1 or len(todo) < 2:
        yield from map(make, todo)
        return
    context = multiprocessing.get_context("spawn")  # fork is unsafe beside the threads of numeric libraries
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        try:
            yield from pool.map(make, todo, chunksize=max(1, min(16, len(todo) // (4 * jobs))))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _complete(path: Path, plan: SimulationPlan) -> bool:
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, OSError):
        return False
    whole = (SAMPLE_RATE_HZ, 1, round(plan.seconds * SAMPLE_RATE_HZ), "PCM_16")
    return bool((info.samplerate, info.channels, info.frames, info.subtype) == whole)


def _replace(path: Path, content: bytes) -> None:
    """Write beside, then rename: a file under its own name is always whole."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


_SIZES = ("source_train", "target_train", "test", "supplemental", "sections")


def _claim(out: Path, plan: SimulationPlan) -> None:
    """Mark a new folder as this plan's. A folder of another plan is refused; the same plan may have grown."""
    path = out / SIMULATION_NOTE
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        _replace(path, _report(plan, {}))
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))["parameters"]
        there = {"sections": 1, "supplement": "either", **there}  # a set of an earlier version names neither
        fits = {name: there[name] <= getattr(plan, name) for name in _SIZES}
        fits["machines"] = set(there["machines"]) <= set(plan.machines)
        wanted = json.loads(json.dumps(asdict(plan)))
        fits |= {name: there[name] == value for name, value in wanted.items() if name not in fits}
    except (ValueError, KeyError, TypeError) as e:
        raise DataSetError(f"{path}: can't be read ({e!r}); remove the folder, or give another") from e
    for name, good in fits.items():
        if not good:
            raise DataSetError(
                f"{path}: this set was made with {name} = {there[name]}, not {wanted[name]}; give another folder or remove it"
            )


def _report(plan: SimulationPlan, truth: Mapping[str, Mapping[str, object]]) -> bytes:
    note = "for reports only: what the test clips really hold; nothing that learns or judges may read it"
    return (
        json.dumps({"schema": 1, "note": note, "parameters": asdict(plan), "test": truth}, indent=1) + "\n"
    ).encode()


def _truth(plan: SimulationPlan, clip: PlannedClip) -> dict[str, object]:
    scene, _ = _scene(plan, clip)
    return {
        "failure": clip.failure,
        "severity": round(clip.severity, 4),
        "snr_db": round(scene.snr_db, 3),
        "noise": scene.noise,
        "attributes": dict(clip.setting),
    }


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
