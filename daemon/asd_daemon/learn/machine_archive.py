"""A learned machine in one file, to be kept elsewhere or taken to another box.

    machine.json            name, version of asd-edge, every file with its SHA-256 and size
    enrolled/…              the record and the learned state, as they lie on the disk

A zip without compression, for what is in it does not shrink. Owns the form of the file; what is read from one is believed only after
every name, size and hash was compared. Nothing in it is a pickle, and nothing is written outside of the machine's own folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from asd_daemon.errors import EnrolmentError, UsageError
from asd_daemon.judge.bundle.bundle import BundlePath, FileEntry, MachineName, file_entry, verify_file
from asd_daemon.learn.enrolled_machines import locked
from asd_daemon.learn.enrolment_record import RECORD, EnrolmentRecord, read_enrolment, write_record
from asd_daemon.private_files import give_to_owner_of, make_private_file, make_private_folder

CONTENTS = "machine.json"
PREFIX = "enrolled/"
MAX_BYTES = 4 * 2**30
MAX_FILES = 10_000
MAX_CONTENTS_BYTES = 4 * 2**20


class ArchiveContents(BaseModel):
    """`machine.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = Field(1, alias="schema")
    machine: MachineName
    created: str
    program: str
    files: dict[BundlePath, FileEntry] = Field(max_length=MAX_FILES)


def export_machine(root: Path, machine: str, file: Path) -> ArchiveContents:
    """Write a machine that was learned here into one file, for its owner alone.

    Raises:
        UsageError: it was not learned here, or the file is there already or can't be written.
        EnrolmentError: what was learned is damaged.
    """
    with locked(root, machine, only_reads=True):
        record = read_enrolment(root, machine)
        if record is None:
            raise UsageError(f"{machine}: was not learned on this box ({root})")
        home = root / machine
        for name, entry in record.files.items():
            verify_file(home, name, entry)
        names = [RECORD, *record.files]
        contents = ArchiveContents(
            schema=1,
            machine=machine,
            created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            program=metadata.version("asd-edge"),
            files={PREFIX + name: file_entry(home / name) for name in names},
        )
        if file.exists():
            raise UsageError(f"{file}: is there already; give another name, or delete it")
        unfinished = file.with_name(f".{file.name}.part")
        try:
            make_private_file(unfinished)
            with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(CONTENTS, json.dumps(contents.model_dump(mode="json", by_alias=True), indent=1))
                for name in names:
                    archive.write(home / name, PREFIX + name)
            os.replace(unfinished, file)
        except (OSError, ValueError) as e:  # ValueError: a file from before 1980, which a zip can't date
            raise UsageError(f"{file}: can't be written: {getattr(e, 'strerror', None) or e}") from e
        finally:
            unfinished.unlink(missing_ok=True)
    return contents


def import_machine(
    root: Path, file: Path, name: str | None = None, *, replaces: bool = False, opened: BinaryIO | None = None
) -> EnrolmentRecord:
    """Take a machine over from a file.

    Args:
        root: where learned machines lie.
        file: what `export_machine` wrote.
        name: what it is called here; None: as it was called.
        replaces: whether it may take the place of one that was learned here.
        opened: the file, where it is open already and has no path to be read from.

    Raises:
        UsageError: the machine was learned here, or the file can't be read.
        EnrolmentError: the file is damaged, or was not made by `export_machine`.
    """
    try:
        with zipfile.ZipFile(opened or file) as archive:
            contents = _contents(archive, file)
            machine = name or contents.machine
            with locked(root, machine):
                if (root / machine / RECORD).exists() and not replaces:
                    raise UsageError(
                        f"{machine}: was learned on this box already; --replace takes its place, --as names another"
                    )
                return _take_over(root, machine, archive, contents, file)
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as e:
        raise UsageError(f"{file}: can't be read as a machine: {getattr(e, 'strerror', None) or e}") from e


def _contents(archive: zipfile.ZipFile, file: Path) -> ArchiveContents:
    """What it says it holds, if that is what it holds."""
    infos = {info.filename: info for info in archive.infolist()}
    if len(infos) != len(archive.infolist()):
        raise EnrolmentError(f"{file}: holds a name twice")
    info = infos.pop(CONTENTS, None)
    if info is None or info.file_size > MAX_CONTENTS_BYTES:
        raise EnrolmentError(f"{file}: holds no {CONTENTS}; it was not made by `asd-daemon machines export`")
    try:
        contents = ArchiveContents.model_validate_json(archive.read(info))
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        raise EnrolmentError(f"{file}: {CONTENTS}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from e
    if set(contents.files) != set(infos):
        other = sorted(set(contents.files) ^ set(infos))[0]
        raise EnrolmentError(f"{file}: {other!r} is listed and not there, or there and not listed")
    if any(not name.startswith(PREFIX) for name in infos):
        raise EnrolmentError(f"{file}: holds more than a machine")
    if sum(entry.bytes for entry in contents.files.values()) > MAX_BYTES:
        raise EnrolmentError(f"{file}: is larger than {MAX_BYTES} bytes")
    for name, entry in contents.files.items():
        if infos[name].file_size != entry.bytes:
            raise EnrolmentError(f"{file}: {name} has {infos[name].file_size} bytes, {CONTENTS} says {entry.bytes}")
    return contents


def _take_over(
    root: Path, machine: str, archive: zipfile.ZipFile, contents: ArchiveContents, file: Path
) -> EnrolmentRecord:
    incoming, worn = root / f".incoming-{machine}", root / f".worn-{machine}"
    shutil.rmtree(incoming, ignore_errors=True)
    shutil.rmtree(worn, ignore_errors=True)
    try:
        for name, entry in contents.files.items():
            _unpack(archive, name, entry, incoming / name.removeprefix(PREFIX), file)
        record = read_enrolment(root, incoming.name)
        if record is None:
            raise EnrolmentError(f"{file}: holds no {RECORD}")
        for name, entry in record.files.items():
            verify_file(incoming, name, entry)
        record = record.model_copy(update={"machine": machine})
        write_record(incoming, record)
        give_to_owner_of(root.parent, [incoming, *incoming.rglob("*")])
        if (root / machine).exists():
            (root / machine).rename(worn)
        incoming.rename(root / machine)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
        shutil.rmtree(worn, ignore_errors=True)
    return record


def _unpack(archive: zipfile.ZipFile, name: str, entry: FileEntry, target: Path, file: Path) -> None:
    """Write one file, comparing as it goes; never more than it said."""
    make_private_folder(target.parent)
    make_private_file(target)
    digest, left = hashlib.sha256(), entry.bytes
    with archive.open(name) as source, target.open("wb") as out:
        while left > 0 and (chunk := source.read(min(2**20, left))):
            left -= len(chunk)
            digest.update(chunk)
            out.write(chunk)
    if left or digest.hexdigest() != entry.sha256:
        raise EnrolmentError(f"{file}: {name} does not have the SHA-256 that {CONTENTS} says; it is damaged")
