"""What a bundle's manifest says: its classes, its bounds, and the names of a machine's files.

Owns the words of `manifest.json`; it opens no file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from asd_daemon.errors import BundleError
from asd_daemon.judge.features.log_mel import FeatureSpec

SCHEMA = 3  # of what this program reads
"""1: every machine needs the embedder's file to be there; 2 may do without models; 3 has banks beside fitted views. The lowest that says
all is written, so that older programs read what they can."""
MANIFEST = "manifest.json"
MAX_FILE_BYTES = 2 * 2**30
BANK, SEPARATED, INDEX = "bank.npy", "separated.npy", "index.hnsw"
CALIBRATION, FUSION, HALL = "calibration.json", "fusion.npz", "hall.npz"
MOST_STATES = 16
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
    """Written without the keys that say nothing and that older programs refuse."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    unsaid: ClassVar[Mapping[str, object]] = {}

    @model_serializer(mode="wrap")
    def _without_unsaid(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        return {key: value for key, value in content.items() if key not in self.unsaid or value != self.unsaid[key]}


class FileEntry(_Part):
    """One file of the bundle."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, le=MAX_FILE_BYTES)


class _Model(_Part):
    """What any model may take of a box; a bundle says so only where the usual bounds are too narrow."""

    memory_mb: int | None = Field(
        None, ge=16, le=16_384, description="most megabytes beyond the program's own; null: 512 and five times the file"
    )
    window_s: float | None = Field(
        None, gt=0, le=60, description="most seconds of CPU for a window; null: 10, as long as a window lasts"
    )
    load_s: float | None = Field(None, gt=0, le=600, description="most seconds of CPU for opening it; null: 60")


class ModelEntry(_Model):
    """One ONNX model: float32 features (B, 1024, 128) or windows (B, 160 000) in, unit-length float32 embeddings (B, dim) out."""

    unsaid = {"bands": 1}
    file: BundlePath
    precision: Literal["fp32", "int8"]
    dim: int = Field(ge=1, le=65_536)
    bands: int = Field(
        1,
        ge=1,
        le=1024,
        description="equal parts of an embedding that look for a nearest neighbour each by itself; their distances are averaged",
    )

    @model_validator(mode="after")
    def _has_equal_bands(self) -> Self:
        if self.dim % self.bands:
            raise ValueError(f"bands: {self.bands} are not equal parts of {self.dim}")
        return self


class SeparatorEntry(_Model):
    """The ONNX separator: float32 waveforms (B, 160 000) in, the machine's own (B, 160 000) out."""

    file: BundlePath
    precision: Literal["fp32", "int8"]


class OffLevel(_Part):
    """How quiet it is where a machine stands still."""

    below_dbfs: float = Field(allow_inf_nan=False, description="a window up to this level is one of the machine off")
    usual_dbfs: float = Field(allow_inf_nan=False, description="median level while it is off")
    share: float = Field(ge=0, le=1, description="share of the windows heard at enrolment")


class StateEntry(_Part):
    """A state in which a machine runs, with fitted views of its own."""

    name: str = Field(min_length=1, max_length=64)
    folder: BundlePath = Field(description="holds its fusion.npz")
    views: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(min_length=1, max_length=64)
    windows: int = Field(ge=2)
    level_dbfs: float | None = Field(None, allow_inf_nan=False, description="median level")


class MachineStates(_Part):
    """The states of a machine."""

    off: OffLevel | None = None
    running: tuple[StateEntry, ...] = Field((), max_length=MOST_STATES)


class HallEntry(_Part):
    """What is known of a machine's second microphone, far from it."""

    file: BundlePath = Field(description="how the two microphones hear the machine and the hall")
    way: Literal["near", "cancelled"] = Field(
        description="judged by the near microphone's sound as it is, or without what it hears of the hall"
    )
    near: MachineEntry | None = Field(
        None, description="what it is judged by where the far microphone is lost; null: by the same, as its way is near"
    )
    hall_dbfs: float = Field(
        allow_inf_nan=False, description="up to this level the hall was heard while it was learned"
    )
    machine_dbfs: float = Field(allow_inf_nan=False, description="median level of the machine without the hall")
    share: float = Field(ge=0, le=1, description="median share of the hall in a window's power")


class NearestEntry(_Part):
    """Embeddings of a machine's normal sound, in which the nearest neighbour is looked for (paper, section 2.3)."""

    folder: BundlePath = Field(description="holds bank.npy, separated.npy, index.hnsw and the calibration of distances")
    vectors: int = Field(ge=2, le=20_000_000)
    search: Literal["hnsw", "exact"] = Field(description="as of a machine")
    ef: int = Field(ge=1, le=100_000, description="likewise")
    recall: float = Field(ge=0, le=1, description="likewise")
    separated: bool = Field(description="whether the separated sound's distance is added")

    @property
    def files(self) -> tuple[str, ...]:
        """Files that its folder must hold, as paths."""
        optional = {BANK: True, INDEX: self.search == "hnsw", SEPARATED: self.separated, CALIBRATION: True}
        return tuple(f"{self.folder}/{name}" for name, needed in optional.items() if needed)


class MachineEntry(_Part):
    """A machine that the bundle knows."""

    unsaid = {"nearest": None}
    folder: BundlePath
    vectors: int = Field(ge=2, le=20_000_000)
    search: Literal["hnsw", "exact"] = Field(description="which search the exporter found to give the exact neighbour")
    ef: int = Field(ge=1, le=100_000, description="hnswlib's search width that reached the stated recall")
    recall: float = Field(ge=0, le=1, description="share of clips at hand whose hnsw neighbour is the exact one")
    separated: bool = Field(description="whether the separated sound's distance is added; false: the heard sound alone")
    views: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="views of fusion.npz in its order; null: the nearest neighbour alone",
    )
    nearest: NearestEntry | None = Field(
        None,
        description="of a machine with fitted views: what it is judged by where the configuration says `scoring: paper`",
    )
    states: MachineStates | None = Field(
        None, exclude=True, description="of a machine that was learned on the box; kept in its record, not here"
    )
    hall: HallEntry | None = Field(
        None, exclude=True, description="of a machine that was learned with two microphones; likewise"
    )

    @property
    def nearest_neighbour(self) -> NearestEntry | None:
        """Where its nearest neighbour is looked for; None where it has fitted views alone."""
        if self.views is not None:
            return self.nearest
        own = {key: getattr(self, key) for key in NearestEntry.model_fields}
        return NearestEntry.model_construct(**own)

    @property
    def files(self) -> tuple[str, ...]:
        """Files that its folder must hold; one with views, which hold their own references, may hold a bank too."""
        fused = self.views is not None
        optional = {BANK: not fused, INDEX: self.search == "hnsw", SEPARATED: self.separated, FUSION: fused}
        return (*(name for name, needed in optional.items() if needed), CALIBRATION)


class ReferenceEntry(_Part):
    """A sound of the bundle and the scores that this sound must get."""

    unsaid = {"nearest": {}}
    file: BundlePath
    scores: dict[MachineName, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    nearest: dict[MachineName, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default_factory=dict, description="by the nearest neighbour, of machines with fitted views"
    )
    tolerance: float = Field(gt=0, le=1)


class Manifest(_Part):
    """`manifest.json`."""

    schema_version: Literal[1, 2, 3] = Field(alias="schema")
    name: str = Field(min_length=1, max_length=100)
    version: str = Field(min_length=1, max_length=100)
    created: str
    licence: str
    made_with: dict[str, str]
    feature: FeatureSpec
    window_samples: int
    embedder: ModelEntry | None = Field(None, description="null: its machines are judged by views that need no model")
    embedder_fp32: ModelEntry | None = None
    separator: SeparatorEntry | None = None
    machines: dict[MachineName, MachineEntry] = Field(min_length=1)
    reference: tuple[ReferenceEntry, ...] = ()
    files: dict[BundlePath, FileEntry]
    figures: dict[str, Any] = Field(default_factory=dict, description="what was measured when the bundle was made")

    @property
    def embedding_size(self) -> int:
        """D of its embeddings.

        Raises:
            BundleError: it has no embedder.
        """
        if self.embedder is None:
            raise BundleError(f"{self.name} {self.version} has no embedder; its machines are judged by views alone")
        return self.embedder.dim

    @property
    def bands(self) -> int:
        """Parts of its embeddings that look for neighbours each by itself."""
        return 1 if self.embedder is None else self.embedder.bands

    @model_validator(mode="after")
    def _has_the_models_it_needs(self) -> Self:
        for name, machine in self.machines.items():
            if machine.nearest is not None and self.schema_version < SCHEMA:
                raise ValueError(f"machines.{name}.nearest: is known since schema {SCHEMA}")
            if machine.nearest is not None and machine.nearest.separated and self.separator is None:
                raise ValueError(f"machines.{name}.nearest.separated: true, but the bundle has no separator")
        if self.embedder is not None:
            return self
        if self.schema_version == 1:
            raise ValueError("embedder: is missing; only schema 2 may do without")
        if self.separator is not None or self.embedder_fp32 is not None:
            raise ValueError("embedder: is missing, but the bundle has a separator or an unquantised twin")
        for name, machine in self.machines.items():
            if machine.views is None or machine.separated or machine.nearest is not None:
                raise ValueError(f"machines.{name}: needs an embedder, and the bundle has none")
        return self

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
