"""Files of a machine that was learned on this box: whole, or refused.

Owns comparing them with the record. What they mean is asked elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asd_daemon.errors import BundleError, EnrolmentError
from asd_daemon.judge.bundle.bundle import verify_file
from asd_daemon.learn.enrolment_record import RECORD, EnrolmentRecord
from asd_daemon.learn.kept_sound import SOUND_FOLDER, kept_places, window_files
from asd_daemon.learn.kept_vectors import read_vectors
from asd_daemon.learn.normal_sound import NormalSound

SOUND = "sound.npz"


def verify_enrolled(root: Path, record: EnrolmentRecord, name: str) -> None:
    """Refuse a file of a machine that is not what its record says.

    Raises:
        EnrolmentError: it is not listed, missing or damaged.
    """
    entry = record.files.get(name)
    if entry is None:
        raise EnrolmentError(
            f"{root / record.machine / RECORD}: files: {name} is used but not listed; learn it anew with --relearn"
        )
    try:
        verify_file(root / record.machine, name, entry)
    except BundleError as e:
        raise EnrolmentError(str(e)) from e


def read_enrolled_sound(root: Path, record: EnrolmentRecord) -> NormalSound:
    """The vectors that a machine was learned from.

    Raises:
        EnrolmentError: the file is damaged.
    """
    name = f"{record.entry.folder}/{SOUND}"
    verify_enrolled(root, record, name)
    return NormalSound(read_vectors(root / record.machine / name), {}, np.zeros(record.windows, np.int64))


def kept_windows(root: Path, record: EnrolmentRecord) -> dict[int, Path]:
    """The windows that are kept as sound, whole and in their order, by their position among all.

    Raises:
        EnrolmentError: one is missing or damaged.
    """
    home = root / record.machine
    files = window_files(home / record.entry.folder / SOUND_FOLDER)
    if len(files) != record.sounds:
        raise EnrolmentError(f"{home}: {len(files)} of {record.sounds} kept windows are there; learn it anew")
    for file in files:
        verify_enrolled(root, record, file.relative_to(home).as_posix())
    return dict(zip(_sound_rows(record), files, strict=True))


def _sound_rows(record: EnrolmentRecord) -> Sequence[int]:
    """Which windows are kept as sound; before there were states nobody wrote that down, and nobody asked."""
    if len(record.sound_rows) == record.sounds:
        return record.sound_rows
    evenly = [int(place) for place in kept_places(record.windows)]
    return evenly if len(evenly) == record.sounds else range(record.sounds)
