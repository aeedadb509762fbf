"""THE contract between exporter and edge: a folder with a manifest, models, and one folder of normal sound a machine.

    manifest.json                        what manifest.py's `Manifest` says; every other file with its SHA-256 and size
    embedder.onnx [embedder.fp32.onnx]   the model that listens, and its unquantised twin; optional: views need none
    machines/<name>/bank.npy             embeddings of normal sound, float32 (N, D), rows of unit length
    machines/<name>/index.hnsw           the same as hnswlib's graph
    machines/<name>/calibration.json     the tail of normal scores
    machines/<name>/separated.npy        embeddings of the separated sound, rows as in bank.npy; where the machine is scored with it
    machines/<name>/fusion.npz           fitted views; where the machine is scored with them instead of the nearest neighbour alone
    machines/<name>/nearest/             then, optional: bank, index, separated and calibration of `scoring: paper`
    separator.onnx                       optional: heard waveform to the machine's own
    reference/*.flac                     sounds with the scores they must get on every box
    manifest.sig                         optional: Ed25519 over manifest.json (signature.py)

The exporter writes it with these classes and the edge reads it with them. Nothing in it is a pickle; no path leaves the folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import BundleError, UnknownMachineError
from asd_daemon.judge.bundle.manifest import (
    BANK,
    CALIBRATION,
    FUSION,
    INDEX,
    MANIFEST,
    SCHEMA,
    SEPARATED,
    BundlePath,
    FileEntry,
    MachineEntry,
    MachineName,
    Manifest,
    ModelEntry,
    ReferenceEntry,
    SeparatorEntry,
)
from asd_daemon.judge.bundle.nearest_files import NearestFiles, read_calibration
from asd_daemon.judge.bundle.own_bundle import default_bundle
from asd_daemon.judge.bundle.signature import check_signature
from asd_daemon.judge.distances.fusion import Fusion
from asd_daemon.judge.distances.fusion_file import read_fusion
from asd_daemon.judge.features.log_mel import FEATURE
from asd_daemon.judge.thresholds.calibration import Calibration
from asd_daemon.waveform import WINDOW_SAMPLES

__all__ = [
    "BANK",
    "CALIBRATION",
    "FUSION",
    "INDEX",
    "MANIFEST",
    "SCHEMA",
    "SEPARATED",
    "Bundle",
    "BundlePath",
    "FileEntry",
    "MachineEntry",
    "MachineName",
    "Manifest",
    "ModelEntry",
    "ReferenceEntry",
    "SeparatorEntry",
    "default_bundle",
    "file_entry",
    "load_bundle",
    "verify_file",
]

MAX_MANIFEST_BYTES = 4 * 2**20
MAX_BUNDLE_BYTES = 8 * 2**30
MAX_FUSION_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest
    enrolled: Mapping[str, tuple[Path, MachineEntry]] = field(default_factory=dict)
    """Machines learned on this box: where their folders lie, and what is in them. They go before the bundle's own."""
    left_out: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Views of a machine that it is judged without, as the models that they need are gone."""

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.manifest.version

    @cached_property
    def machines(self) -> tuple[str, ...]:
        """Names of the machines it knows, sorted."""
        return tuple(sorted({*self.manifest.machines, *self.enrolled}))

    def machine(self, name: str) -> MachineEntry:
        """A machine's entry.

        Raises:
            UnknownMachineError: the bundle does not know it; lists those it knows.
        """
        return self._found(name)[1]

    def folder(self, machine: str) -> Path:
        """Where a machine's files lie.

        Raises:
            UnknownMachineError: as `machine`.
        """
        root, entry = self._found(machine)
        return root / entry.folder

    def _found(self, name: str) -> tuple[Path, MachineEntry]:
        if name in self.enrolled:
            return self.enrolled[name]
        if name not in self.manifest.machines:
            raise UnknownMachineError(
                f"{self.path}: knows no machine {name!r}; it knows {', '.join(self.machines)};"
                f" `asd-daemon enroll --machine {name}` teaches it"
            )
        return self.path, self.manifest.machines[name]

    def nearest(self, machine: str) -> NearestFiles:
        """Where a machine's nearest neighbour is looked for.

        Raises:
            UnknownMachineError: as `machine`.
            BundleError: it has no bank of embeddings, or the bundle no embedder.
        """
        root, machine_entry = self._found(machine)
        entry, dim = machine_entry.nearest_neighbour, self.manifest.embedding_size
        if entry is None:
            raise BundleError(f"{self.folder(machine)}: has no bank of embeddings; export or enrol anew")
        return NearestFiles(root, entry, dim, self.manifest.bands)

    def bank(self, machine: str) -> NDArray[np.float32]:
        """A machine's normal embeddings, float32 (N, D), memory-mapped.

        Raises:
            BundleError: the file is not such an array, or there is none.
        """
        return self.nearest(machine).bank()

    def fusion(self, machine: str) -> Fusion | None:
        """The machine's fitted views; None where the nearest neighbour alone is its score.

        Raises:
            BundleError: the file is not a fusion of the views that the manifest names.
        """
        views = self.machine(machine).views
        if views is None:
            return None
        fusion = read_fusion(self.folder(machine) / FUSION, views, MAX_FUSION_BYTES)
        return fusion.without(self.left_out[machine]) if self.left_out.get(machine) else fusion

    def calibration(self, machine: str) -> Calibration:
        """The tail of the machine's normal scores.

        Raises:
            BundleError: the file is not a calibration.
        """
        return read_calibration(self.folder(machine) / CALIBRATION)


def load_bundle(path: Path, key: Path | None = None) -> Bundle:
    """Read and verify a bundle: manifest, that every file is there with its size and SHA-256, and that this program's features fit.

    Args:
        path: its folder.
        key: the public key that must have signed it; None: no signature is asked for.

    Raises:
        BundleError: what is wrong, in which file, and what to do.
    """
    manifest_path = path / MANIFEST
    if not path.is_dir():
        raise BundleError(f"{path}: is no bundle: there is no such folder; make one with `asd-export RUN {path}`")
    if not manifest_path.is_file():
        raise BundleError(f"{path}: is no bundle: it has no {MANIFEST}")
    text = _read_manifest(manifest_path)
    if key is not None:
        check_signature(text, path, key)
    manifest = Manifest.parse(text, manifest_path)
    if manifest.feature != FEATURE:
        theirs, ours = manifest.feature.model_dump(), FEATURE.model_dump()
        wrong = next(k for k in ours if ours[k] != theirs[k])
        raise BundleError(
            f"{manifest_path}: feature.{wrong}: {theirs[wrong]}, but this asd-daemon computes {ours[wrong]}; export the bundle anew"
        )
    if manifest.window_samples != WINDOW_SAMPLES:
        raise BundleError(
            f"{manifest_path}: window_samples: {manifest.window_samples}, this asd-daemon listens in {WINDOW_SAMPLES}"
        )
    for name in _needed_files(manifest):
        if name not in manifest.files:
            raise BundleError(f"{manifest_path}: files: {name} is used but not listed with its hash")
    for name, machine in manifest.machines.items():
        if machine.separated and manifest.separator is None:
            raise BundleError(f"{manifest_path}: machines.{name}.separated: true, but the bundle has no separator")
    total = sum(entry.bytes for entry in manifest.files.values())
    if total > MAX_BUNDLE_BYTES:
        raise BundleError(f"{manifest_path}: files: {total} bytes in all are more than {MAX_BUNDLE_BYTES}")
    for name, entry in manifest.files.items():
        verify_file(path, name, entry)
    return Bundle(path, manifest)


def _read_manifest(path: Path) -> bytes:
    try:
        with path.open("rb") as f:
            text = f.read(MAX_MANIFEST_BYTES + 1)
    except OSError as e:
        raise BundleError(f"{path}: can't be read: {e.strerror}") from e
    if len(text) > MAX_MANIFEST_BYTES:
        raise BundleError(f"{path}: is larger than {MAX_MANIFEST_BYTES} bytes")
    return text


def file_entry(path: Path) -> FileEntry:
    """A file's size and SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(2**20):
            digest.update(chunk)
    return FileEntry(sha256=digest.hexdigest(), bytes=path.stat().st_size)


def _needed_files(manifest: Manifest) -> list[str]:
    models = (manifest.embedder, manifest.embedder_fp32, manifest.separator)
    names = [m.file for m in models if m is not None]
    names += [reference.file for reference in manifest.reference]
    for entry in manifest.machines.values():
        names += [f"{entry.folder}/{name}" for name in entry.files]
        names += entry.nearest.files if entry.nearest is not None else ()
    return names


def verify_file(root: Path, name: str, entry: FileEntry) -> None:
    """Refuse a file that is not what its entry says.

    Raises:
        BundleError: it is missing, leads out of `root`, or has another size or SHA-256.
    """
    file = root / name
    try:
        if not file.is_file():
            raise BundleError(f"{file}: is missing; copy the bundle again or export it anew")
        if not file.resolve().is_relative_to(root.resolve()):
            raise BundleError(f"{file}: leads out of the bundle")
        size = file.stat().st_size
        if size != entry.bytes:
            raise BundleError(f"{file}: has {size} bytes, the manifest says {entry.bytes}; copy the bundle again")
        found = file_entry(file)
    except (OSError, ValueError) as e:  # ValueError: a name that no file system takes
        raise BundleError(f"{file}: can't be read: {e}") from e
    if found.sha256 != entry.sha256:
        raise BundleError(f"{file}: does not have the SHA-256 that the manifest says; it was changed or damaged")
