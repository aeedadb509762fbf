"""Machines of a state folder by their names: what is known of each, another name for one, an end to one.

Owns that a machine's learned state, its stores and what is remembered of its microphone go together.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from asd_daemon.errors import AsdError, EnrolmentError, UsageError
from asd_daemon.learn.enrolled_machines import enrolled_names, locked
from asd_daemon.learn.enrolment_record import EnrolmentRecord, read_enrolment, write_record
from asd_daemon.settings.text_formats import checked_name
from asd_daemon.tell.storage.machine_locks import remove_lock
from asd_daemon.tell.storage.machine_traces import (
    MachineTraces,
    remove_traces,
    rename_traces,
    traced_machines,
    traces_of,
)

ENROLLED, REMEMBERED = "enrolled", "machines"


@dataclass(frozen=True)
class KnownMachine:
    """What is known of one."""

    name: str
    record: EnrolmentRecord | None
    """None: not learned here, or it can't be read."""
    trouble: str | None
    """Why the record can't be read."""
    state_bytes: int
    """Of what was learned."""
    traces: MachineTraces


def known_machines(folder: Path) -> list[KnownMachine]:
    """Every machine of which a state folder knows anything, by name.

    Raises:
        UsageError, EnrolmentError: it can't be read.
    """
    remembered = {f.name for f in (folder / REMEMBERED).glob("*") if f.is_dir()}
    names = sorted({*enrolled_names(folder / ENROLLED), *traced_machines(folder), *remembered})
    return [_known(folder, name) for name in names]


def _known(folder: Path, name: str) -> KnownMachine:
    record, trouble = None, None
    try:
        record = read_enrolment(folder / ENROLLED, name)
    except AsdError as e:
        trouble = str(e)
    files = [f for f in (folder / ENROLLED / name).rglob("*") if f.is_file()]
    return KnownMachine(name, record, trouble, sum(f.stat().st_size for f in files), traces_of(folder, name))


def rename_machine(folder: Path, name: str, new: str) -> None:
    """Give a machine another name: what was learned, its scores, clips, alarm and microphone.

    Raises:
        UsageError: nothing is known of it, something is known of the new name, or the name can't be one.
        EnrolmentError: the folder can't be written.
    """
    try:
        checked_name(new)
    except ValueError as e:
        raise UsageError(f"{new!r}: {e}") from e
    _find(folder, name)
    if any(known.name == new for known in known_machines(folder)):
        raise UsageError(
            f"{new}: a machine of this name is known already; `asd-daemon machines remove {new}` forgets it"
        )
    root = folder / ENROLLED
    with locked(root, name), locked(root, new):
        try:
            rename_traces(folder, name, new)
            record = read_enrolment(root, name)
            if (root / name).is_dir():
                (root / name).rename(root / new)
            if record is not None:
                write_record(root / new, record.model_copy(update={"machine": new}))
            if (folder / REMEMBERED / name).is_dir():
                (folder / REMEMBERED / name).rename(folder / REMEMBERED / new)
        except OSError as e:
            raise EnrolmentError(f"{folder}: {name} can't be renamed: {e.strerror or e}") from e
    (root / f".{name}.lock").unlink(missing_ok=True)
    remove_lock(folder, name)


def remove_machine(folder: Path, name: str) -> None:
    """Forget a machine: what was learned, its scores, clips, alarm and microphone.

    Raises:
        UsageError: nothing is known of it.
        EnrolmentError: the folder can't be written.
    """
    _find(folder, name)
    root = folder / ENROLLED
    with locked(root, name):
        remove_traces(folder, name)
        for path in (root / name, folder / REMEMBERED / name):
            shutil.rmtree(path, ignore_errors=True)
            if path.exists():
                raise EnrolmentError(f"{path}: can't be deleted; is it another user's? sudo rm -r {path}")
    (root / f".{name}.lock").unlink(missing_ok=True)
    remove_lock(folder, name)


def _find(folder: Path, name: str) -> None:
    names = [known.name for known in known_machines(folder)]
    if name not in names:
        raise UsageError(f"{folder}: knows no machine {name!r}; it knows {', '.join(names) or 'none'}")
