"""Embeddings of a machine that was learned by views alone, made of what was kept when somebody asks for `scoring: paper`, or after its
models have changed.

Owns where they come from. What the machine is judged by otherwise is not touched, so that one can go back and forth.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import EnrolmentError
from asd_daemon.judge.bundle.bundle import Bundle, file_entry
from asd_daemon.judge.scoring.nearest_neighbour import HEARD, back_end_views
from asd_daemon.judge.scoring.scorer import FeatureExtractor
from asd_daemon.learn.enrolled_files import kept_windows, read_enrolled_sound
from asd_daemon.learn.enrolled_machines import locked
from asd_daemon.learn.enrolment_record import (
    RECORD,
    EnrolmentRecord,
    can_embed,
    models_hash,
    read_enrolment,
    write_record,
)
from asd_daemon.learn.kept_sound import read_window
from asd_daemon.learn.machine_files import NEAREST_FOLDER, write_embeddings
from asd_daemon.private_files import give_to_owner_of

F32 = NDArray[np.float32]


def embed_kept(
    bundle: Bundle, root: Path, machine: str, on_progress: Callable[[str], None] = lambda _: None
) -> EnrolmentRecord:
    """Give a learned machine the bank that its nearest neighbour is looked for in, by the models of a bundle.

    Args:
        bundle: with an embedder.
        root: where learned machines lie.
        machine: its name.
        on_progress: called with how far it is.

    Raises:
        EnrolmentError: nothing was learned here, too little was kept, or the disk refuses; what is known stays.
        UsageError: somebody else learns it at this moment.
        DataSetError: what was kept is all the same.
        BundleError: a model that can't be used.
    """
    with locked(root, machine):
        record = read_enrolment(root, machine)
        if record is None:
            raise EnrolmentError(f"{root / machine}: nothing was learned here")
        models = models_hash(bundle)
        vectors = _known(root, record, models) or _heard_anew(bundle, root, record, on_progress)
        home = root / machine
        folder = home / record.entry.folder
        try:
            entry = write_embeddings(folder, vectors, models, bundle.manifest.bands)
            if entry is None:
                raise ValueError("embeddings of windows hold those of the heard sound")
            made = home / entry.folder
            for file in (made, *made.iterdir()):
                file.chmod(0o700 if file.is_dir() else 0o600)
            of_others = f"{record.entry.folder}/{NEAREST_FOLDER}-"
            files = {name: file for name, file in record.files.items() if not name.startswith(of_others)}
            files |= {file.relative_to(home).as_posix(): file_entry(file) for file in sorted(made.iterdir())}
            record = record.model_copy(update={"nearest": entry, "embedded_by": models, "files": files})
            write_record(home, record)
            give_to_owner_of(root.parent, [made, *made.iterdir(), home / RECORD])
        except OSError as e:
            raise EnrolmentError(f"{home}: can't be written: {e.strerror or e}; what was learned stays") from e
        for other in folder.glob(f"{NEAREST_FOLDER}-*"):
            if other != made:
                shutil.rmtree(other, ignore_errors=True)
        return record


def _known(root: Path, record: EnrolmentRecord, models: str) -> Mapping[str, F32] | None:
    """The embeddings that were taken while it was learned, view → (N, 1, D), where they are of these models and whole."""
    if record.embedded_by != models:
        return None
    try:
        vectors = read_enrolled_sound(root, record).vectors
    except EnrolmentError:
        return None
    return vectors if HEARD in vectors else None


def _heard_anew(
    bundle: Bundle, root: Path, record: EnrolmentRecord, on_progress: Callable[[str], None]
) -> dict[str, F32]:
    """Embeddings of the windows that were kept as sound, view → (N, 1, D)."""
    if not can_embed(record):
        raise EnrolmentError(
            f"{root / record.machine}: too little of its sound was kept to make embeddings of; learn it anew with"
            f" `asd-daemon enroll --machine {record.machine} --relearn --scoring paper`"
        )
    views = back_end_views(bundle)
    extractor = FeatureExtractor.of(bundle, views)
    files = list(kept_windows(root, record).values())
    found: list[dict[str, F32]] = []
    for number, file in enumerate(files):
        on_progress(f"{number} of {len(files)} kept windows heard by the embedder")
        found.append(extractor.vectors(read_window(file), views))
    return {view: np.stack([one[view] for one in found]) for view in views}
