"""A machine learned anew from what was kept of its enrolment, because the program's views are others now.

What is kept are vectors, which stay valid for views that are still computed the same way, and, where that is allowed, the windows as
sound, which another view can hear again. Owns what of it is still of use. It collects nothing and listens to nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import AsdError, EnrolmentError
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.features.views import VIEW_NAMES
from asd_daemon.judge.scoring.nearest_neighbour import HEARD, SEPARATED
from asd_daemon.judge.scoring.scorer import FeatureExtractor
from asd_daemon.judge.scoring.scoring_choice import Scoring
from asd_daemon.learn.enrolled_files import kept_windows, read_enrolled_sound
from asd_daemon.learn.enrolled_machines import LearnedFrom, locked, save_enrolment
from asd_daemon.learn.enrolment_record import (
    EnrolmentRecord,
    can_embed,
    can_relearn,
    nearest_objection,
    objection,
    read_enrolment,
    valid_views,
)
from asd_daemon.learn.heard_machine import HeardMachine
from asd_daemon.learn.kept_sound import read_window
from asd_daemon.learn.kept_vectors import KeptEnrolment
from asd_daemon.learn.learned_states import learn_states
from asd_daemon.learn.learning import LEAST_WINDOWS
from asd_daemon.learn.normal_sound import NormalSound
from asd_daemon.learn.second_microphone import LearnedHall, with_second_microphone

F32 = NDArray[np.float32]


def relearn_from_kept(
    bundle: Bundle,
    root: Path,
    machine: str,
    on_progress: Callable[[str], None] = lambda _: None,
    *,
    keeps_sound: bool = True,
) -> EnrolmentRecord:
    """Learn a machine anew from what was kept, and let that take the place of what was learned before.

    Args:
        bundle: with which the machine is judged now.
        root: where learned machines lie.
        machine: its name.
        on_progress: called with how far it is.
        keeps_sound: whether the windows stay kept as sound.

    Raises:
        EnrolmentError: nothing was learned here, or too little was kept; the state before it stays.
        UsageError: somebody else learns it at this moment.
        DataSetError: nothing can be learned from what was kept.
    """
    with locked(root, machine):
        record = read_enrolment(root, machine)
        if record is None:
            raise EnrolmentError(f"{root / machine}: nothing was learned here")
        why = objection(record, bundle) or "its files were damaged"
        kept = kept_enrolment(root, record, VIEW_NAMES, on_progress)
        off = record.states.off if record.states else None
        heard, hall = _with_hall(root, record, kept, on_progress)
        found = learn_states(heard.sound, names=heard.names, off=off, on_progress=on_progress)
        sounds = heard.sounds if keeps_sound else {}
        made_by = record.embedded_by if HEARD in found.sound.vectors else None
        origin = LearnedFrom(machine, record.source, record.microphone, record.level_dbfs, sounds, why, hall, made_by)
        record, _ = save_enrolment(bundle, root, origin, found)
        return record


def _with_hall(
    root: Path, record: EnrolmentRecord, kept: KeptEnrolment, on_progress: Callable[[str], None]
) -> tuple[HeardMachine, LearnedHall | None]:
    """What was kept, as it will be judged; that of two microphones is described anew.

    Raises:
        EnrolmentError: too little of both microphones is kept as sound.
    """
    heard = HeardMachine(kept.sound, None, kept.sounds, record.level_dbfs, kept.names)
    if record.hall is None:
        return heard, None
    heard, hall = with_second_microphone(heard, on_progress, anew=True)
    if hall is None:
        raise EnrolmentError(
            f"{root / record.machine}: was learned with two microphones, and too little of both is kept as sound; learn it anew with"
            f" `asd-daemon enroll --machine {record.machine} --relearn`"
        )
    return heard, hall


def kept_enrolment(
    root: Path, record: EnrolmentRecord, views: Sequence[str], on_progress: Callable[[str], None]
) -> KeptEnrolment:
    """What is still of use: all vectors where they are valid, else all of them anew from the sound, else the valid ones.

    Raises:
        EnrolmentError: nothing is.
    """
    files, trouble = _files(root, record)
    valid: NormalSound | None = None
    try:
        vectors = read_enrolled_sound(root, record)
        names = [view for view in valid_views(record) if view in views and view in vectors.vectors]
        embeddings = (HEARD, SEPARATED) if record.embedded_by is not None and names else ()
        valid = vectors.only({*names, *embeddings})
        if set(names) == set(views):
            return KeptEnrolment(valid, files, record.window_states)
    except EnrolmentError as e:
        trouble = str(e)
    if len(files) >= LEAST_WINDOWS:
        sounds = dict(enumerate(files.values()))
        of_sounds = tuple(record.window_states[row] for row in files) if record.window_states else ()
        return KeptEnrolment(_described_anew(list(files.values()), views, on_progress), sounds, of_sounds)
    if valid is not None and valid.vectors:
        missing = ", ".join(view for view in views if view not in valid.vectors)
        on_progress(f"judged without {missing}: no sound was kept to hear again")
        return KeptEnrolment(valid, files, record.window_states)
    raise EnrolmentError(
        f"{root / record.machine}: can't be learned anew from what was kept: {trouble or 'no sound was kept'};"
        f" learn it anew with `asd-daemon enroll --machine {record.machine} --relearn`"
    )


def whole_enrolment(
    root: Path, record: EnrolmentRecord, views: Sequence[str], on_progress: Callable[[str], None]
) -> KeptEnrolment:
    """What an enrolment can be extended by: vectors of all views, as they were kept or anew from the sound.

    Raises:
        EnrolmentError: some can't be had; what is heard now would be judged by other views than what was heard then.
    """
    kept = kept_enrolment(root, record, views, on_progress)
    if not set(kept.sound.vectors) >= set(views):
        raise EnrolmentError(
            f"{root / record.machine}: was learned by another version of asd-edge and no sound was kept to hear again, so it can't be"
            f" extended; learn it anew with `asd-daemon enroll --machine {record.machine} --relearn`"
        )
    return kept


def _files(root: Path, record: EnrolmentRecord) -> tuple[Mapping[int, Path], str | None]:
    """The windows as sound, or why there are none."""
    if not record.sounds:
        return {}, None
    try:
        return kept_windows(root, record), None
    except EnrolmentError as e:
        return {}, str(e)


def _described_anew(files: Sequence[Path], views: Sequence[str], on_progress: Callable[[str], None]) -> NormalSound:
    extractor = FeatureExtractor(None)
    described: list[tuple[dict[str, F32], dict[str, F32]]] = []
    for number, file in enumerate(files):
        on_progress(f"{number} of {len(files)} kept windows heard again")
        described.append((extractor.vectors(read_window(file), views, parts=True), {}))
    return NormalSound.from_windows(described)


@dataclass(frozen=True)
class RelearningNeed:
    """What another bundle would mean for a machine that was learned here."""

    machine: str
    why: str
    can_be_done: bool
    """Whether it can be learned anew from what was kept; else somebody must let it be heard again."""


def relearning_needs(
    bundle: Bundle, root: Path, machines: Sequence[str], scoring: Scoring = "auto"
) -> list[RelearningNeed]:
    """Which machines a bundle, or this program, could not judge as they were learned."""
    by_paper = scoring == "paper" and bundle.manifest.embedder is not None
    needs = []
    for machine in machines:
        try:
            record = read_enrolment(root, machine)
        except AsdError as e:
            needs.append(RelearningNeed(machine, str(e), can_be_done=False))
            continue
        if record is None:
            continue
        why = nearest_objection(record, bundle) if by_paper else objection(record, bundle)
        if why is not None:
            needs.append(RelearningNeed(machine, why, can_embed(record) if by_paper else can_relearn(record)))
    return needs
