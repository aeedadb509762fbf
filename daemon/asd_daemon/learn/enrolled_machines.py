"""Machines learned on this box: a folder each beside the bundle, with a record of what they were learned from.

    ROOT/<machine>/enrolled.json     the record; replaced in one step, so that a machine is always one whole learned state
    ROOT/<machine>/<stamp>/          its files, as in a bundle, and sound.npz: the vectors it was learned from

Owns these files. It learns nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from asd_daemon.errors import UNREADABLE_ARRAY, BundleError
from asd_daemon.judge.bundle.bundle import (
    Bundle,
    BundlePath,
    FileEntry,
    MachineEntry,
    MachineName,
    file_entry,
    verify_file,
)
from asd_daemon.learn.normal_sound import NormalSound

RECORD = "enrolled.json"
SOUND = "sound.npz"
MAX_RECORD_BYTES = 2**20

Finite = Annotated[float, Field(allow_inf_nan=False)]


class EnrolmentRecord(BaseModel):
    """`enrolled.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = Field(1, alias="schema")
    machine: MachineName
    created: str
    bundle: str = Field(description="name and version of the bundle whose models heard it")
    models: str = Field(description="SHA-256 of these models; other models give other vectors")
    entry: MachineEntry
    files: dict[BundlePath, FileEntry]
    windows: int = Field(ge=2)
    source: str = Field(description="what was listened to")
    microphone: str | None = Field(description="identity of the microphone, where it is one")
    level_dbfs: tuple[Finite, Finite, Finite] = Field(description="10th, 50th and 90th percentile of the windows' RMS")
    drift: Finite
    pseudo_auc: Finite | None = None  # up to version 0.2, where views were chosen by made-up changes
    contrast: Finite | None = None
    weights: tuple[tuple[str, Finite], ...]


def models_hash(bundle: Bundle) -> str:
    """One hash for the models that make a bundle's vectors."""
    manifest = bundle.manifest
    names = [m.file for m in (manifest.embedder, manifest.separator) if m is not None]
    return hashlib.sha256("".join(manifest.files[name].sha256 for name in names).encode()).hexdigest()


def read_enrolment(root: Path, machine: str) -> EnrolmentRecord | None:
    """A machine's record; None where it was not learned here.

    Raises:
        BundleError: the record can't be read.
    """
    file = root / machine / RECORD
    if not file.is_file():
        return None
    try:
        if file.stat().st_size > MAX_RECORD_BYTES:
            raise BundleError(f"{file}: is larger than {MAX_RECORD_BYTES} bytes")
        return EnrolmentRecord.model_validate_json(file.read_bytes())
    except OSError as e:
        raise BundleError(f"{file}: can't be read: {e.strerror}") from e
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        raise BundleError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}; enrol the machine again") from e


def with_enrolled_machine(bundle: Bundle, root: Path, machine: str) -> Bundle:
    """The bundle, with a machine's learned state in place of its own where there is one.

    Raises:
        BundleError: the learned state is damaged, or was heard by other models.
    """
    record = read_enrolment(root, machine)
    if record is None:
        return bundle
    if record.models != models_hash(bundle):
        raise BundleError(
            f"{root / machine}: was learned with the models of bundle {record.bundle}, not with those of {bundle.name}"
            f" {bundle.version}; learn it anew with `asd-daemon enroll --machine {machine} --relearn`"
        )
    for name, entry in record.files.items():
        verify_file(root / machine, name, entry)
    missing = [name for name in record.entry.files if f"{record.entry.folder}/{name}" not in record.files]
    if missing:
        raise BundleError(f"{root / machine / RECORD}: files: {missing[0]} is used but not listed; enrol it again")
    return replace(bundle, enrolled={**bundle.enrolled, machine: (root / machine, record.entry)})


def save_enrolment(root: Path, record: EnrolmentRecord, sound: NormalSound) -> EnrolmentRecord:
    """Make a learned state, whose files lie in ROOT/<machine>/<entry.folder>, the machine's; the one before it is deleted after.

    Raises:
        OSError: the disk refuses.
    """
    home = root / record.machine
    folder = home / record.entry.folder
    write_vectors(folder / SOUND, sound.vectors, sound.changed)
    files = {p.relative_to(home).as_posix(): file_entry(p) for p in sorted(folder.iterdir())}
    record = record.model_copy(update={"files": files})
    text = json.dumps(record.model_dump(mode="json", by_alias=True), indent=1, allow_nan=False)
    fresh = home / f".{RECORD}"
    with fresh.open("w", encoding="utf-8") as f:
        f.write(text + "\n")
        f.flush()
        os.fsync(f.fileno())
    fresh.replace(home / RECORD)
    for other in home.iterdir():
        if other.is_dir() and other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return record


def read_enrolled_sound(root: Path, record: EnrolmentRecord) -> NormalSound:
    """The vectors that a machine was learned from.

    Raises:
        BundleError: the file is damaged.
    """
    name = f"{record.entry.folder}/{SOUND}"
    entry = record.files.get(name)
    if entry is None:
        raise BundleError(f"{root / record.machine / RECORD}: files: {name} is missing; learn it anew with --relearn")
    verify_file(root / record.machine, name, entry)
    vectors, changed = read_vectors(root / record.machine / name)
    return NormalSound(vectors, changed, np.zeros(record.windows, np.int64))


def write_vectors(
    file: Path, vectors: Mapping[str, NDArray[np.float32]], changed: Mapping[str, NDArray[np.float32]]
) -> None:
    """Write vectors by view and their changed copies; the file is whole or not there.

    Raises:
        OSError: the disk refuses.
    """
    fresh = file.with_name(f".{file.name}")
    arrays = {f"vectors/{view}": x for view, x in vectors.items()} | {
        f"changed/{view}": x for view, x in changed.items()
    }
    with fresh.open("wb") as f:
        np.savez(f, **arrays)  # type: ignore[arg-type]
    fresh.replace(file)


def read_vectors(file: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """What `write_vectors` wrote.

    Raises:
        BundleError: the file is damaged.
    """
    groups: dict[str, dict[str, NDArray[np.float32]]] = {"vectors": {}, "changed": {}}
    try:
        with file.open("rb") as content, np.load(content, allow_pickle=False) as saved:
            for key in saved.files:
                group, view = key.split("/", 1)
                groups[group][view] = np.asarray(saved[key], np.float32)
    except UNREADABLE_ARRAY as e:
        raise BundleError(f"{file}: is damaged: {e}; delete it, or learn the machine anew with --relearn") from e
    return groups["vectors"], groups["changed"]


def join_sound(before: NormalSound, after: NormalSound) -> NormalSound:
    """Sound heard earlier and sound heard now."""

    def both(
        a: Mapping[str, NDArray[np.float32]], b: Mapping[str, NDArray[np.float32]], axis: int
    ) -> dict[str, NDArray[np.float32]]:
        return {view: np.concatenate([a[view], b[view]], axis=axis) for view in a if view in b}

    return NormalSound(
        both(before.vectors, after.vectors, 0),
        both(before.changed, after.changed, 1),
        np.concatenate([before.domains, after.domains]),
    )
