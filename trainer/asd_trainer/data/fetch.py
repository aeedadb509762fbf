"""The public data sets of DCASE Task 2, by year and part: from the archive's records to the folders that the loader reads.

Owns the record numbers, the meaning of the zips' names, what is already there, and the order of work. Transfer is archive.py's,
unpacking is unpacking.py's. It prints nothing.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from asd_daemon.errors import DataSetError, FetchError, UsageError
from asd_trainer.data.archive import ZENODO, Archive, RemoteFile
from asd_trainer.data.unpacking import unpack, unpacked_bytes

Part = Literal["dev", "train", "eval"]
Action = Literal["download", "unpack"]
PARTS: tuple[Part, ...] = get_args(Part)  # development, additional training, evaluation test

# Zenodo records of development, additional training and evaluation test data
RECORDS: Mapping[int, Mapping[Part, int]] = {
    2020: {"dev": 3678171, "train": 3727685, "eval": 3841772},
    2021: {"dev": 4562016, "train": 4660992, "eval": 4884786},
    2022: {"dev": 6355122, "train": 6462969, "eval": 6586456},
    2023: {"dev": 7882613, "train": 7830345, "eval": 7860847},
    2024: {"dev": 10902294, "train": 11259435, "eval": 11363076},
    2025: {"dev": 15097779, "train": 15392814, "eval": 15519362},
    2026: {"dev": 19336329, "train": 20151556, "eval": 20437238},
}
YEARS = tuple(RECORDS)
FOLDERS: Mapping[Part, str] = {"dev": "dev_data", "train": "eval_data", "eval": "eval_data"}

MARKS = ".fetched"
UNPACKED_RATIO = 1.5  # guess before a zip is there; its directory tells afterwards

# dev_fan, dev_data_fan, dev_ToyCar_r2; eval_data_train_fan (2020); eval_data_fan_train, eval_data_3DPrinter_train_r2
_REVISION = r"(?:_r(?P<revision>\d+))?"
_NAMES: Mapping[Part, tuple[re.Pattern[str], ...]] = {
    "dev": (re.compile(rf"dev_(?:data_)?(?P<machine>[A-Za-z0-9]+){_REVISION}\.zip"),),
    "train": (
        re.compile(rf"eval_data_(?P<machine>[A-Za-z0-9]+)_train{_REVISION}\.zip"),
        re.compile(rf"eval_data_train_(?P<machine>[A-Za-z0-9]+){_REVISION}\.zip"),
    ),
    "eval": (
        re.compile(rf"eval_data_(?P<machine>[A-Za-z0-9]+)_test{_REVISION}\.zip"),
        re.compile(rf"eval_data_test_(?P<machine>[A-Za-z0-9]+){_REVISION}\.zip"),
    ),
}

Progress = Callable[["Step"], None]


@dataclass(frozen=True)
class Step:
    """How far one file is, for a progress bar."""

    key: str
    action: Action
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class PlannedFile:
    """One zip: whose it is, where it lies, where its recordings go, and whether they are there already."""

    part: Part
    machine: str
    record: int
    licence: str
    remote: RemoteFile
    data: Path
    """The year's folder for this part, …/dcase2025t2/dev_data."""
    present: bool

    @property
    def raw(self) -> Path:
        """The folder of all machines."""
        return self.data / "raw"

    @property
    def mark(self) -> Path:
        """The file that says that this zip was unpacked whole, with what it held."""
        return self.data / MARKS / f"{self.remote.key}.json"

    @property
    def kept(self) -> Path:
        """Where the zip lies until it is unpacked."""
        return self.data / MARKS / self.remote.key


@dataclass(frozen=True)
class Plan:
    """What a fetch will do, to be shown before it starts."""

    year: int
    to: Path
    archive: Archive
    titles: tuple[str, ...]
    files: tuple[PlannedFile, ...]

    @property
    def licences(self) -> tuple[str, ...]:
        """Every licence among the files."""
        return tuple(sorted({f.licence for f in self.files}))

    @property
    def size_bytes(self) -> int:
        """All files together, as the archive holds them."""
        return sum(f.remote.size_bytes for f in self.files)

    @property
    def missing(self) -> tuple[PlannedFile, ...]:
        """The files that are not here yet."""
        return tuple(f for f in self.files if not f.present)

    @property
    def missing_bytes(self) -> int:
        """The files that are not here yet, as the archive holds them."""
        return sum(f.remote.size_bytes for f in self.missing)

    @property
    def needed_bytes(self) -> int:
        """Room on disk while it runs: what unpacks, and the largest zip, since a zip goes when it is unpacked."""
        largest = max((f.remote.size_bytes for f in self.missing), default=0)
        return int(self.missing_bytes * UNPACKED_RATIO) + largest


def plan(
    year: int,
    parts: Sequence[str],
    machines: Sequence[str],
    to: Path,
    archive: Archive | None = None,
    base_url: str = ZENODO,
) -> Plan:
    """Ask the archive what a year's parts hold and compare with what is on disk; nothing is written.

    Args:
        year: one of YEARS.
        parts: of PARTS; empty for all.
        machines: names as the data set spells them; empty for all.
        to: the folder that gets dcase<year>t2.
        archive: who is asked; by default one at `base_url`.
        base_url: scheme and host of the archive.

    Raises:
        UsageError: an unknown year or part, or a machine that no part has.
        FetchError: the archive can't be reached or answers with something else.
    """
    if year not in RECORDS:
        raise UsageError(f"there is no data set of {year}; known years: {YEARS[0]} to {YEARS[-1]}")
    unknown = [p for p in parts if p not in PARTS]
    if unknown:
        raise UsageError(f"--part {unknown[0]}: must be one of {', '.join(PARTS)}")
    archive = archive or Archive(base_url=base_url)
    titles, files, known = [], [], set[str]()
    for part in PARTS:
        if parts and part not in parts:
            continue
        record = archive.record(RECORDS[year][part])
        titles.append(record.title)
        named = machine_files(part, record.files)
        if not named:
            raise FetchError(
                f"record {record.number} ({record.title}) holds no {part} data of {year} that is known by its name"
            )
        known |= set(named)
        data = to / f"dcase{year}t2" / FOLDERS[part]
        files += [
            PlannedFile(part, m, record.number, record.licence, named[m], data, _is_present(data, named[m]))
            for m in sorted(named)
            if not machines or m in machines
        ]
    strange = [m for m in machines if m not in known]
    if strange:
        raise UsageError(f"--machine {strange[0]}: not in these parts of {year}; there are {', '.join(sorted(known))}")
    return Plan(year, to, archive, tuple(titles), tuple(files))


def machine_files(part: Part, files: Sequence[RemoteFile]) -> dict[str, RemoteFile]:
    """The zip of each machine, its last revision where there are several; other files of a record are left out."""
    latest: dict[str, tuple[int, RemoteFile]] = {}
    for file in files:
        match = next((m for pattern in _NAMES[part] if (m := pattern.fullmatch(file.key))), None)
        if match is None:
            continue
        revision = int(match["revision"] or 1)
        if match["machine"] not in latest or revision > latest[match["machine"]][0]:
            latest[match["machine"]] = (revision, file)
    return {machine: file for machine, (_, file) in latest.items()}


def fetch(what: Plan, progress: Progress = lambda _: None) -> None:
    """Download and unpack what is missing, zip by zip; what is there already is left alone, so it can be called again after any failure.

    Raises:
        FetchError: the archive can't be reached, or sends something else than it announced.
        DataSetError: no room, a broken or unsafe zip, a file that would be overwritten, another fetch at work, or a disk that refuses.
    """
    if not what.missing:
        return
    check_room([what])
    try:
        for file in what.missing:
            with _claimed(file.mark.parent):
                _fetch(what.archive, file, progress)
    except OSError as e:
        raise DataSetError(
            f"{what.to}: can't be written: {e.filename or ''} {e.strerror or e}".replace("  ", " ")
        ) from e


def check_room(plans: Sequence[Plan]) -> None:
    """Refuse fetches into one folder that its disk has no room for, all together.

    Raises:
        DataSetError: no room, or a disk that refuses.
    """
    waiting = [one for one in plans if one.missing]
    if not waiting:
        return
    to = waiting[0].to
    largest = max(file.remote.size_bytes for one in waiting for file in one.missing)
    needed = int(sum(one.missing_bytes for one in waiting) * UNPACKED_RATIO) + largest
    try:
        to.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(to).free
    except OSError as e:
        raise DataSetError(f"{to}: can't be written: {e.filename or ''} {e.strerror or e}".replace("  ", " ")) from e
    if needed > free:
        fewer = "years" if len(plans) > 1 else "machines"
        raise DataSetError(
            f"{to}: needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; make room, fetch fewer {fewer}, or give another folder"
        )


def _fetch(archive: Archive, file: PlannedFile, progress: Progress) -> None:
    key, size_bytes = file.remote.key, file.remote.size_bytes
    archive.download(file.remote, file.kept, lambda done: progress(Step(key, "download", done, size_bytes)))
    total = unpacked_bytes(file.kept)
    file.raw.mkdir(exist_ok=True)
    held = unpack(file.kept, file.machine, file.raw, lambda done: progress(Step(key, "unpack", done, total)))
    mark = {
        "record": file.record,
        "key": key,
        "size": size_bytes,
        "md5": file.remote.md5,
        "licence": file.licence,
        "files": held,
    }
    fresh = file.mark.with_name(f"{file.mark.name}.part")
    fresh.write_text(json.dumps(mark, indent=1) + "\n", encoding="utf-8")
    fresh.replace(file.mark)
    file.kept.unlink()


def _is_present(data: Path, remote: RemoteFile) -> bool:
    """Whether this very zip was unpacked here, and every file it held is still there with its size."""
    try:
        mark = json.loads((data / MARKS / f"{remote.key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(mark, dict) or mark.get("md5") != remote.md5 or not isinstance(mark.get("files"), dict):
        return False
    return all(_has_size(data / "raw" / path, size) for path, size in cast(dict[str, int], mark["files"]).items())


def _has_size(path: Path, size_bytes: int) -> bool:
    try:
        return path.stat().st_size == size_bytes
    except OSError:
        return False


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Keep a second fetch out of the same folder while this one works; the lock goes with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise DataSetError(f"{folder}: another fetch is at work here; wait for it to end") from e
        yield
