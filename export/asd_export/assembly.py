"""A trained run and its clips → a bundle folder, complete and verified before it takes its place.

Owns the order of the steps and the manifest. It is written beside the target and moved there at the end: a bundle that fails half-way
leaves the old one as it was.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
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
    Manifest,
    ModelEntry,
    ReferenceEntry,
    SeparatorEntry,
    file_entry,
    load_bundle,
)
from asd_daemon.judge.mel import FEATURE
from asd_daemon.judge.scorer import Hearing, Scorer, self_test
from asd_daemon.judge.sessions import EmbedderSession, SeparatorSession, window_features
from asd_daemon.judge.signature import read_private_key, sign_manifest
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_S, WINDOW_SAMPLES, read_waveform
from asd_export.graphs import export_embedder
from asd_export.indexes import KnownMachine, Progress, Scoring, write_machines
from asd_export.quantize import Budget, Candidate, quantize_embedder
from asd_export.separators import SeparatorBudget, SeparatorFigures, export_separator
from asd_trainer.dataset import Clip, ClipTable, load_clip
from asd_trainer.embedder import Embedder
from asd_trainer.separator import Separator

F32 = NDArray[np.float32]

SEPARATED_CLIPS = 16  # clips on which the int8 separator is measured
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
    machines: Mapping[str, KnownMachine]
    separator: SeparatorFigures | None
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
    separator: Separator | None = None,
    scoring: Scoring = "nearest",
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
        separator: in evaluation mode; None: the machines are judged as they are heard.
        scoring: the nearest neighbour, or views chosen for each machine.

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
        making = _Making(table, banks, building, label, fp32, budget, progress, scoring)
        report = making.build(embedder, separator)
        if key is not None:
            sign_manifest(building / MANIFEST, key)
        _replace(target, building)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return replace(report, bundle=load_bundle(target))


@dataclass(frozen=True)
class _Making:
    """One bundle being made."""

    table: ClipTable
    banks: Mapping[str, Sequence[Clip]]
    folder: Path
    label: Label
    fp32: bool
    budget: Budget
    progress: Progress
    scoring: Scoring

    def build(self, embedder: Embedder, separator: Separator | None) -> ExportReport:
        """Write everything into the folder, and verify it."""
        unread: list[str] = []
        windows = _read(_spread(self.banks, CHECKED_CLIPS), unread, self.progress)
        entry, fp32_entry, candidates, chosen, difference = self._embedder(embedder, windows)
        separator_entry, separator_figures = self._separator(separator, windows)
        session = EmbedderSession(self.folder / entry.file, entry)
        separating = SeparatorSession(self.folder / separator_entry.file) if separator_entry else None
        sounds = _write_reference_sounds(self.folder)
        machines = write_machines(
            Hearing(session, separating),
            self.table,
            session.embed_waveforms([read_waveform(file) for file in sounds]),
            self.folder,
            scoring=self.scoring,
            separates=separating is not None,
            unread=unread,
            progress=self.progress,
        )
        manifest = Manifest(
            schema=SCHEMA,
            name=self.label.name,
            version=self.label.version,
            created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            licence=self.label.licence,
            made_with={package: _version(package) for package in ("asd-edge", "torch", "onnx", "onnxruntime", "numpy")},
            feature=FEATURE,
            window_samples=WINDOW_SAMPLES,
            embedder=entry,
            embedder_fp32=None if self.fp32 else fp32_entry,
            separator=separator_entry,
            machines={name: known.entry for name, known in machines.items()},
            files={},
            figures={
                "torch_difference": difference,
                "chosen": chosen,
                "candidates": [asdict(c) for c in candidates],
                "thresholds": {name: known.threshold for name, known in machines.items()},
                "views": {name: dict(known.weights) for name, known in machines.items() if known.weights},
                "separator": asdict(separator_figures) if separator_figures else None,
            },
        )
        reference = _reference(sounds, Bundle(self.folder, manifest), session, separating)
        files = sorted(p for p in self.folder.rglob("*") if p.is_file())
        entries = {p.relative_to(self.folder).as_posix(): file_entry(p) for p in files}
        manifest = manifest.model_copy(update={"reference": reference, "files": entries})
        text = json.dumps(manifest.model_dump(mode="json", by_alias=True), indent=1, allow_nan=False)
        (self.folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
        bundle = load_bundle(self.folder)
        self_test(bundle)
        return ExportReport(bundle, candidates, chosen, difference, machines, separator_figures, tuple(unread))

    def _embedder(
        self, embedder: Embedder, windows: Sequence[F32]
    ) -> tuple[ModelEntry, ModelEntry, tuple[Candidate, ...], str, float]:
        """The embedder that listens, its fp32 twin, what was tried, what was chosen, and how far ONNX is from torch."""
        features = np.stack([window_features(window) for window in windows])  # (N, 1024, 128)
        self.progress("graph", 0, 1)
        difference = export_embedder(embedder, self.folder / "embedder.fp32.onnx", features)
        self.progress("graph", 1, 1)
        dim = embedder.shape.dimensions
        fp32_entry = ModelEntry(file="embedder.fp32.onnx", precision="fp32", dim=dim)
        if self.fp32:
            return fp32_entry, fp32_entry, (), "fp32", difference
        self.progress("int8", 0, 1)
        best, candidates = quantize_embedder(
            self.folder / "embedder.fp32.onnx", self.folder / "embedder.onnx", features, dim, self.budget
        )
        self.progress("int8", 1, 1)
        entry = ModelEntry(file="embedder.onnx", precision="int8", dim=dim)
        return entry, fp32_entry, candidates, best.way, difference

    def _separator(
        self, separator: Separator | None, windows: Sequence[F32]
    ) -> tuple[SeparatorEntry | None, SeparatorFigures | None]:
        """The separator, where there is one, and what was measured of it."""
        if separator is None:
            return None, None
        self.progress("separator", 0, 1)
        file, figures = self.folder / "separator.onnx", None
        if self.fp32:
            export_separator(separator, file, None, windows, SeparatorBudget())
        else:
            traced = self.folder / "separator.fp32.onnx"
            figures = export_separator(separator, traced, file, windows[:SEPARATED_CLIPS], SeparatorBudget())
            traced.unlink()
        self.progress("separator", 1, 1)
        return SeparatorEntry(file=file.name, precision="fp32" if self.fp32 else "int8"), figures


def _spread(banks: Mapping[str, Sequence[Clip]], count: int) -> list[Clip]:
    """About `count` clips, evenly from every machine."""
    each = max(2, count // len(banks))
    spread: list[Clip] = []
    for clips in banks.values():
        places = np.linspace(0, len(clips) - 1, min(each, len(clips)))
        spread += [clips[int(place)] for place in places]
    return spread


def _read(clips: Sequence[Clip], unread: list[str], progress: Progress) -> list[F32]:
    windows = []
    for n, clip in enumerate(clips):
        progress("clips", n, len(clips))
        try:
            windows.append(load_clip(clip))
        except RecordingError as e:
            unread.append(str(e))
    if len(windows) < 2:
        raise ExportError(f"only {len(windows)} of {len(clips)} clips could be read; first: {unread[0]}")
    return windows


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
    sounds: Sequence[Path], bundle: Bundle, session: EmbedderSession, separator: SeparatorSession | None
) -> tuple[ReferenceEntry, ...]:
    """The score of each sound for each machine, by the files that were just written."""
    scorers = {m: Scorer(bundle, m, session=session, separator=separator) for m in bundle.machines}
    heard = {file: read_waveform(file) for file in sounds}
    return tuple(
        ReferenceEntry(
            file=file.relative_to(bundle.path).as_posix(),
            scores={machine: round(scorer.score(sound).score, 6) for machine, scorer in scorers.items()},
            tolerance=REFERENCE_TOLERANCE,
        )
        for file, sound in heard.items()
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
