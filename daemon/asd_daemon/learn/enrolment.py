"""Learning a machine on the box: its source → usable windows → vectors on the disk → a learned state that passes, or the old one stays.

Owns the collecting, which goes on where it was interrupted, and what must hold before a new state is taken. Vectors are kept, sound is not.
"""

from __future__ import annotations

import json
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
from asd_daemon.learn.enrolled_machines import (
    EnrolmentRecord,
    join,
    keep,
    kept_sound,
    models_of,
    read_enrolment,
    read_vectors,
    write_vectors,
)
from asd_daemon.learn.learning import LEAST_WINDOWS, LearnedMachine, NormalSound, describe_normal, learn, write_machine

COLLECTING = "collecting"
NOTE = "note.json"
TRIED = "tried.json"
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


@dataclass(frozen=True)
class EnrolmentResult:
    """A machine that was learned."""

    record: EnrolmentRecord
    learned: LearnedMachine
    threshold: float
    """For one false alarm a week, two of three windows."""


class Collection:
    """Vectors of usable windows of one machine, on the disk, so that collecting goes on where it was interrupted."""

    def __init__(self, folder: Path, models: str) -> None:
        """Open the collection that is begun, or begin one; one that other models heard is begun anew.

        Raises:
            BundleError: the folder can't be written.
        """
        self.folder = folder
        note = folder / NOTE
        expected = json.dumps({"models": models})
        try:
            if not note.is_file() or note.read_text(encoding="utf-8", errors="replace") != expected:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                note.write_text(expected, encoding="utf-8")
        except OSError as e:
            raise BundleError(f"{folder}: can't be written: {e}; set ASD_STATE_DIR or give this user the right") from e
        self._files = sorted(folder.glob("window-*.npz"))

    def __len__(self) -> int:
        return len(self._files)

    @property
    def tried(self) -> int:
        """How many windows there were when nothing could be learned from them; 0 where that never was."""
        try:
            return min(int((self.folder / TRIED).read_text(encoding="ascii")), len(self))
        except (OSError, ValueError):
            return 0

    def note_tried(self) -> None:
        """Nothing can be learned from what there is: the next call listens on.

        Raises:
            BundleError: the disk refuses.
        """
        try:
            (self.folder / TRIED).write_text(str(len(self)), encoding="ascii")
        except OSError as e:
            raise BundleError(f"{self.folder}: can't be written: {e}") from e

    def add(self, hearing: FeatureExtractor, views: tuple[str, ...], samples: np.ndarray) -> None:
        """Describe a window and keep its vectors and its level.

        Raises:
            BundleError: the disk refuses.
        """
        number = len(self._files)
        own, changed = describe_normal(hearing, samples, views, np.random.default_rng(number))
        level = 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-20)
        file = self.folder / f"window-{number:06d}.npz"
        try:
            write_vectors(file, own | {"level_dbfs": np.array([[level]], np.float32)}, changed)
        except OSError as e:
            raise BundleError(f"{file}: can't be written: {e.strerror}; what was collected stays") from e
        self._files.append(file)

    def read(self) -> tuple[NormalSound, list[float]]:
        """All windows, and their levels."""
        windows, levels = [], []
        for file in self._files:
            own, changed = read_vectors(file)
            levels.append(float(own.pop("level_dbfs")[0, 0]))
            windows.append((own, changed))
        return NormalSound.joined(windows), levels


def enrol(
    bundle: Bundle, root: Path, order: EnrolmentRequest, source: Source, told: Callable[[Progress], None]
) -> EnrolmentResult:
    """Learn a machine and keep it below `root`.

    Args:
        bundle: whose models hear.
        root: where learned machines lie.
        order: what shall be learned.
        source: its sound.
        told: called after each window.

    Raises:
        UsageError: the machine was learned already, and neither `add` nor `relearn` is set.
        DataSetError: too few usable windows, or a sound too changeable: what was collected and the old state stay.
        SourceError, BundleError: the source or the models fail.
    """
    before = read_enrolment(root, order.machine)
    if before is not None and not (order.add or order.relearn):
        raise UsageError(
            f"{order.machine} was learned here on {before.created[:10]} from {before.windows} windows;"
            " --add extends that, --relearn replaces it"
        )
    if before is not None and order.add and before.models != models_of(bundle):
        raise UsageError(
            f"{order.machine} was learned with other models ({before.bundle}); give --relearn instead of --add"
        )
    views = (*VIEW_NAMES, HEARD, *((SEPARATED,) if bundle.manifest.separator is not None else ()))
    separator = open_separator(bundle) if bundle.manifest.separator is not None else None
    hearing = FeatureExtractor(open_embedder(bundle), separator)
    collection = Collection(root / order.machine / COLLECTING, models_of(bundle))
    wanted = None if order.windows is None else collection.tried + order.windows
    _collect(collection, hearing, views, source, wanted, told)
    fresh, levels = collection.read()
    sound = join(kept_sound(root, before), fresh) if before is not None and order.add else fresh
    rows, _ = sound.originals()
    if LEAST_WINDOWS <= len(rows) < sound.windows:
        news = f"{sound.windows - len(rows)} of {sound.windows} windows are copies of others and count once"
        told(Progress(len(collection), wanted, 0, news))
        sound = sound.only(rows)
    learned = learn(sound)
    if learned.drift > TOO_CHANGEABLE:
        collection.note_tried()
        raise DataSetError(
            f"{order.machine}: the sound was too changeable: a quarter of the time scores {learned.drift:.1f} times what the rest"
            f" does (at most {TOO_CHANGEABLE:g}); run the machine as it usually runs and call enroll again for more windows,"
            f" or delete {collection.folder} first to begin anew"
        )
    record = _write(bundle, root, order, sound, learned, levels, source.source_health.identity)
    try:  # it must open as the daemon will open it, before the old state is let go
        known = replace(bundle, enrolled={order.machine: (root / order.machine, record.entry)})
        threshold = Scorer(known, order.machine, separator=separator).threshold
        record = keep(root, record, sound)
    except OSError as e:
        raise BundleError(f"{root / order.machine}: can't be written: {e.strerror}; the state before it stays") from e
    return EnrolmentResult(record, learned, threshold)


def _collect(
    collection: Collection,
    hearing: FeatureExtractor,
    views: tuple[str, ...],
    source: Source,
    wanted: int | None,
    told: Callable[[Progress], None],
) -> None:
    """Add usable windows until there are enough, or the source ends."""
    unusable: Counter[str] = Counter()
    news = f"going on with {len(collection)} windows collected before" if len(collection) else None
    told(Progress(len(collection), wanted, 0, news))
    cutter = WindowCutter(live=source.live)
    try:
        for heard in source.events() if wanted is None or len(collection) < wanted else ():
            for item in cutter.feed(heard):
                if isinstance(item, SoundReturned):
                    continue
                news = _take(collection, hearing, views, item, unusable)
                told(Progress(len(collection), wanted, unusable.total(), news))
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
    if reason is None and item.rate_error is None:
        reason = UnfitReason.RATE_UNKNOWN
    if reason is None:
        collection.add(hearing, views, item.samples)
        return None
    unusable[reason.value] += 1
    return f"a window was not usable: {reason.value}"


def _write(
    bundle: Bundle,
    root: Path,
    order: EnrolmentRequest,
    sound: NormalSound,
    learned: LearnedMachine,
    levels: list[float],
    microphone: str | None,
) -> EnrolmentRecord:
    """Write the machine's files into a folder of their own; nothing points to it yet."""
    now = datetime.now(UTC)
    stamp = now.strftime("%Y%m%dT%H%M%S")
    folder = root / order.machine / stamp
    shutil.rmtree(folder, ignore_errors=True)
    bank = sound.vectors[HEARD][:, 0]
    separated = sound.vectors[SEPARATED][:, 0] if SEPARATED in dict(learned.weights) else None
    entry, _ = write_machine(folder, stamp, bank, bank[:0], separated_bank=separated, learned=learned)
    low, middle, high = (float(v) for v in np.percentile(levels, (10, 50, 90)))
    return EnrolmentRecord(
        schema=1,
        machine=order.machine,
        created=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        bundle=f"{bundle.name} {bundle.version}",
        models=models_of(bundle),
        entry=entry,
        files={},
        windows=sound.windows,
        source=order.source,
        microphone=microphone,
        level_dbfs=(round(low, 2), round(middle, 2), round(high, 2)),
        drift=round(learned.drift, 4),
        pseudo_auc=round(learned.pseudo_auc, 4),
        weights=learned.weights,
    )
