"""Learning a machine on the box: its source → usable windows → vectors on the disk → a learned state that passes, or the old one stays.

Owns the collecting, and what must hold before a new state is taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from asd_daemon.errors import DataSetError, EnrolmentError, UsageError
from asd_daemon.hear.source import DeadMicrophone, SoundReturned, Source, SourceLost, UnreadableRecording
from asd_daemon.hear.windows.quality import UnfitReason, unfit_reason
from asd_daemon.hear.windows.window import Window, WindowCutter
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.features.views import VIEW_NAMES, view_sizes
from asd_daemon.judge.scoring.scorer import FeatureExtractor
from asd_daemon.learn.collected_windows import COLLECTING, CollectedWindows, CollectionKey, Earlier, Mode
from asd_daemon.learn.enrolled_machines import LearnedFrom, locked, save_enrolment
from asd_daemon.learn.enrolment_record import EnrolmentRecord, read_enrolment
from asd_daemon.learn.kept_vectors import join_sound
from asd_daemon.learn.learning import LEAST_WINDOWS, LearnedMachine, learn
from asd_daemon.learn.relearning import KeptEnrolment, whole_enrolment

DRIFT_TO_WARN_OF = 1.3  # drift from which the user hears of it
DRIFT_LIMIT = 2.0  # a stretch of time scores twice what normal windows score: what was learned does not hold


@dataclass(frozen=True)
class EnrolmentProgress:
    """How far the collecting is."""

    windows: int
    wanted: int | None
    """None: all that the source has."""
    unusable: int
    message: str | None = None
    """Something worth a line of its own."""


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

    @property
    def mode(self) -> Mode:
        """In one word."""
        return "add" if self.add else "relearn" if self.relearn else "new"


@dataclass(frozen=True)
class EnrolmentResult:
    """A machine that was learned."""

    record: EnrolmentRecord
    learned: LearnedMachine
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
        bundle: with which the machine will be judged; none of its models is opened.
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
    """
    reporter = _Reporter(on_progress)
    with locked(root, request.machine):
        before = _before(root, request)
        known = None
        if before is not None and request.add:
            known = whole_enrolment(root, before, VIEW_NAMES, reporter.message)
        key = CollectionKey(
            source=request.source,
            mode=request.mode,
            views={view: view_sizes()[view] for view in VIEW_NAMES},
            program=metadata.version("asd-edge"),
        )
        collection = CollectedWindows(
            root / request.machine / COLLECTING, key, earlier=request.earlier, keeps_sound=request.keeps_sound
        )
        if collection.forgotten:
            reporter.message(f"{collection.forgotten} windows that an earlier call collected are forgotten")
        wanted = None if request.windows is None else collection.windows_at_last_failure + request.windows
        _collect(collection, source, wanted, reporter.progress, least=1 if known is not None else LEAST_WINDOWS)
        return _learned(bundle, root, request, _Gathered(collection, source.source_health.identity, known), reporter)


class _Reporter:
    """Tells how far it is, and what else there is to say."""

    def __init__(self, on_progress: Callable[[EnrolmentProgress], None]) -> None:
        self._told, self._last = on_progress, EnrolmentProgress(0, None, 0)

    def progress(self, progress: EnrolmentProgress) -> None:
        """Another window, or the first word."""
        self._last = progress
        self._told(progress)

    def message(self, words: str) -> None:
        """Something worth a line, at the same number of windows."""
        self._told(replace(self._last, message=words))


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
    known: KeptEnrolment | None
    """What was learned before and is extended."""


def _learned(
    bundle: Bundle, root: Path, request: EnrolmentRequest, gathered: _Gathered, reporter: _Reporter
) -> EnrolmentResult:
    """Learn from what was gathered, and let it take the old state's place if it passes."""
    collection, known = gathered.collection, gathered.known
    fresh, levels = collection.read()
    sound, sounds = fresh, collection.sounds
    if known is not None:
        sound, sounds = join_sound(known.sound, fresh), [*known.files, *sounds]
    rows, _ = sound.distinct_windows()
    if LEAST_WINDOWS <= len(rows) < sound.windows:
        reporter.message(f"{sound.windows - len(rows)} of {sound.windows} windows are copies of others and count once")
        if len(sounds) == sound.windows:
            sounds = [sounds[int(row)] for row in rows]
        sound = sound.subset(rows)
    learned = learn(sound, on_progress=reporter.message)
    if learned.drift > DRIFT_LIMIT:
        raise DataSetError(_too_changeable(request, collection, learned.drift))
    low, middle, high = (float(v) for v in np.percentile(levels, (10, 50, 90)))
    kept = sounds if request.keeps_sound else ()
    origin = LearnedFrom(request.machine, request.source, gathered.microphone, (low, middle, high), kept)
    record, threshold = save_enrolment(bundle, root, origin, sound, learned)
    return EnrolmentResult(record, learned, threshold)


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


def _collect(
    collection: CollectedWindows,
    source: Source,
    wanted: int | None,
    on_progress: Callable[[EnrolmentProgress], None],
    *,
    least: int,
) -> None:
    """Add usable windows until there are enough, or the source ends."""
    extractor, unusable = FeatureExtractor(None), Counter[str]()
    message = f"going on with {len(collection)} windows collected before" if len(collection) else None
    on_progress(EnrolmentProgress(len(collection), wanted, 0, message))
    cutter = WindowCutter(live=source.live)
    is_known = False
    try:
        for event in source.events() if wanted is None or len(collection) < wanted else ():
            for item in cutter.feed(event):
                if isinstance(item, SoundReturned):
                    continue
                if isinstance(item, Window) and not is_known:
                    collection.heard_by(source.source_health.identity)
                    is_known = True
                message = _add_if_usable(collection, extractor, item, unusable)
                on_progress(EnrolmentProgress(len(collection), wanted, unusable.total(), message))
                if wanted is not None and len(collection) >= wanted:
                    return
    finally:
        source.close()
    if len(collection) < least:
        reasons = "; not usable: " + ", ".join(f"{n} {reason}" for reason, n in unusable.items()) if unusable else ""
        stays = "what was collected stays, enroll goes on with it"
        if collection.mode == "relearn":
            stays = "what was collected stays, enroll --relearn --resume goes on with it"
        raise DataSetError(
            f"{len(collection)} usable windows of 10 s were heard, at least {least} are needed{reasons}; {stays}"
        )


def _add_if_usable(
    collection: CollectedWindows,
    extractor: FeatureExtractor,
    item: Window | SourceLost | UnreadableRecording | DeadMicrophone,
    unusable: Counter[str],
) -> str | None:
    """Keep a window that is fit; what there is to say of one that isn't."""
    if isinstance(item, SourceLost | UnreadableRecording | DeadMicrophone):
        return item.reason
    reason = unfit_reason(item.sound, item.gap_samples)
    if reason is None and item.rate_error is None:
        reason = UnfitReason.RATE_UNKNOWN
    if reason is None:
        collection.add(extractor, VIEW_NAMES, item.samples)
        return None
    unusable[reason.value] += 1
    return f"a window was not usable: {reason.value}"
