"""Machines learned on this box: a folder each beside the bundle, with a record of what they were learned from.

    ROOT/<machine>/enrolled.json     the record; replaced in one step, so that a machine is always one whole learned state
    ROOT/<machine>/<stamp>/          its files, as in a bundle; sound.npz: the vectors it was learned from; sound/: the windows, where
                                     they may be kept
    ROOT/.<machine>.lock             held by whoever learns, renames or removes it

Owns these files. It learns nothing.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from asd_daemon.errors import EnrolmentError, UsageError
from asd_daemon.judge.bundle.bundle import Bundle, file_entry
from asd_daemon.judge.scoring.scorer import Scorer
from asd_daemon.judge.scoring.scoring_choice import Scoring
from asd_daemon.learn.collected_windows import COLLECTING
from asd_daemon.learn.enrolled_files import SOUND, verify_enrolled
from asd_daemon.learn.enrolment_record import (
    RECORD,
    EnrolmentRecord,
    can_embed,
    can_relearn,
    nearest_objection,
    objection,
    read_enrolment,
    views_left_out,
    write_record,
)
from asd_daemon.learn.kept_sound import SOUND_FOLDER, carry_over, kept_places
from asd_daemon.learn.kept_vectors import write_vectors
from asd_daemon.learn.learned_states import LearnedStates
from asd_daemon.learn.machine_files import write_embeddings, write_machine, write_states
from asd_daemon.learn.second_microphone import LearnedHall
from asd_daemon.learn.view_probes import view_probes
from asd_daemon.private_files import give_to_owner_of, make_private_folder

_LOG = logging.getLogger(__name__)
_STAMP = re.compile(r"^\d{8}T\d{6}(-\d+)?$")


def with_enrolled_machine(bundle: Bundle, root: Path, machine: str, scoring: Scoring = "auto") -> Bundle:
    """The bundle, with a machine's learned state in place of its own where there is one.

    Args:
        bundle: with which the machine is judged.
        root: where learned machines lie.
        machine: its name.
        scoring: how it is to be judged; without an embedder that is refused elsewhere.

    Raises:
        EnrolmentError: the learned state can't be read or is damaged, or its views are of other models or another version.
    """
    record = read_enrolment(root, machine)
    if record is None:
        return bundle
    by_paper = scoring == "paper" and bundle.manifest.embedder is not None
    why = nearest_objection(record, bundle) if by_paper else objection(record, bundle)
    if why is not None:
        paper, can_be_helped = (" --scoring paper", can_embed(record)) if by_paper else ("", can_relearn(record))
        what = f"learn it anew with `asd-daemon enroll --machine {machine} --relearn{paper}`"
        if can_be_helped:
            what = (
                f"a daemon learns it anew from what was kept when it starts, `asd-daemon machines relearn{paper}` now"
            )
        raise EnrolmentError(f"{root / machine}: {why}; {what}")
    for name in record.judged_files("paper" if by_paper else "auto"):
        verify_enrolled(root, record, name)
    left_out = frozenset() if by_paper else views_left_out(record, bundle)
    if left_out:
        lost = sum(weight for view, weight in record.weights if view in left_out)
        _LOG.warning(
            "%s: judged without %s, %.0f %% of its score: the models that it was learned with are not in %s %s; `asd-daemon enroll"
            " --machine %s --relearn` brings today's views",
            machine,
            ", ".join(sorted(left_out)),
            100 * lost,
            bundle.name,
            bundle.version,
            machine,
        )
    return replace(
        bundle,
        enrolled={**bundle.enrolled, machine: (root / machine, record.judged_entry)},
        left_out={**bundle.left_out, machine: left_out},
    )


@dataclass(frozen=True)
class LearnedFrom:
    """What a state was learned from, beside its vectors."""

    machine: str
    source: str
    microphone: str | None
    level_dbfs: tuple[float, float, float]
    sounds: Mapping[int, Path] = field(default_factory=dict)
    """Windows that may be kept, by their position among those that were given to be learned."""
    relearned: str | None = None
    hall: LearnedHall | None = None
    """Its second microphone, where it was learned with two."""
    embedded_by: str | None = None
    """SHA-256 of the models that embeddings among its vectors are of; None: there are none."""


def save_enrolment(
    bundle: Bundle, root: Path, origin: LearnedFrom, found: LearnedStates
) -> tuple[EnrolmentRecord, float]:
    """Write a learned state, open it as the daemon will open it, and make it the machine's; the one before is deleted after.

    Returns:
        its record, and its threshold for one false alarm a week, two of three windows.

    Raises:
        EnrolmentError: the disk refuses; the state before it stays, and nothing else.
        BundleError: it does not open; likewise.
    """
    home = root / origin.machine
    folder = _free_folder(home)
    try:
        record = _written(bundle, folder, origin, found)
        known = replace(bundle, enrolled={origin.machine: (home, record.judged_entry)})
        threshold = Scorer(known, origin.machine).threshold
        made = sorted(p for p in folder.rglob("*") if p.is_file())
        record = record.model_copy(update={"files": {p.relative_to(home).as_posix(): file_entry(p) for p in made}})
        give_to_owner_of(root.parent, [root, home, folder, *folder.rglob("*")])
        write_record(home, record)
        give_to_owner_of(root.parent, [home / RECORD])
    except OSError as e:
        shutil.rmtree(folder, ignore_errors=True)
        raise EnrolmentError(f"{home}: can't be written: {e.strerror or e}; the state before it stays") from e
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    sweep(home, record)
    return record, threshold


def _free_folder(home: Path) -> Path:
    """A name after the time that no state has yet."""
    stamp, number = datetime.now(UTC).strftime("%Y%m%dT%H%M%S"), 1
    folder = home / stamp
    while folder.exists():
        number += 1
        folder = home / f"{stamp}-{number}"
    return folder


def _written(bundle: Bundle, folder: Path, origin: LearnedFrom, found: LearnedStates) -> EnrolmentRecord:
    """Write a state's files into a folder of their own; nothing points to it yet."""
    sound, learned = found.sound, found.machine
    make_private_folder(folder.parent)
    entry, _ = write_machine(folder, folder.name, learned=learned)
    folder.chmod(0o700)
    write_vectors(folder / SOUND, sound.vectors)
    states = write_states(folder, found)
    hall = None if origin.hall is None else origin.hall.write(folder)
    nearest = None
    if origin.embedded_by is not None:
        nearest = write_embeddings(folder, sound.vectors, origin.embedded_by, bundle.manifest.bands)
    kept = found.sounds_of(origin.sounds)
    rows: tuple[int, ...] = ()
    try:
        if carry_over(list(kept.values()), folder / SOUND_FOLDER):
            rows = tuple(list(kept)[int(place)] for place in kept_places(len(kept)))
    except OSError as e:  # the machine can be judged without
        _LOG.warning("%s: its sound is not kept: %s", origin.machine, e.strerror or e)
        shutil.rmtree(folder / SOUND_FOLDER, ignore_errors=True)
    for file in folder.rglob("*"):
        file.chmod(0o700 if file.is_dir() else 0o600)
    probes = view_probes()
    low, middle, high = origin.level_dbfs
    return EnrolmentRecord(
        schema=1,
        machine=origin.machine,
        created=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        bundle=f"{bundle.name} {bundle.version}",
        entry=entry,
        files={},
        windows=sound.windows,
        source=origin.source,
        microphone=origin.microphone,
        level_dbfs=(round(low, 2), round(middle, 2), round(high, 2)),
        drift=round(learned.drift, 4),
        contrast=None if learned.contrast is None else round(learned.contrast, 4),
        weights=learned.weights,
        program=metadata.version("asd-edge"),
        views={view: probes[view] for view in sound.vectors if view in probes},
        sounds=len(rows),
        relearned=origin.relearned,
        states=states,
        window_states=found.names,
        sound_rows=rows,
        hall=hall,
        nearest=nearest,
        embedded_by=None if nearest is None else origin.embedded_by,
    )


def sweep(home: Path, record: EnrolmentRecord | None) -> None:
    """Delete what earlier and failed enrolments have left; what another user owns stays, and is named."""
    kept = None if record is None else home / record.entry.folder
    for other in sorted(home.iterdir()) if home.is_dir() else ():
        is_old = bool(_STAMP.match(other.name)) or (other.name == COLLECTING and record is not None)
        if other.is_dir() and is_old and other != kept:
            shutil.rmtree(other, ignore_errors=True)
            if other.exists():
                _LOG.warning("%s: is of no use any more, and can't be deleted: sudo rm -r %s", other, other)


@contextmanager
def locked(root: Path, machine: str, *, only_reads: bool = False) -> Iterator[None]:
    """One at a time learns, renames or removes a machine, while nobody reads it.

    Args:
        root: where learned machines lie.
        machine: which.
        only_reads: several may read at a time, and need no right to write.

    Raises:
        UsageError: another process or thread is at it.
        EnrolmentError: the folder can't be written.
    """
    lock = root / f".{machine}.lock"
    try:
        if only_reads:
            descriptor = os.open(lock if lock.exists() else root, os.O_RDONLY | os.O_CLOEXEC)
        else:
            make_private_folder(root)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            give_to_owner_of(root.parent, [root, lock])
    except FileNotFoundError:
        yield  # there is nothing to be read
        return
    except OSError as e:
        raise EnrolmentError(
            f"{lock}: can't be written: {e.strerror}; set ASD_STATE_DIR or give this user the right"
        ) from e
    try:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if only_reads else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as e:
            raise UsageError(f"{machine}: is being learned or changed by somebody else at this moment") from e
        yield
    finally:
        os.close(descriptor)


def enrolled_names(root: Path) -> list[str]:
    """Machines that were learned here, whether their records can be read or not, sorted.

    Raises:
        EnrolmentError: the folder can't be looked into.
    """
    try:
        homes = sorted(home for home in root.iterdir() if home.is_dir() and not home.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as e:
        raise EnrolmentError(f"{root}: can't be read: {e.strerror}") from e
    return [home.name for home in homes if not os.access(home, os.X_OK) or (home / RECORD).exists()]
