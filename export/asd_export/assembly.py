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
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import ExportError, RecordingError
from asd_daemon.judge.bundle.bundle import (
    MANIFEST,
    Bundle,
    Manifest,
    ModelEntry,
    SeparatorEntry,
    file_entry,
    load_bundle,
)
from asd_daemon.judge.bundle.onnx_sessions import EmbedderSession, SeparatorSession
from asd_daemon.judge.bundle.signature import read_private_key, sign_manifest
from asd_daemon.judge.features.log_mel import FEATURE
from asd_daemon.judge.scoring.scorer import FeatureExtractor
from asd_daemon.judge.scoring.self_test import self_test
from asd_daemon.learn.machine_files import LEAST_GRAPH_VECTORS
from asd_daemon.waveform import WINDOW_SAMPLES, read_waveform
from asd_export.held_out import TestSplit
from asd_export.indexes import KnownMachine, Progress, Scoring, refuse_too_few, write_machines
from asd_export.model_card import Learning, write_card
from asd_export.models import MeasuredModel, ModelExporter
from asd_export.quantize import Budget
from asd_export.references import reference_scores, write_reference_sounds
from asd_trainer.data.dataset import Clip, ClipTable, load_clip
from asd_trainer.networks.embedder import AnyEmbedder
from asd_trainer.networks.separator import Separator

F32 = NDArray[np.float32]

CHECKED_CLIPS = 48  # clips on which ONNX is compared with torch, and int8 calibrated and measured


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
    embedder: MeasuredModel | None
    separator: MeasuredModel | None
    machines: Mapping[str, KnownMachine]
    unread: tuple[str, ...]


def export_run(
    embedder: AnyEmbedder | None,
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
    measures_omega: bool = True,
    learning: Learning | None = None,
    least_graph: int = LEAST_GRAPH_VECTORS,
    keeps_twin: bool = True,
) -> ExportReport:
    """Write the bundle of a trained embedder and the normal clips of a table's machines.

    Args:
        embedder: in evaluation mode; None: a bundle without models, whose machines are judged by views.
        table: its normal training clips become the machines' banks.
        target: the bundle's folder; an older bundle there is replaced, anything else is left alone.
        label: name, version and licence of the bundle.
        fp32: listen with the unquantised model.
        budget: what the int8 models must hold.
        progress: told of each step.
        key: the Ed25519 private key to sign with; None: not signed.
        separator: in evaluation mode; None: the machines are judged as they are heard.
        scoring: the nearest neighbour, or views of its steady sound and movement.
        measures_omega: measure each model's Ω on the table's test split, where there is one.
        learning: what the models learned from, for the model card; None: it does not say.
        least_graph: from how many vectors on a machine's bank has a graph.
        keeps_twin: whether the unquantised embedder that int8 was compared with goes into the bundle too; nothing is judged by it.

    Raises:
        BundleError: the key can't be used.
        ValueError: no embedder, and machines that are scored by one.
        ExportError: ONNX differs from torch, int8 misses its budget, a machine has no two normal clips (of views: 16), or
            `target` is something else.
    """
    if embedder is None and (scoring != "views" or separator is not None):
        raise ValueError("without an embedder machines are judged by views alone")
    if target.exists() and not (target / MANIFEST).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise ExportError(f"{target}: exists and is no bundle; name another folder")
    banks = {machine: table.select(split="train", machine=machine, label="normal") for machine in table.machines}
    for machine, clips in banks.items():
        if len(clips) < 2:
            raise ExportError(f"machine {machine}: has {len(clips)} normal training clip(s); a bank needs at least 2")
        if scoring == "views":
            refuse_too_few(machine, len(clips))
    if key is not None:
        read_private_key(key)  # before the work, not after it
    building = target.with_name(f".{target.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        split = TestSplit.of(table) if measures_omega else None
        making = _Making(
            table, banks, building, label, fp32, budget, progress, scoring, split, learning, least_graph, keeps_twin
        )
        report = making.build(embedder, separator)
        if key is not None:
            sign_manifest(building / MANIFEST, key)
        _replace(target, building)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return replace(report, bundle=load_bundle(target))


@dataclass(frozen=True)
class _Models:
    """The models of a bundle, written and open; nothing where it has none."""

    entry: ModelEntry | None = None
    twin: ModelEntry | None = None
    separator: SeparatorEntry | None = None
    session: EmbedderSession | None = None
    separating: SeparatorSession | None = None
    embedder_tried: MeasuredModel | None = None
    separator_tried: MeasuredModel | None = None


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
    split: TestSplit | None
    learning: Learning | None
    least_graph: int
    keeps_twin: bool

    def build(self, embedder: AnyEmbedder | None, separator: Separator | None) -> ExportReport:
        """Write everything into the folder, and verify it."""
        unread: list[str] = []
        made = self._models(embedder, separator, unread) if embedder is not None else _Models()
        sounds = write_reference_sounds(self.folder)
        strangers = np.empty((0, 0), np.float32)
        if made.session is not None:
            strangers = made.session.embed_waveforms([read_waveform(file) for file in sounds])
        machines = write_machines(
            FeatureExtractor(made.session, made.separating),
            self.table,
            strangers,
            self.folder,
            scoring=self.scoring,
            embeds=made.session is not None,
            separates=made.separating is not None,
            least_graph=self.least_graph,
            bands=made.entry.bands if made.entry else 1,
            unread=unread,
            progress=self.progress,
        )
        manifest = self._manifest(made, machines)
        write_card(self.folder, manifest, made.embedder_tried, made.separator_tried, self.learning)
        reference = reference_scores(sounds, Bundle(self.folder, manifest), made.session, made.separating)
        files = sorted(p for p in self.folder.rglob("*") if p.is_file())
        entries = {p.relative_to(self.folder).as_posix(): file_entry(p) for p in files}
        manifest = manifest.model_copy(update={"reference": reference, "files": entries})
        text = json.dumps(manifest.model_dump(mode="json", by_alias=True), indent=1, allow_nan=False) + "\n"
        (self.folder / MANIFEST).write_text(text, encoding="utf-8")
        self_test(bundle := load_bundle(self.folder))
        return ExportReport(bundle, made.embedder_tried, made.separator_tried, machines, tuple(dict.fromkeys(unread)))

    def _models(self, embedder: AnyEmbedder, separator: Separator | None, unread: list[str]) -> _Models:
        """Write the models into the folder, and open them."""
        workshop = ModelExporter(self.folder, self.fp32, self.budget, self.split, unread, self.progress)
        windows = _read(_spread(self.banks, CHECKED_CLIPS), unread, self.progress)
        entry, twin, tried = workshop.embedder(embedder, windows)
        session = EmbedderSession(self.folder / entry.file, entry)
        separator_entry, separator_tried = workshop.separator(separator, windows, session, entry.bands)
        separating = SeparatorSession(self.folder / separator_entry.file) if separator_entry else None
        if not self.keeps_twin and not self.fp32:
            (self.folder / twin.file).unlink()
        kept = twin if self.keeps_twin and not self.fp32 else None
        return _Models(entry, kept, separator_entry, session, separating, tried, separator_tried)

    def _manifest(self, made: _Models, machines: Mapping[str, KnownMachine]) -> Manifest:
        """What the bundle is; its files and reference scores are added when they are written."""
        packages = (
            ("asd-edge", "numpy") if made.entry is None else ("asd-edge", "torch", "onnx", "onnxruntime", "numpy")
        )
        return Manifest(
            schema=_schema(made, machines),
            name=self.label.name,
            version=self.label.version,
            created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            licence=self.label.licence,
            made_with={package: _version(package) for package in packages},
            feature=FEATURE,
            window_samples=WINDOW_SAMPLES,
            embedder=made.entry,
            embedder_fp32=made.twin,
            separator=made.separator,
            machines={name: known.entry for name, known in machines.items()},
            files={},
            figures={
                **(made.embedder_tried.figures() if made.embedder_tried else {}),
                "thresholds": {name: known.threshold for name, known in machines.items()},
                "views": {name: dict(known.weights) for name, known in machines.items() if known.weights},
                "embedder_weight": {name: asdict(known.evidence) for name, known in machines.items() if known.evidence},
                "separator": made.separator_tried.figures() if made.separator_tried else None,
            },
        )


def _schema(made: _Models, machines: Mapping[str, KnownMachine]) -> Literal[1, 2, 3]:
    """The lowest that says all of it."""
    if made.entry is None:
        return 2
    return 3 if any(known.entry.nearest is not None for known in machines.values()) else 1


def _spread(banks: Mapping[str, Sequence[Clip]], count: int) -> list[Clip]:
    """About `count` clips, evenly from every machine."""
    each = max(2, count // len(banks))
    return [
        clips[int(place)] for clips in banks.values() for place in np.linspace(0, len(clips) - 1, min(each, len(clips)))
    ]


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
