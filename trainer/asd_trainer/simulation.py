"""A complete DCASE 2025 data set of simulated machines: folders, names, attributes, domains, supplemental clips.

Owns the layout that is written and what each file holds; the sound comes from asd_daemon.hear. Each file follows from (seed, serial,
machine, its own place in the set) alone, so a run that was broken off goes on where it stopped, in any number of processes. Loading
a data set is dataset.py's.
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from asd_daemon.errors import DataSetError, UsageError
from asd_daemon.hear.machine import stable_seed
from asd_daemon.hear.scene import DOMAINS, SNR_DB, DomainName, SceneStream, draw_scene
from asd_daemon.hear.simulator import MACHINES, SHORTEST_S, SimulatedMachine
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_S

WITHOUT_ATTRIBUTES = ("ToyTrain", "bearing", "slider")  # as in the 2025 development set
CLEAN_MACHINES = (
    "fan",
    "gearbox",
    "slider",
    "ToyCar",
)  # supplemental clips of the machine alone; the others: of the noise alone
SEVERITY = (0.4, 1.0)

Split = Literal["train", "test", "supplemental"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SimulationPlan:
    """What a simulated data set holds; the defaults are the sizes of the challenge."""

    machines: tuple[str, ...] = MACHINES
    source_train: int = 990
    target_train: int = 10
    test: int = 50
    """Clips of each domain and condition: four times as many in all."""
    supplemental: int = 100
    seconds: float = WINDOW_S
    source_snr_db: tuple[float, float] = SNR_DB["source"]
    target_snr_db: tuple[float, float] = SNR_DB["target"]
    severity: tuple[float, float] = SEVERITY
    """Range that the severity of anomalous clips is drawn from, in (0, 1]."""
    seed: int = 0
    serial: int = 0
    """Which unit of each machine."""

    def check(self) -> None:
        """Refuse what can't be made.

        Raises:
            UsageError: names the parameter, its value and what is allowed.
        """
        if not self.machines:
            raise UsageError("no machine to simulate: name at least one")
        for machine in self.machines:
            if machine not in MACHINES:
                raise UsageError(f"machine {machine!r} can't be simulated: use one of {', '.join(MACHINES)}")
        for name in ("source_train", "target_train", "test", "supplemental", "seed", "serial"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}: give 0 or more")
        if not SHORTEST_S <= self.seconds < float("inf"):
            raise UsageError(f"seconds is {self.seconds}: give {SHORTEST_S} or more")
        for name in ("source_snr_db", "target_snr_db", "severity"):
            low, high = getattr(self, name)
            if not low <= high:
                raise UsageError(f"{name} is {low} to {high}: give the lower bound first")
        if not 0 < self.severity[0] <= self.severity[1] <= 1:
            raise UsageError(f"severity is {self.severity[0]} to {self.severity[1]}: keep it within (0, 1]")


SMOKE = SimulationPlan(source_train=96, target_train=8, test=10, supplemental=20)


@dataclass(frozen=True)
class SimulationSummary:
    """What was done."""

    root: Path
    written: int
    kept: int
    """Clips that were there already, complete."""
    clips: Mapping[str, int] = field(default_factory=dict)
    """Clips of each machine, written and kept."""


@dataclass(frozen=True)
class PlannedClip:
    """One file of the set: where it lies and what is heard on it."""

    machine: str
    split: Split
    name: str
    domain: DomainName
    setting: Mapping[str, str]
    failure: str | None
    severity: float
    seed: tuple[int, ...]

    @property
    def relative(self) -> str:
        """Path below dev_data/raw, with slashes."""
        return f"{self.machine}/{self.split}/{self.name}"


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
    raw = out / "dev_data" / "raw"
    try:
        _claim(out, plan)
        for clip in clips:
            (raw / clip.machine / clip.split).mkdir(parents=True, exist_ok=True)
        for machine in plan.machines:
            _replace(raw / machine / "attributes_00.csv", _attributes_csv(plan, machine).encode())
        todo = [clip for clip in clips if not _complete(raw / clip.relative, plan)]
        kept = len(clips) - len(todo)
        truth: dict[str, dict[str, object]] = {}
        _tell(progress, kept, len(clips))
        for done, _ in enumerate(_made(raw, plan, todo, jobs), start=kept + 1):
            _tell(progress, done, len(clips))
        truth = {clip.relative: _truth(plan, clip) for clip in clips if clip.split == "test"}
        _replace(out / "simulation.json", _report(plan, truth))
    except BrokenProcessPool as e:
        raise DataSetError(
            f"{out}: one of {jobs} processes was ended from outside; the same command goes on, try fewer jobs"
        ) from e
    except OSError as e:
        raise DataSetError(f"{out}: can't be written: {e}; choose a folder with room that you may write to") from e
    counts = {machine: sum(clip.machine == machine for clip in clips) for machine in plan.machines}
    return SimulationSummary(root=out, written=len(todo), kept=kept, clips=counts)


def write_smoke_dataset(
    out: Path, *, seed: int = 0, jobs: int = 1, progress: Progress | None = None
) -> SimulationSummary:
    """Write the small set that the smoke recipe learns from in a few minutes.

    Raises:
        UsageError, DataSetError: as `write_dataset`.
    """
    plan = SimulationPlan(**{**_fields(SMOKE), "seed": seed})  # type: ignore[arg-type]
    return write_dataset(out, plan, jobs=jobs, progress=progress)


def plan_clips(plan: SimulationPlan, machine: str) -> Iterator[PlannedClip]:
    """Every file of one machine, in the order in which the set lists them."""
    train: tuple[tuple[DomainName, int], ...] = (("source", plan.source_train), ("target", plan.target_train))
    for domain, count in train:
        for number in range(count):
            yield _planned(plan, machine, "train", domain, number)
    domains: tuple[DomainName, ...] = ("source", "target")
    for domain in domains:
        for anomalous in (False, True):
            for number in range(plan.test):
                yield _planned(plan, machine, "test", domain, number, anomalous)
    for number in range(plan.supplemental):
        yield _planned(plan, machine, "supplemental", "source", number)


def _planned(
    plan: SimulationPlan, machine: str, split: Split, domain: DomainName, number: int, anomalous: bool = False
) -> PlannedClip:
    """One file: settings and failures go round, so that few clips still hold all of them; the rest is chance."""
    settings = DOMAINS[machine][domain].settings
    order = np.random.default_rng([plan.seed, *stable_seed("settings", machine, domain)]).permutation(len(settings))
    setting = settings[int(order[number % len(settings)])]
    label = "anomaly" if anomalous else "normal"
    seed = (plan.seed, *stable_seed("clip", machine, plan.serial, split, domain, label, number))
    failures = SimulatedMachine(machine, plan.serial).failures
    severity = float(np.random.default_rng([*seed, 1]).uniform(*plan.severity))
    words = "_".join(f"{name}_{value}" for name, value in setting.items())
    if machine in WITHOUT_ATTRIBUTES:
        words = "noAttribute"
    if split == "supplemental":
        clean = machine in CLEAN_MACHINES
        name = f"section_00_{'machine' if clean else 'noise'}_{number + 1:04d}_{words if clean else ''}.wav"
    else:
        name = f"section_00_{domain}_{split}_{label}_{number:04d}_{words}.wav"
    return PlannedClip(
        machine=machine,
        split=split,
        name=name,
        domain=domain,
        setting=setting,
        failure=failures[number % len(failures)] if anomalous else None,
        severity=severity if anomalous else 0.0,
        seed=seed,
    )


@lru_cache(maxsize=len(MACHINES))
def _unit(machine: str, serial: int) -> SimulatedMachine:
    return SimulatedMachine(machine, serial)


def _open(plan: SimulationPlan, clip: PlannedClip) -> SceneStream:
    rng = np.random.default_rng(clip.seed)
    snr_db = plan.source_snr_db if clip.domain == "source" else plan.target_snr_db
    scene = draw_scene(DOMAINS[clip.machine][clip.domain], rng, snr_db, setting=clip.setting)
    only: Literal["machine", "noise"] | None = None
    if clip.split == "supplemental":
        only = "machine" if clip.machine in CLEAN_MACHINES else "noise"
    return SceneStream(_unit(clip.machine, plan.serial), scene, rng, plan.seconds, only)


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
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _claim(out: Path, plan: SimulationPlan) -> None:
    """Mark a new folder as this plan's; a folder of another plan is refused, more or fewer clips of the same are fine."""
    path = out / "simulation.json"
    sizes = {"machines", "source_train", "target_train", "test", "supplemental"}
    if path.exists():
        try:
            there = json.loads(path.read_text(encoding="utf-8"))["parameters"]
        except (ValueError, KeyError, TypeError) as e:
            raise DataSetError(f"{path}: can't be read ({e}); remove it, or give an empty folder") from e
        for name, value in json.loads(json.dumps(asdict(plan))).items():
            if name not in sizes and there.get(name) != value:
                raise DataSetError(
                    f"{path}: this set was made with {name} = {there.get(name)}, not {value}; give another folder or remove it"
                )
    out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _replace(path, _report(plan, {}))


def _report(plan: SimulationPlan, truth: Mapping[str, Mapping[str, object]]) -> bytes:
    note = "for reports only: what the test clips really hold; nothing that learns or judges may read it"
    return (
        json.dumps({"schema": 1, "note": note, "parameters": asdict(plan), "test": truth}, indent=1) + "\n"
    ).encode()


def _truth(plan: SimulationPlan, clip: PlannedClip) -> dict[str, object]:
    scene = _open(plan, clip).scene
    return {
        "failure": clip.failure,
        "severity": round(clip.severity, 4),
        "snr_db": round(scene.snr_db, 3),
        "noise": scene.noise,
        "attributes": dict(clip.setting),
    }


def _attributes_csv(plan: SimulationPlan, machine: str) -> str:
    """file_name, then name and value of each attribute in turn; one empty pair where there are none."""
    names = tuple(SimulatedMachine(machine).attributes)
    hidden = machine in WITHOUT_ATTRIBUTES
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = range(1, 2 if hidden else len(names) + 1)
    writer.writerow(["file_name", *(f"d{i}{kind}" for i in columns for kind in "pv")])
    for clip in plan_clips(plan, machine):
        pairs = [word for name in names for word in (name, clip.setting[name])]
        if hidden:
            pairs = ["noAttribute", ""]
        elif clip.split == "supplemental" and machine not in CLEAN_MACHINES:
            pairs = [""] * len(pairs)
        writer.writerow([clip.relative, *pairs])
    return text.getvalue()


def _fields(plan: SimulationPlan) -> dict[str, object]:
    return {name: getattr(plan, name) for name in plan.__dataclass_fields__}


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
