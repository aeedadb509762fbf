"""A trained run and its clips → a bundle folder, complete and verified before it takes its place.

Owns the order of the steps and the manifest. It is written beside the target and moved there at the end: a bundle that fails half-way
leaves the old one as it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from asd_daemon.errors import ExportError, RecordingError
from asd_daemon.hear.simulator import SimulatedMachine
from asd_daemon.hear.simulator.scene import DOMAINS, SceneStream, draw_scene
from asd_daemon.judge.bundle import (
    MANIFEST,
    SCHEMA,
    Bundle,
    MachineEntry,
    Manifest,
    ModelEntry,
    ReferenceEntry,
    file_entry,
    load_bundle,
)
from asd_daemon.judge.index import ExactIndex
from asd_daemon.judge.mel import FEATURE
from asd_daemon.judge.scorer import DEFAULT_EXCEEDANCE, EmbedderSession, self_test, window_features
from asd_daemon.judge.signature import read_private_key, sign_manifest
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_S, WINDOW_SAMPLES, read_waveform
from asd_export.graphs import export_embedder
from asd_export.indexes import write_machine
from asd_export.quantize import Budget, Candidate, quantize_embedder
from asd_trainer.dataset import Clip, ClipTable, load_clip
from asd_trainer.embedder import Embedder

F32 = NDArray[np.float32]
Progress = Callable[[str, int, int], None]
"""Called with the step's name, how much of it is done, and how much there is."""

CHECKED_CLIPS = 48  # clips on which ONNX is compared with torch, and int8 calibrated and measured
REFERENCE_TOLERANCE = 5e-3  # processors sum int8 products in another order; a wrong model is off by 0.1 and more
REFERENCE_SOUNDS = (("fan", None), ("valve", "leak"))


@dataclass(frozen=True)
class Label:
    """What a bundle is called."""

    name: str
    version: str
    licence: str


@dataclass(frozen=True)
class ExportReport:
    """What was made, for the one who made it."""

    bundle: Bundle
    candidates: tuple[Candidate, ...]
    chosen: str
    torch_difference: float
    thresholds: Mapping[str, float]
    unread: tuple[str, ...]


def export_run(
    embedder: Embedder,
    table: ClipTable,
    target: Path,
    *,
    label: Label,
    fp32: bool,
    budget: Budget,
    progress: Progress,
    key: Path | None = None,
) -> ExportReport:
    """Write the bundle of a trained embedder and the normal clips of a table's machines.

    Args:
        embedder: in evaluation mode.
        table: its normal training clips become the machines' banks.
        target: the bundle's folder; an older bundle there is replaced, anything else is left alone.
        label: name, version and licence of the bundle.
        fp32: listen with the unquantised model.
        budget: what the int8 model must hold.
        progress: told of each step.
        key: the Ed25519 private key to sign with; None: not signed.

    Raises:
        BundleError: the key can't be used.
        ExportError: ONNX differs from torch, int8 misses its budget, a machine has no two normal clips, or `target` is something else.
    """
    if target.exists() and not (target / MANIFEST).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise ExportError(f"{target}: exists and is no bundle; name another folder")
    banks = {machine: table.select(split="train", machine=machine, label="normal") for machine in table.machines}
    for machine, clips in banks.items():
        if len(clips) < 2:
            raise ExportError(f"machine {machine}: has {len(clips)} normal training clip(s); a bank needs at least 2")
    if key is not None:
        read_private_key(key)  # before the work, not after it
    building = target.with_name(f".{target.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        report = _build(embedder, table, banks, building, label, fp32, budget, progress)
        if key is not None:
            sign_manifest(building / MANIFEST, key)
        _replace(target, building)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return replace(report, bundle=load_bundle(target))


def _build(
    embedder: Embedder,
    table: ClipTable,
    banks: Mapping[str, Sequence[Clip]],
    folder: Path,
    label: Label,
    fp32: bool,
    budget: Budget,
    progress: Progress,
) -> ExportReport:
    unread: list[str] = []
    features = _features(_spread(banks, CHECKED_CLIPS), unread, progress)
    progress("graph", 0, 1)
    difference = export_embedder(embedder, folder / "embedder.fp32.onnx", features)
    progress("graph", 1, 1)
    dim = embedder.shape.dimensions
    fp32_entry = ModelEntry(file="embedder.fp32.onnx", precision="fp32", dim=dim)
    entry, chosen = fp32_entry, "fp32"
    candidates: tuple[Candidate, ...] = ()
    if not fp32:
        progress("int8", 0, 1)
        best, candidates = quantize_embedder(
            folder / "embedder.fp32.onnx", folder / "embedder.onnx", features, dim, budget
        )
        entry, chosen = ModelEntry(file="embedder.onnx", precision="int8", dim=dim), best.way
        progress("int8", 1, 1)
    session = EmbedderSession(folder / entry.file, entry)
    sounds = _write_reference_sounds(folder)
    strangers = session.embed_waveforms([read_waveform(file) for file in sounds])
    machines, thresholds = _write_machines(session, table, banks, strangers, folder, unread, progress)
    reference = _reference(sounds, strangers, machines, folder)
    manifest = Manifest(
        schema=SCHEMA,
        name=label.name,
        version=label.version,
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        licence=label.licence,
        made_with={package: _version(package) for package in ("asd-edge", "torch", "onnx", "onnxruntime", "numpy")},
        feature=FEATURE,
        window_samples=WINDOW_SAMPLES,
        embedder=entry,
        embedder_fp32=None if fp32 else fp32_entry,
        machines=machines,
        reference=reference,
        files={p.relative_to(folder).as_posix(): file_entry(p) for p in sorted(folder.rglob("*")) if p.is_file()},
        figures={
            "torch_difference": difference,
            "chosen": chosen,
            "candidates": [asdict(c) for c in candidates],
            "thresholds": thresholds,
        },
    )
    text = json.dumps(manifest.model_dump(mode="json", by_alias=True), indent=1, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    bundle = load_bundle(folder)
    self_test(bundle)
    return ExportReport(bundle, candidates, chosen, difference, thresholds, tuple(unread))


def _spread(banks: Mapping[str, Sequence[Clip]], count: int) -> list[Clip]:
    """About `count` clips, evenly from every machine."""
    each = max(2, count // len(banks))
    spread: list[Clip] = []
    for clips in banks.values():
        places = np.linspace(0, len(clips) - 1, min(each, len(clips)))
        spread += [clips[int(place)] for place in places]
    return spread


def _features(clips: Sequence[Clip], unread: list[str], progress: Progress) -> F32:
    features = []
    for n, clip in enumerate(clips):
        progress("features", n, len(clips))
        try:
            features.append(window_features(load_clip(clip)))
        except RecordingError as e:
            unread.append(str(e))
    if len(features) < 2:
        raise ExportError(f"only {len(features)} of {len(clips)} clips could be read; first: {unread[0]}")
    return np.stack(features)  # (N, 1024, 128)


def _write_machines(
    session: EmbedderSession,
    table: ClipTable,
    banks: Mapping[str, Sequence[Clip]],
    strangers: F32,
    folder: Path,
    unread: list[str],
    progress: Progress,
) -> tuple[dict[str, MachineEntry], dict[str, float]]:
    embedded = {machine: _embed(session, machine, clips, unread, progress) for machine, clips in banks.items()}
    queries = [*embedded.values(), strangers]  # a failing machine sounds like none of its bank: far queries count too
    for machine in banks:
        if tests := table.select(split="test", machine=machine):
            queries.append(_embed(session, f"{machine} (test)", tests, unread, progress))
    machines, thresholds = {}, {}
    for machine, bank in embedded.items():
        relative = f"machines/{machine}"
        machines[machine], calibration = write_machine(folder / relative, relative, bank, np.concatenate(queries))
        thresholds[machine] = round(calibration.threshold(DEFAULT_EXCEEDANCE), 6)
    return machines, thresholds


def _embed(session: EmbedderSession, machine: str, clips: Sequence[Clip], unread: list[str], progress: Progress) -> F32:
    embeddings = []
    for n, clip in enumerate(clips):
        progress(machine, n, len(clips))
        try:
            embeddings.append(session.embed_waveforms([load_clip(clip)]))
        except RecordingError as e:
            unread.append(str(e))
    if not embeddings:
        raise ExportError(f"machine {machine}: none of its {len(clips)} clips could be read; last: {unread[-1]}")
    return np.concatenate(embeddings)  # (N, D)


def _write_reference_sounds(folder: Path) -> list[Path]:
    """Simulated sounds that every machine scores: they hold nobody's recording and test the whole path on another box."""
    (folder / "reference").mkdir()
    files = []
    for number, (name, failure) in enumerate(REFERENCE_SOUNDS):
        rng = np.random.default_rng(number)
        stream = SceneStream(SimulatedMachine(name), draw_scene(DOMAINS[name]["source"], rng), rng, WINDOW_S)
        if failure is not None:
            stream.fail(failure)
        files.append(folder / "reference" / f"{name}_{failure or 'healthy'}.flac")
        soundfile.write(str(files[-1]), next(stream), SAMPLE_RATE_HZ, subtype="PCM_16")
    return files


def _reference(
    sounds: Sequence[Path], embeddings: F32, machines: Mapping[str, MachineEntry], folder: Path
) -> tuple[ReferenceEntry, ...]:
    """The exact score of each sound (S, D) for each machine."""
    exact = {
        machine: ExactIndex(np.load(folder / entry.folder / "bank.npy", allow_pickle=False)).nearest(embeddings)[0]
        for machine, entry in machines.items()
    }
    return tuple(
        ReferenceEntry(
            file=file.relative_to(folder).as_posix(),
            scores={machine: round(float(distances[n, 0]), 6) for machine, distances in exact.items()},
            tolerance=REFERENCE_TOLERANCE,
        )
        for n, file in enumerate(sounds)
    )


def _replace(target: Path, building: Path) -> None:
    """Put the new bundle where the old one was."""
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    building.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
