"""Listening to a source until there are enough usable windows of a machine: one after the other, or spread over hours and days.

Owns which windows are taken. What becomes of them is enrolment.py's business.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from asd_daemon.errors import DataSetError
from asd_daemon.hear.source import DeadMicrophone, SoundReturned, Source, SourceLost, UnreadableRecording
from asd_daemon.hear.windows.quality import UnfitReason, unfit_reason
from asd_daemon.hear.windows.window import Window, WindowCutter
from asd_daemon.learn.collected_windows import CollectedWindows
from asd_daemon.learn.kept_sound import MOST_SOUNDS
from asd_daemon.learn.spread import SpreadSchedule, duration_words


@dataclass(frozen=True)
class EnrolmentProgress:
    """How far the collecting is."""

    windows: int
    wanted: int | None
    """None: all that the source has."""
    unusable: int
    message: str | None = None
    """Something worth a line of its own."""


class ProgressReporter:
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


def collect(
    collection: CollectedWindows,
    source: Source,
    wanted: int | None,
    on_progress: Callable[[EnrolmentProgress], None],
    *,
    least: int,
) -> None:
    """Add usable windows until there are enough, or the source ends."""
    unusable = Counter[str]()
    message = f"going on with {len(collection)} windows collected before" if len(collection) else None
    on_progress(EnrolmentProgress(len(collection), wanted, 0, message))
    try:
        for item in _items(collection, source) if wanted is None or len(collection) < wanted else ():
            message = _add_if_usable(collection, item, unusable)
            on_progress(EnrolmentProgress(len(collection), wanted, unusable.total(), message))
            if wanted is not None and len(collection) >= wanted:
                return
    finally:
        source.close()
    _check_enough(collection, unusable, least)


def collect_spread(
    collection: CollectedWindows,
    source: Source,
    schedule: SpreadSchedule,
    on_progress: Callable[[EnrolmentProgress], None],
    *,
    least: int,
) -> None:
    """Add one usable window of each slot of time until the time is over, or the source ends."""
    unusable, wanted = Counter[str](), schedule.windows
    message: str | None = f"a window every {duration_words(schedule.slot_s)}, over {duration_words(schedule.over_s)}"
    if len(collection):
        message = f"going on with {len(collection)} windows collected before; {message}"
    on_progress(EnrolmentProgress(len(collection), wanted, 0, message))
    try:
        for item in _items(collection, source):
            if isinstance(item, Window):
                schedule.begin(collection.begin_at(item.started_at), collection.last_number)
                slot = schedule.slot(item.started_at)
                if slot >= wanted:
                    break
                if not schedule.wants(item.started_at):
                    continue
                before = len(collection)
                message = _add_if_usable(collection, item, unusable, number=slot, every=-(-wanted // MOST_SOUNDS))
                if len(collection) > before:
                    schedule.took(slot)
            else:
                message = _add_if_usable(collection, item, unusable)
            on_progress(EnrolmentProgress(len(collection), wanted, unusable.total(), message))
            if schedule.is_over:
                break
    finally:
        source.close()
    _check_enough(collection, unusable, least)


def _items(
    collection: CollectedWindows, source: Source
) -> Iterator[Window | SourceLost | UnreadableRecording | DeadMicrophone]:
    """What a source says, in windows; who hears is noted with the first of them."""
    cutter = WindowCutter(live=source.live)
    is_known = False
    for event in source.events():
        for item in cutter.feed(event):
            if isinstance(item, SoundReturned):
                continue
            if isinstance(item, Window) and not is_known:
                collection.heard_by(source.source_health.identity)
                is_known = True
            yield item


def _check_enough(collection: CollectedWindows, unusable: Counter[str], least: int) -> None:
    """Refuse to learn from too few windows.

    Raises:
        DataSetError: says how many there are and why others were not usable.
    """
    if len(collection) >= least:
        return
    reasons = "; not usable: " + ", ".join(f"{n} {reason}" for reason, n in unusable.items()) if unusable else ""
    stays = "what was collected stays, enroll goes on with it"
    if collection.mode == "relearn":
        stays = "what was collected stays, enroll --relearn --resume goes on with it"
    raise DataSetError(
        f"{len(collection)} usable windows of 10 s were heard, at least {least} are needed{reasons}; {stays}"
    )


def _add_if_usable(
    collection: CollectedWindows,
    item: Window | SourceLost | UnreadableRecording | DeadMicrophone,
    unusable: Counter[str],
    *,
    number: int | None = None,
    every: int = 1,
) -> str | None:
    """Keep a window that is fit; what there is to say of one that isn't."""
    if isinstance(item, SourceLost | UnreadableRecording | DeadMicrophone):
        return item.reason
    reason = unfit_reason(item.sound, item.gap_samples)
    if reason is None and item.rate_error is None:
        reason = UnfitReason.RATE_UNKNOWN
    if reason is None:
        keeps = number is None or number % every == 0
        collection.add(collection.extractor, collection.views, item.both, number=number, keeps_sound=keeps)
        return None
    unusable[reason.value] += 1
    return f"a window was not usable: {reason.value}"
