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
from asd_daemon.hear.windows.quality import unfit_reason
from asd_daemon.hear.windows.window import Window, WindowCutter
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.bundle.onnx_sessions import open_embedder, open_separator
from asd_daemon.judge.features.views import VIEW_NAMES, view_sizes
from asd_daemon.judge.scoring.scorer import HEARD, SEPARATED, FeatureExtractor
from asd_daemon.learn.collection import Collection, CollectionKey, Earlier, Mode
from asd_daemon.learn.enrolled_machines import COLLECTING, LearnedFrom, adopt, locked
from asd_daemon.learn.enrolment_record import EnrolmentRecord, models_of, read_enrolment
from asd_daemon.learn.kept_vectors import join
from asd_daemon.learn.learning import LEAST_WINDOWS, LearnedMachine, learn
from asd_daemon.learn.relearning import KeptEnrolment, kept_enrolment

CHANGEABLE = 1.3  # drift from which the user hears of it
TOO_CHANGEABLE = 2.0  # a stretch of time scores twice what normal windows score: what was learned does not hold


@dataclass(frozen=True)
class Progress:
    """How far the collecting is."""

    windows: int
    wanted: int | None
    """None: all that the source has."""
    unusable: int
    news: str | None = None
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
    """Whether the windows may be kept as sound, so that other models can hear them again."""

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


@dataclass(frozen=True)
class _Ear:
    """What describes windows."""

    hearing: FeatureExtractor
    views: tuple[str, ...]

    @classmethod
    def of(cls, bundle: Bundle) -> _Ear:
        separator = open_separator(bundle) if bundle.manifest.separator is not None else None
        views = (*VIEW_NAMES, HEARD, *((SEPARATED,) if separator is not None else ()))
        return cls(FeatureExtractor(open_embedder(bundle), separator), views)

    def sizes(self, bundle: Bundle) -> dict[str, int]:
        """Numbers of every view."""
        dim = bundle.manifest.embedder.dim
        return {view: {**view_sizes(), HEARD: dim, SEPARATED: dim}[view] for view in self.views}


def enrol(
    bundle: Bundle, root: Path, order: EnrolmentRequest, source: Source, told: Callable[[Progress], None]
) -> EnrolmentResult:
    """Learn a machine and keep it below `root`.

    Args:
        bundle: whose models hear.
        root: where learned machines lie.
        order: what shall be learned.
        source: its sound.
        told: called after each window, and as the learning gets on.

    Raises:
        UsageError: the machine was learned already, and neither `add` nor `relearn` is set; or windows of another kind are there, or
            somebody else learns it at this moment.
        DataSetError: too few usable windows, or a sound too changeable: the old state stays.
        SourceError, BundleError: the source or the models fail.
    """
    reporter = _Reporter(told)
    with locked(root, order.machine):
        before = _before(root, order)
        ear = _Ear.of(bundle)
        known = None
        if before is not None and order.add:
            known = kept_enrolment(bundle, root, before, ear.hearing, ear.views, reporter.news)
        key = CollectionKey(
            source=order.source,
            mode=order.mode,
            models=models_of(bundle),
            views=ear.sizes(bundle),
            program=metadata.version("asd-edge"),
        )
        collection = Collection(
            root / order.machine / COLLECTING, key, earlier=order.earlier, keeps_sound=order.keeps_sound
        )
        if collection.forgotten:
            reporter.news(f"{collection.forgotten} windows that an earlier call collected are forgotten")
        wanted = None if order.windows is None else collection.tried + order.windows
        _collect(collection, ear, source, wanted, reporter.progress, least=1 if known is not None else LEAST_WINDOWS)
        return _learned(bundle, root, order, _Gathered(collection, source.source_health.identity, known), reporter)


class _Reporter:
    """Tells how far it is, and what else there is to say."""

    def __init__(self, told: Callable[[Progress], None]) -> None:
        self._told, self._last = told, Progress(0, None, 0)

    def progress(self, progress: Progress) -> None:
        """Another window, or the first word."""
        self._last = progress
        self._told(progress)

    def news(self, words: str) -> None:
        """Something worth a line, at the same number of windows."""
        self._told(replace(self._last, news=words))


def _before(root: Path, order: EnrolmentRequest) -> EnrolmentRecord | None:
    """What was learned before, where what is asked for is possible with it."""
    try:
        before = read_enrolment(root, order.machine)
    except EnrolmentError:
        if not order.relearn:
            raise
        return None  # relearning replaces it, whatever it is
    if before is not None and not (order.add or order.relearn):
        raise UsageError(
            f"{order.machine} was learned here on {before.created[:10]} from {before.windows} windows;"
            " --add extends that, --relearn replaces it"
        )
    return before


@dataclass(frozen=True)
class _Gathered:
    """All that a machine is learned from."""

    collection: Collection
    microphone: str | None
    known: KeptEnrolment | None
    """What was learned before and is extended."""


def _learned(
    bundle: Bundle, root: Path, order: EnrolmentRequest, gathered: _Gathered, reporter: _Reporter
) -> EnrolmentResult:
    """Learn from what was gathered, and let it take the old state's place if it passes."""
    collection, known = gathered.collection, gathered.known
    fresh, levels = collection.read()
    sound, sounds = fresh, collection.sounds
    if known is not None:
        sound, sounds = join(known.sound, fresh), [*known.files, *sounds]
    rows, _ = sound.originals()
    if LEAST_WINDOWS <= len(rows) < sound.windows:
        reporter.news(f"{sound.windows - len(rows)} of {sound.windows} windows are copies of others and count once")
        if len(sounds) == sound.windows:
            sounds = [sounds[int(row)] for row in rows]
        sound = sound.only(rows)
    learned = learn(sound, told=reporter.news)
    if learned.drift > TOO_CHANGEABLE:
        raise DataSetError(_too_changeable(order, collection, learned.drift))
    low, middle, high = (float(v) for v in np.percentile(levels, (10, 50, 90)))
    kept = sounds if order.keeps_sound else ()
    origin = LearnedFrom(order.machine, order.source, gathered.microphone, (low, middle, high), kept)
    record, threshold = adopt(bundle, root, origin, sound, learned)
    return EnrolmentResult(record, learned, threshold)


def _too_changeable(order: EnrolmentRequest, collection: Collection, drift: float) -> str:
    """Why nothing was learned, and what has become of the windows: those of a refused --add are no part of anything later."""
    what = (
        f"{order.machine}: the sound was too changeable: a quarter of the time scores {drift:.1f} times what the rest does"
        f" (at most {TOO_CHANGEABLE:g})"
    )
    if order.mode == "add":
        collection.forget()
        return f"{what}; what was added is forgotten, and what was known before stays"
    collection.note_tried()
    resume = " with --resume" if order.mode == "relearn" else ""
    return (
        f"{what}; run the machine as it usually runs and call enroll again{resume} for more windows,"
        " or with --anew to begin anew"
    )


def _collect(
    collection: Collection,
    ear: _Ear,
    source: Source,
    wanted: int | None,
    told: Callable[[Progress], None],
    *,
    least: int,
) -> None:
    """Add usable windows until there are enough, or the source ends."""
    unusable: Counter[str] = Counter()
    news = f"going on with {len(collection)} windows collected before" if len(collection) else None
    told(Progress(len(collection), wanted, 0, news))
    cutter = WindowCutter(live=source.live)
    is_known = False
    try:
        for heard in source.events() if wanted is None or len(collection) < wanted else ():
            for item in cutter.feed(heard):
                if isinstance(item, SoundReturned):
                    continue
                if isinstance(item, Window) and not is_known:
                    collection.heard_by(source.source_health.identity)
                    is_known = True
                news = _take(collection, ear.hearing, ear.views, item, unusable)
                told(Progress(len(collection), wanted, unusable.total(), news))
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


def _take(
    collection: Collection,
    hearing: FeatureExtractor,
    views: tuple[str, ...],
    item: Window | SourceLost | UnreadableRecording | DeadMicrophone,
    unusable: Counter[str],
) -> str | None:
    """Keep a window that is fit; what there is to say of one that isn't."""
    if isinstance(item, SourceLost | UnreadableRecording | DeadMicrophone):
        return item.reason
    reason = unfit_reason(item.sound, item.gap_samples)
    if reason is None and item.padded_samples == 0:
        collection.add(hearing, views, item.samples)
        return None
    word = "too short" if reason is None else reason.value
    unusable[word] += 1
    return f"a window was not usable: {word}"
