"""THE contract between exporter and edge: a folder with a manifest, models, and one folder of normal sound a machine.

    manifest.json                        what this file's `Manifest` says; every other file with its SHA-256 and size
    embedder.onnx [embedder.fp32.onnx]   the model that listens, and its unquantised twin
    machines/<name>/bank.npy             embeddings of normal sound, float32 (N, D), rows of unit length
    machines/<name>/index.hnsw           the same as hnswlib's graph
    machines/<name>/calibration.json     the tail of normal scores
    reference/*.flac                     sounds with the scores they must get on every box

The exporter writes it with these classes and the edge reads it with them. Nothing in it is a pickle; no path leaves the folder.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from asd_daemon.errors import BundleError, UnknownMachineError
from asd_daemon.judge.calibration import Calibration
from asd_daemon.judge.index import ExactIndex, HnswIndex, NeighbourIndex
from asd_daemon.judge.mel import FEATURE, FeatureSpec
from asd_daemon.waveform import WINDOW_SAMPLES

SCHEMA = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 4 * 2**20
MACHINE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"


def _inside(path: str) -> str:
    """Refuse a path that could leave the bundle."""
    pure = PurePosixPath(path)
    if not path or "\\" in path or "\0" in path or pure.is_absolute() or ".." in pure.parts or pure.as_posix() != path:
        raise ValueError(f"{path!r} must be a plain path inside the bundle")
    return path


BundlePath = Annotated[str, Field(max_length=255), AfterValidator(_inside)]
MachineName = Annotated[str, Field(pattern=MACHINE_NAME)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileEntry(_Part):
    """One file of the bundle."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class ModelEntry(_Part):
    """One ONNX model: float32 features (B, 1024, 128) in, unit-length float32 embeddings (B, dim) out."""

    file: BundlePath
    precision: Literal["fp32", "int8"]
    dim: int = Field(ge=1, le=65_536)


class MachineEntry(_Part):
    """A machine that the bundle knows."""

    folder: BundlePath
    vectors: int = Field(ge=2)
    search: Literal["hnsw", "exact"] = Field(description="which search the exporter found to give the exact neighbour")
    ef: int = Field(ge=1, le=100_000, description="hnswlib's search width that reached the stated recall")
    recall: float = Field(ge=0, le=1, description="share of clips at hand whose hnsw neighbour is the exact one")
    separated: bool = Field(description="whether the separated sound's distance is added; false: the heard sound alone")


class ReferenceEntry(_Part):
    """A sound of the bundle and the scores that this sound must get."""

    file: BundlePath
    scores: dict[MachineName, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    tolerance: float = Field(gt=0, le=1)


class Manifest(_Part):
    """`manifest.json`."""

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(min_length=1, max_length=100)
    version: str = Field(min_length=1, max_length=100)
    created: str
    licence: str
    made_with: dict[str, str]
    feature: FeatureSpec
    window_samples: int
    embedder: ModelEntry
    embedder_fp32: ModelEntry | None = None
    machines: dict[MachineName, MachineEntry] = Field(min_length=1)
    reference: tuple[ReferenceEntry, ...] = ()
    files: dict[BundlePath, FileEntry]
    figures: dict[str, Any] = Field(default_factory=dict, description="what was measured when the bundle was made")

    @classmethod
    def parse(cls, text: bytes, path: Path) -> Manifest:
        """Read a manifest's JSON.

        Raises:
            BundleError: not JSON, of a newer schema, or not as this class says; names the key.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise BundleError(f"{path}: is not valid JSON: {e}") from e
        if not isinstance(raw, dict):
            raise BundleError(f"{path}: must hold a JSON object, not {type(raw).__name__}")
        schema = raw.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise BundleError(
                f"{path}: schema: {schema} is newer than this asd-daemon reads ({SCHEMA}); update asd-edge"
            )
        try:
            return cls.model_validate(raw)
        except ValidationError as e:
            first = e.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"]) or "manifest"
            raise BundleError(f"{path}: {key}: {first['msg']} (and {e.error_count() - 1} more)") from e


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest

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
        return tuple(sorted(self.manifest.machines))

    def machine(self, name: str) -> MachineEntry:
        """A machine's entry.

        Raises:
            UnknownMachineError: the bundle does not know it; lists those it knows.
        """
        try:
            return self.manifest.machines[name]
        except KeyError:
            raise UnknownMachineError(
                f"{self.path}: knows no machine {name!r}; it knows {', '.join(self.machines)}"
            ) from None

    def bank(self, machine: str) -> NDArray[np.float32]:
        """A machine's normal embeddings, float32 (N, D), memory-mapped.

        Raises:
            BundleError: the file is not such an array.
        """
        entry = self.machine(machine)
        path = self.path / entry.folder / "bank.npy"
        try:
            bank = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as e:
            raise BundleError(f"{path}: is not a readable array: {e}") from e
        expected = (entry.vectors, self.manifest.embedder.dim)
        if bank.shape != expected or bank.dtype != np.float32:
            raise BundleError(f"{path}: holds {bank.dtype} {bank.shape}, the manifest says float32 {expected}")
        return np.asarray(bank)

    def index(self, machine: str) -> NeighbourIndex:
        """The machine's neighbours: hnswlib where the manifest trusts it and it is installed, else exact search."""
        entry = self.machine(machine)
        if entry.search == "hnsw" and HnswIndex.available():
            file = self.path / entry.folder / "index.hnsw"
            return HnswIndex.load(file, size=entry.vectors, dim=self.manifest.embedder.dim, ef=entry.ef)
        return ExactIndex(self.bank(machine))

    def calibration(self, machine: str) -> Calibration:
        """The tail of the machine's normal scores.

        Raises:
            BundleError: the file is not a calibration.
        """
        path = self.path / self.machine(machine).folder / "calibration.json"
        try:
            return Calibration.model_validate_json(path.read_bytes())
        except ValidationError as e:
            first = e.errors(include_url=False)[0]
            raise BundleError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from e


def default_bundle() -> Path:
    """The bundle that comes with the package."""
    return Path(str(resources.files("asd_daemon"))) / "bundles" / "default"


def load_bundle(path: Path) -> Bundle:
    """Read and verify a bundle: manifest, that every file is there with its size and SHA-256, and that this program's features fit.

    Raises:
        BundleError: what is wrong, in which file, and what to do.
    """
    manifest_path = path / MANIFEST
    if not path.is_dir():
        raise BundleError(f"{path}: is no bundle: there is no such folder; make one with `asd-export RUN {path}`")
    if not manifest_path.is_file():
        raise BundleError(f"{path}: is no bundle: it has no {MANIFEST}")
    if manifest_path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError(f"{manifest_path}: is larger than {MAX_MANIFEST_BYTES} bytes")
    manifest = Manifest.parse(manifest_path.read_bytes(), manifest_path)
    if manifest.feature != FEATURE:
        theirs, ours = manifest.feature.model_dump(), FEATURE.model_dump()
        key = next(k for k in ours if ours[k] != theirs[k])
        raise BundleError(
            f"{manifest_path}: feature.{key}: {theirs[key]}, but this asd-daemon computes {ours[key]}; export the bundle anew"
        )
    if manifest.window_samples != WINDOW_SAMPLES:
        raise BundleError(
            f"{manifest_path}: window_samples: {manifest.window_samples}, this asd-daemon listens in {WINDOW_SAMPLES}"
        )
    for name in _needed_files(manifest):
        if name not in manifest.files:
            raise BundleError(f"{manifest_path}: files: {name} is used but not listed with its hash")
    for name, entry in manifest.files.items():
        _verify_file(path, name, entry)
    return Bundle(path, manifest)


def file_entry(path: Path) -> FileEntry:
    """A file's size and SHA-256."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(2**20):
            digest.update(chunk)
    return FileEntry(sha256=digest.hexdigest(), bytes=path.stat().st_size)


def _needed_files(manifest: Manifest) -> list[str]:
    names = [m.file for m in (manifest.embedder, manifest.embedder_fp32) if m is not None]
    names += [reference.file for reference in manifest.reference]
    for entry in manifest.machines.values():
        names += [f"{entry.folder}/bank.npy", f"{entry.folder}/calibration.json"]
        if entry.search == "hnsw":
            names.append(f"{entry.folder}/index.hnsw")
    return names


def _verify_file(root: Path, name: str, entry: FileEntry) -> None:
    file = root / name
    if not file.is_file():
        raise BundleError(f"{file}: is missing; copy the bundle again or export it anew")
    if not file.resolve().is_relative_to(root.resolve()):
        raise BundleError(f"{file}: leads out of the bundle")
    size = file.stat().st_size
    if size != entry.bytes:
        raise BundleError(f"{file}: has {size} bytes, the manifest says {entry.bytes}; copy the bundle again")
    if file_entry(file).sha256 != entry.sha256:
        raise BundleError(f"{file}: does not have the SHA-256 that the manifest says; it was changed or damaged")
