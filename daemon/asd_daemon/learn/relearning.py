"""A machine learned anew from what was kept of its enrolment, because the models or the program's views are others now.

What is kept are vectors, which stay valid for views that are still computed the same way, and, where that is allowed, the windows as
sound, which any model can hear again. Owns what of it is still of use. It collects nothing and listens to nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asd_daemon.errors import AsdError, EnrolmentError
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.bundle.onnx_sessions import open_embedder, open_separator
from asd_daemon.judge.features.views import VIEW_NAMES
from asd_daemon.judge.scoring.scorer import HEARD, SEPARATED, FeatureExtractor
from asd_daemon.learn.enrolled_machines import LearnedFrom, adopt, kept_vectors, kept_windows, locked
from asd_daemon.learn.enrolment_record import EnrolmentRecord, can_relearn, objection, read_enrolment, view_objection
from asd_daemon.learn.kept_sound import read_window
from asd_daemon.learn.learning import LEAST_WINDOWS, NormalSound, candidates_of, describe_normal, learn


@dataclass(frozen=True)
class KeptEnrolment:
    """What is still of use of an enrolment."""

    sound: NormalSound
    """Vectors of the views that can be had."""
    files: tuple[Path, ...]
    """The windows as sound, where they are kept."""


def relearn_from_kept(
    bundle: Bundle,
    root: Path,
    machine: str,
    told: Callable[[str], None] = lambda _: None,
    *,
    keeps_sound: bool = True,
) -> EnrolmentRecord:
    """Learn a machine anew from what was kept, and let that take the place of what was learned before.

    Args:
        bundle: whose models hear now.
        root: where learned machines lie.
        machine: its name.
        told: called with how far it is.
        keeps_sound: whether the windows stay kept as sound.

    Raises:
        EnrolmentError: nothing was learned here, or too little was kept; the state before it stays.
        UsageError: somebody else learns it at this moment.
        BundleError, DataSetError: the models fail, or nothing can be learned from what was kept.
    """
    with locked(root, machine):
        record = read_enrolment(root, machine)
        if record is None:
            raise EnrolmentError(f"{root / machine}: nothing was learned here")
        why = objection(record, bundle) or "its files were damaged"
        separator = open_separator(bundle) if bundle.manifest.separator is not None else None
        hearing = FeatureExtractor(open_embedder(bundle), separator)
        views = (*VIEW_NAMES, HEARD, *((SEPARATED,) if separator is not None else ()))
        kept = kept_enrolment(bundle, root, record, hearing, views, told)
        learned = learn(kept.sound, told=told)
        files = kept.files if keeps_sound else ()
        origin = LearnedFrom(machine, record.source, record.microphone, record.level_dbfs, files, relearned=why)
        record, _ = adopt(bundle, root, origin, kept.sound, learned)
        return record


def kept_enrolment(
    bundle: Bundle,
    root: Path,
    record: EnrolmentRecord,
    hearing: FeatureExtractor,
    views: Sequence[str],
    told: Callable[[str], None],
) -> KeptEnrolment:
    """What is still of use: all vectors where they are valid, else all of them anew from the sound, else the valid ones.

    Raises:
        EnrolmentError: nothing is.
    """
    files, trouble = _files(root, record)
    valid: NormalSound | None = None
    try:
        vectors = kept_vectors(root, record)
        kept = [v for v in views if v in vectors.vectors and v in vectors.changed]
        names = [v for v in kept if view_objection(record, v, bundle) is None]
        valid = NormalSound(
            {view: vectors.vectors[view] for view in names},
            {view: vectors.changed[view] for view in names},
            vectors.domains,
        )
        if set(names) == set(views):
            return KeptEnrolment(valid, files)
    except EnrolmentError as e:
        trouble = str(e)
    if len(files) >= LEAST_WINDOWS:
        return KeptEnrolment(_described_anew(files, hearing, views, told), files)
    if valid is not None and candidates_of(valid.vectors):
        told(f"judged without {', '.join(v for v in views if v not in valid.vectors)}: no sound was kept to hear again")
        return KeptEnrolment(valid, files)
    raise EnrolmentError(
        f"{root / record.machine}: can't be learned anew from what was kept: {trouble or 'no sound was kept'};"
        f" learn it anew with `asd-daemon enroll --machine {record.machine} --relearn`"
    )


def _files(root: Path, record: EnrolmentRecord) -> tuple[tuple[Path, ...], str | None]:
    """The windows as sound, or why there are none."""
    if not record.sounds:
        return (), None
    try:
        return tuple(kept_windows(root, record)), None
    except EnrolmentError as e:
        return (), str(e)


def _described_anew(
    files: Sequence[Path], hearing: FeatureExtractor, views: Sequence[str], told: Callable[[str], None]
) -> NormalSound:
    described = []
    for number, file in enumerate(files):
        told(f"{number} of {len(files)} kept windows heard again")
        described.append(describe_normal(hearing, read_window(file), views, np.random.default_rng(number)))
    return NormalSound.joined(described)


@dataclass(frozen=True)
class RelearningNeed:
    """What another bundle would mean for a machine that was learned here."""

    machine: str
    why: str
    can_be_done: bool
    """Whether it can be learned anew from what was kept; else somebody must let it be heard again."""


def relearning_needs(bundle: Bundle, root: Path, machines: Sequence[str]) -> list[RelearningNeed]:
    """Which machines a bundle, or this program, could not judge as they were learned."""
    needs = []
    for machine in machines:
        try:
            record = read_enrolment(root, machine)
        except AsdError as e:
            needs.append(RelearningNeed(machine, str(e), can_be_done=False))
            continue
        why = None if record is None else objection(record, bundle)
        if record is not None and why is not None:
            needs.append(RelearningNeed(machine, why, can_relearn(record, bundle)))
    return needs
