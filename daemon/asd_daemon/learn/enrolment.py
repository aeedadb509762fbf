"""Learning a machine on the box: its source → usable windows → vectors on the disk → a learned state that passes, or the old one stays.

Owns the collecting, which goes on where it was interrupted, and what must hold before a new state is taken. Vectors are kept, sound is not.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from asd_daemon.errors import BundleError, DataSetError, UsageError
from asd_daemon.hear.source import DeadMicrophone, SoundReturned, Source, SourceLost, UnreadableRecording
from asd_daemon.hear.windows.quality import UnfitReason, unfit_reason
from asd_daemon.hear.windows.window import Window, WindowCutter
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.bundle.onnx_sessions import open_embedder, open_separator
from asd_daemon.judge.features.views import VIEW_NAMES
from asd_daemon.judge.scoring.scorer import HEARD, SEPARATED, FeatureExtractor, Scorer
from asd_daemon.learn.collected_windows import COLLECTING, CollectedWindows
from asd_daemon.learn.enrolled_machines import (
    EnrolmentRecord,
    join_sound,
    models_hash,
    read_enrolled_sound,
    read_enrolment,
    save_enrolment,
)
from asd_daemon.learn.learning import LEAST_WINDOWS, LearnedMachine, learn
from asd_daemon.learn.machine_files import write_machine
from asd_daemon.learn.normal_sound import NormalSound

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
        bundle: whose models hear.
        root: where learned machines lie.
        request: what shall be learned.
        source: its sound.
        on_progress: called after each window.

    Raises:
        UsageError: the machine was learned already, and neither `add` nor `relearn` is set.
        DataSetError: too few usable windows, or a sound too changeable: what was collected and the old state stay.
        SourceError, BundleError: the source or the models fail.
    """
    before = read_enrolment(root, request.machine)
    if before is not None and not (request.add or request.relearn):
        raise UsageError(
            f"{request.machine} was learned here on {before.created[:10]} from {before.windows} windows;"
            " --add extends that, --relearn replaces it"
        )
    if before is not None and request.add and before.models != models_hash(bundle):
        raise UsageError(
            f"{request.machine} was learned with other models ({before.bundle}); give --relearn instead of --add"
        )
    views = (*VIEW_NAMES, HEARD, *((SEPARATED,) if bundle.manifest.separator is not None else ()))
    separator = open_separator(bundle) if bundle.manifest.separator is not None else None
    extractor = FeatureExtractor(open_embedder(bundle), separator)
    collection = CollectedWindows(root / request.machine / COLLECTING, models_hash(bundle))
    wanted = None if request.windows is None else collection.windows_at_last_failure + request.windows
    _collect(collection, extractor, views, source, wanted, on_progress)
    fresh, levels = collection.read()
    sound = join_sound(read_enrolled_sound(root, before), fresh) if before is not None and request.add else fresh
    rows, _ = sound.distinct_windows()
    if LEAST_WINDOWS <= len(rows) < sound.windows:
        message = f"{sound.windows - len(rows)} of {sound.windows} windows are copies of others and count once"
        on_progress(EnrolmentProgress(len(collection), wanted, 0, message))
        sound = sound.subset(rows)
    learned = learn(sound)
    if learned.drift > DRIFT_LIMIT:
        collection.mark_failed()
        raise DataSetError(
            f"{request.machine}: the sound was too changeable: a quarter of the time scores {learned.drift:.1f} times what the rest"
            f" does (at most {DRIFT_LIMIT:g}); run the machine as it usually runs and call enroll again for more windows,"
            f" or delete {collection.folder} first to begin anew"
        )
    record = _write(bundle, root, request, sound, learned, levels, source.source_health.identity)
    try:  # it must open as the daemon will open it, before the old state is let go
        known = replace(bundle, enrolled={request.machine: (root / request.machine, record.entry)})
        threshold = Scorer(known, request.machine, separator=separator).threshold
        record = save_enrolment(root, record, sound)
    except OSError as e:
        raise BundleError(f"{root / request.machine}: can't be written: {e.strerror}; the state before it stays") from e
    return EnrolmentResult(record, learned, threshold)


def _collect(
    collection: CollectedWindows,
    extractor: FeatureExtractor,
    views: tuple[str, ...],
    source: Source,
    wanted: int | None,
    on_progress: Callable[[EnrolmentProgress], None],
) -> None:
    """Add usable windows until there are enough, or the source ends."""
    unusable: Counter[str] = Counter()
    message = f"going on with {len(collection)} windows collected before" if len(collection) else None
    on_progress(EnrolmentProgress(len(collection), wanted, 0, message))
    cutter = WindowCutter(live=source.live)
    try:
        for event in source.events() if wanted is None or len(collection) < wanted else ():
            for item in cutter.feed(event):
                if isinstance(item, SoundReturned):
                    continue
                message = _add_if_usable(collection, extractor, views, item, unusable)
                on_progress(EnrolmentProgress(len(collection), wanted, unusable.total(), message))
                if wanted is not None and len(collection) >= wanted:
                    return
    finally:
        source.close()
    if len(collection) < LEAST_WINDOWS:
        reasons = "; not usable: " + ", ".join(f"{n} {reason}" for reason, n in unusable.items()) if unusable else ""
        raise DataSetError(
            f"{len(collection)} usable windows of 10 s were heard, at least {LEAST_WINDOWS} are needed{reasons};"
            " what was collected stays, enroll goes on with it"
        )


def _add_if_usable(
    collection: CollectedWindows,
    extractor: FeatureExtractor,
    views: tuple[str, ...],
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
        collection.add(extractor, views, item.samples)
        return None
    unusable[reason.value] += 1
    return f"a window was not usable: {reason.value}"


def _write(
    bundle: Bundle,
    root: Path,
    request: EnrolmentRequest,
    sound: NormalSound,
    learned: LearnedMachine,
    levels: list[float],
    microphone: str | None,
) -> EnrolmentRecord:
    """Write the machine's files into a folder of their own; nothing points to it yet."""
    now = datetime.now(UTC)
    stamp = now.strftime("%Y%m%dT%H%M%S")
    folder = root / request.machine / stamp
    shutil.rmtree(folder, ignore_errors=True)
    bank = sound.vectors[HEARD][:, 0]
    separated = sound.vectors[SEPARATED][:, 0] if SEPARATED in dict(learned.weights) else None
    entry, _ = write_machine(folder, stamp, bank, bank[:0], separated_bank=separated, learned=learned)
    low, middle, high = (float(v) for v in np.percentile(levels, (10, 50, 90)))
    return EnrolmentRecord(
        schema=1,
        machine=request.machine,
        created=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        bundle=f"{bundle.name} {bundle.version}",
        models=models_hash(bundle),
        entry=entry,
        files={},
        windows=sound.windows,
        source=request.source,
        microphone=microphone,
        level_dbfs=(round(low, 2), round(middle, 2), round(high, 2)),
        drift=round(learned.drift, 4),
        contrast=None if learned.contrast is None else round(learned.contrast, 4),
        weights=learned.weights,
    )
