"""Learning a machine on the box: its source → usable windows → vectors on the disk → a learned state that passes, or the old one stays.

Owns the collecting, and what must hold before a new state is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from asd_daemon.errors import DataSetError, EnrolmentError, UsageError
from asd_daemon.hear.source import Source
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.features.views import VIEW_NAMES, view_sizes
from asd_daemon.judge.scoring.nearest_neighbour import HEARD, back_end_views, check_scoring
from asd_daemon.judge.scoring.operating_states import RunningStates
from asd_daemon.judge.scoring.scorer import FeatureExtractor, Scorer
from asd_daemon.judge.scoring.scoring_choice import Scoring
from asd_daemon.judge.scoring.two_microphones import HallListening
from asd_daemon.learn.collected_windows import COLLECTING, CollectedWindows, CollectionKey, Earlier, Mode
from asd_daemon.learn.collecting import EnrolmentProgress, ProgressReporter, collect, collect_spread
from asd_daemon.learn.embedding_kept import embed_kept
from asd_daemon.learn.enrolled_machines import LearnedFrom, locked, save_enrolment, with_enrolled_machine
from asd_daemon.learn.enrolment_record import EnrolmentRecord, models_hash, read_enrolment, write_record
from asd_daemon.learn.heard_machine import HeardMachine
from asd_daemon.learn.heard_place import place_of
from asd_daemon.learn.kept_vectors import KeptEnrolment
from asd_daemon.learn.learned_states import LearnedStates, learn_states
from asd_daemon.learn.learning import LEAST_WINDOWS
from asd_daemon.learn.relearning import whole_enrolment
from asd_daemon.learn.second_microphone import LearnedHall, with_second_microphone
from asd_daemon.learn.spread import SpreadSchedule

DRIFT_TO_WARN_OF = 1.3  # drift from which the user hears of it
DRIFT_LIMIT = 2.0  # a stretch of time scores twice what normal windows score: what was learned does not hold


@dataclass(frozen=True)
class EnrolmentRequest:
    """What shall be learned."""

    machine: str
    source: str
    """What is listened to, in words."""
    windows: int | None
    """How many; None: all that the source has."""
    add: bool = False
    """Together with what was learned before."""
    relearn: bool = False
    """In place of what was learned before."""
    earlier: Earlier = "ask"
    """What becomes of windows that an earlier call has collected."""
    keeps_sound: bool = False
    """Whether the windows may be kept as sound, so that another version can hear them again."""
    over_s: float | None = None
    """Over how long the windows are spread; None: one after the other."""
    unattended: bool = False
    """Whether a daemon learns, which goes on by itself after a restart."""
    off_below_dbfs: float | None = None
    """Up to which level the machine is off, where somebody says so; None: that is looked for."""
    state: str | None = None
    """In which state the machine is now, where somebody says so; None: states are looked for."""
    scoring: Scoring = "auto"
    """How the machine will be judged: by the paper's back end it is heard by the bundle's models too."""

    @property
    def mode(self) -> Mode:
        """In one word."""
        return "add" if self.add else "relearn" if self.relearn else "new"


@dataclass(frozen=True)
class EnrolmentResult:
    """A machine that was learned."""

    record: EnrolmentRecord
    learned: LearnedStates
    threshold: float
    """For one false alarm a week, two of three windows."""


def enrol(
    bundle: Bundle,
    root: Path,
    request: EnrolmentRequest,
    source: Source,
    on_progress: Callable[[EnrolmentProgress], None],
) -> EnrolmentResult:
    """Learn a machine and keep it below `root`.

    Args:
        bundle: with which the machine will be judged; its models are opened for `scoring: paper` alone.
        root: where learned machines lie.
        request: what shall be learned.
        source: its sound.
        on_progress: called after each window, and as the learning gets on.

    Raises:
        UsageError: the machine was learned already, and neither `add` nor `relearn` is set; or windows of another kind are there, or
            somebody else learns it at this moment.
        DataSetError: too few usable windows, or a sound too changeable: the old state stays.
        EnrolmentError: what was learned before can't be extended, or the disk refuses.
        SourceError: the source fails.
        SettingsError: the machine shall be judged by the paper's back end, and the bundle has no embedder.
    """
    reporter = ProgressReporter(on_progress)
    embeddings = back_end_views(bundle) if request.scoring == "paper" else ()
    if request.scoring == "paper" and not embeddings:
        check_scoring(bundle, request.machine, request.scoring)
    extractor = FeatureExtractor.of(bundle, embeddings)
    sizes = {**dict.fromkeys(embeddings, bundle.manifest.embedding_size if embeddings else 0), **view_sizes()}
    models = models_hash(bundle) if embeddings else None
    with locked(root, request.machine):
        before = _before(root, request)
        known = None
        if before is not None and request.add:
            known = whole_enrolment(root, before, VIEW_NAMES, reporter.message)
            if before.embedded_by != models:
                known = replace(known, sound=known.sound.only(VIEW_NAMES))
        key = CollectionKey(
            source=request.source,
            mode=request.mode,
            views={view: sizes[view] for view in (*VIEW_NAMES, *embeddings)},
            program=metadata.version("asd-edge"),
            state=request.state,
            over_s=request.over_s,
            windows=None if request.over_s is None else request.windows,
            models=models,
        )
        collection = CollectedWindows(
            root / request.machine / COLLECTING,
            key,
            earlier=request.earlier,
            keeps_sound=request.keeps_sound,
            extractor=extractor,
            unattended=request.unattended,
            wanted=request.windows if request.over_s is None else None,
        )
        if collection.forgotten:
            reporter.message(f"{collection.forgotten} windows that an earlier call collected are forgotten")
        wanted = None if request.windows is None else collection.windows_at_last_failure + request.windows
        least = 1 if known is not None else LEAST_WINDOWS
        if request.over_s is not None and request.windows is not None:
            schedule = SpreadSchedule(request.windows, request.over_s)
            collect_spread(collection, source, schedule, reporter.progress, least=least)
        else:
            collect(collection, source, wanted, reporter.progress, least=least)
        gathered = _Gathered(collection, source.source_health.identity, models)
        if known is not None and before is not None:
            gathered = replace(gathered, known=known, before=before)
            if before.states is not None and before.states.running and request.state is None:
                states = RunningStates.open(with_enrolled_machine(bundle, root, request.machine), request.machine)
                gathered = replace(gathered, states=states)
        result = _learned(bundle, root, request, gathered, reporter)
    if embeddings and result.record.nearest is None:  # what was known before has none
        record = embed_kept(bundle, root, request.machine, reporter.message)
        result = replace(result, record=record)
    if embeddings:
        known_here = with_enrolled_machine(bundle, root, request.machine, "paper")
        threshold = Scorer(known_here, request.machine, scoring="paper").threshold
        result = replace(result, threshold=threshold)
    return result


def _before(root: Path, request: EnrolmentRequest) -> EnrolmentRecord | None:
    """What was learned before, where what is asked for is possible with it."""
    try:
        before = read_enrolment(root, request.machine)
    except EnrolmentError:
        if not request.relearn:
            raise
        return None  # relearning replaces it, whatever it is
    if before is not None and not (request.add or request.relearn):
        raise UsageError(
            f"{request.machine} was learned here on {before.created[:10]} from {before.windows} windows;"
            " --add extends that, --relearn replaces it"
        )
    return before


@dataclass(frozen=True)
class _Gathered:
    """All that a machine is learned from."""

    collection: CollectedWindows
    microphone: str | None
    models: str | None = None
    """SHA-256 of the models that embeddings among the vectors are of."""
    known: KeptEnrolment | None = None
    """What was learned before and is extended."""
    before: EnrolmentRecord | None = None
    """Its record."""
    states: RunningStates | None = None
    """Its states, where it has several."""


def _learned(
    bundle: Bundle, root: Path, request: EnrolmentRequest, gathered: _Gathered, reporter: ProgressReporter
) -> EnrolmentResult:
    """Learn from what was gathered, and let it take the old state's place if it passes."""
    collection = gathered.collection
    heard = _heard(request, gathered, reporter)
    rows, _ = heard.sound.distinct_windows()
    if LEAST_WINDOWS <= len(rows) < heard.sound.windows:
        copies = heard.sound.windows - len(rows)
        reporter.message(f"{copies} of {heard.sound.windows} windows are copies of others and count once")
        heard = heard.subset(rows)
    heard, hall = _with_hall(bundle, root, heard, gathered, reporter)
    learned = learn_states(
        heard.sound, names=heard.names, levels_dbfs=heard.levels_dbfs, off=heard.off, on_progress=reporter.message
    )
    if learned.machine.drift > DRIFT_LIMIT:
        raise DataSetError(_too_changeable(request, collection, learned.machine.drift))
    sounds = heard.sounds if request.keeps_sound else {}
    made_by = gathered.models if HEARD in learned.sound.vectors else None
    origin = LearnedFrom(
        request.machine,
        request.source,
        gathered.microphone,
        heard.level_range,
        sounds,
        hall=hall,
        embedded_by=made_by,
    )
    record, threshold = save_enrolment(bundle, root, origin, learned)
    record = _with_place(root, record, reporter)
    return EnrolmentResult(record, learned, threshold)


def _with_place(root: Path, record: EnrolmentRecord, reporter: ProgressReporter) -> EnrolmentRecord:
    """The record with what disturbed at the microphone's place, where sound was kept to say it; what was learned holds in any case."""
    try:
        record = record.model_copy(update={"place": place_of(root, record)})
        write_record(root / record.machine, record)
    except (EnrolmentError, OSError) as e:
        reporter.message(f"how the microphone is placed can't be said: {e}")
    return record


def _with_hall(
    bundle: Bundle, root: Path, heard: HeardMachine, gathered: _Gathered, reporter: ProgressReporter
) -> tuple[HeardMachine, LearnedHall | None]:
    """The windows as they will be judged, where two microphones heard them."""
    before = gathered.before
    if before is not None and before.hall is None:
        return heard, None  # learned with one microphone, it goes on with one
    known = None
    if before is not None and before.hall is not None:
        listening = HallListening.open(with_enrolled_machine(bundle, root, before.machine), before.machine)
        known = listening.crosstalk if listening is not None else None
    heard, hall = with_second_microphone(heard, reporter.message, known=known, anew=known is not None)
    if hall is not None:
        reporter.message(hall.words)
    elif before is not None:
        raise EnrolmentError(
            f"{before.machine}: was learned with two microphones, and too little of both is kept to extend it; learn it anew, --relearn"
        )
    elif gathered.collection.hears_far:
        reporter.message(
            "the second microphone is not used: for that the windows must be kept as sound (keep.enrolment_sound)"
        )
    return heard, hall


def _heard(request: EnrolmentRequest, gathered: _Gathered, reporter: ProgressReporter) -> HeardMachine:
    """What was heard now, without the windows in which the machine is off, and what was known before.

    Raises:
        DataSetError: the machine was off nearly all the time.
    """
    fresh, levels = gathered.collection.read()
    now = HeardMachine.without_off(fresh, np.array(levels), gathered.collection.sounds, request.off_below_dbfs)
    if now.off is not None:
        reporter.message(
            f"the machine was off in {now.off.share:.0%} of the windows, up to {now.off.below_dbfs:.0f} dBFS"
        )
    if gathered.known is None or gathered.before is None:
        return now.named(request.state)
    return now.joined_to(gathered.before, gathered.known, request.state, gathered.states)


def _too_changeable(request: EnrolmentRequest, collection: CollectedWindows, drift: float) -> str:
    """Why nothing was learned, and what has become of the windows: those of a refused --add are no part of anything later."""
    what = (
        f"{request.machine}: the sound was too changeable: a quarter of the time scores {drift:.1f} times what the rest does"
        f" (at most {DRIFT_LIMIT:g})"
    )
    if request.mode == "add":
        collection.forget()
        return f"{what}; what was added is forgotten, and what was known before stays"
    collection.mark_failed()
    resume = " with --resume" if request.mode == "relearn" else ""
    return (
        f"{what}; run the machine as it usually runs and call enroll again{resume} for more windows,"
        " or with --anew to begin anew"
    )
