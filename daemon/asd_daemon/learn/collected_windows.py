"""Windows of one machine that are being collected, on the disk, so that an interrupted enrolment goes on where it was.

A collection is of one source, one microphone, one wish (new, add, relearn), one set of views, and one day: what was
collected for another reason never becomes part of what is learned. Owns the folder `collecting` and that rule.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from asd_daemon.errors import EnrolmentError, UsageError
from asd_daemon.judge.scoring.scorer import FeatureExtractor
from asd_daemon.learn.kept_sound import window_files, write_window
from asd_daemon.learn.kept_vectors import read_vectors, write_vectors
from asd_daemon.learn.normal_sound import NormalSound
from asd_daemon.private_files import make_private_folder, write_private

COLLECTING = "collecting"
NOTE = "note.json"
FAILURE_FILE = "tried.json"
OLDEST = timedelta(days=1)
"""Windows that were collected longer ago are of another day, and perhaps of another state of the machine."""

Mode = Literal["new", "add", "relearn"]
Earlier = Literal["ask", "resume", "forget", "forget other"]
"""What becomes of windows that an earlier call has collected: go on with them if they are for the same, and refuse (ask, resume) or
forget them (forget other) if not; or forget them in any case. Asked, a relearning forgets: it begins empty."""


class CollectionKey(BaseModel):
    """What windows are collected for; all of it must be the same for a collection to go on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    mode: Mode
    views: Mapping[str, int]
    """Name → numbers."""
    program: str
    state: str | None = None
    """Of the machine, where somebody has named it."""
    over_s: float | None = None
    """Over how long they are spread; None: one after the other."""
    windows: int | None = None
    """How many slots of time there are, where they are spread."""
    models: str | None = None
    """SHA-256 of the models that embeddings are of; None: there are none."""


class CollectionNote(BaseModel):
    """What a folder of collected windows says of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: CollectionKey
    microphone: str | None = None
    begun_at: datetime | None = None
    """UTC time of the first window, where they are spread."""
    unattended: bool = False
    wanted: int | None = None
    """How many a daemon wants, where they are not spread."""


class CollectedWindows:
    """Vectors of usable windows, their levels, and the windows themselves where they may be kept.

    Args:
        folder: where they lie.
        key: what they are for.
        earlier: what becomes of those that are there.
        keeps_sound: whether the windows themselves are kept.
        extractor: what describes them; None: one without models.
        unattended: whether a daemon collects, and goes on by itself after a restart.
        wanted: how many windows, for that; None: all that come, or as many as there are slots.
        now: UTC time.

    Raises:
        UsageError: windows of another kind are there, and nobody has said what to do with them.
        EnrolmentError: the folder can't be written.
    """

    def __init__(
        self,
        folder: Path,
        key: CollectionKey,
        *,
        earlier: Earlier = "ask",
        keeps_sound: bool = False,
        extractor: FeatureExtractor | None = None,
        unattended: bool = False,
        wanted: int | None = None,
        now: datetime | None = None,
    ) -> None:
        self._wanted, self.extractor = wanted, extractor or FeatureExtractor(None)
        self.folder, self._key, self._earlier, self._keeps_sound = folder, key, earlier, keeps_sound
        self._now, self._unattended = now or datetime.now(UTC), unattended
        self.forgotten = 0
        """Windows that were there and are not gone on with."""
        self.hears_far = False  # whether a second microphone has heard one that was added
        self._files = sorted(folder.glob("window-*.npz"))
        try:
            self._note = self._resumed()
            if self._note is None:
                self._begin()
        except OSError as e:
            raise EnrolmentError(
                f"{folder}: can't be written: {e}; set ASD_STATE_DIR or give this user the right"
            ) from e

    def __len__(self) -> int:
        return len(self._files)

    @property
    def mode(self) -> Mode:
        """What the windows are for."""
        return self._key.mode

    @property
    def views(self) -> tuple[str, ...]:
        """What each window is described by."""
        return tuple(self._key.views)

    @property
    def windows_at_last_failure(self) -> int:
        """How many windows there were when nothing could be learned from them; 0 where that never was."""
        try:
            return min(int((self.folder / FAILURE_FILE).read_text(encoding="ascii")), len(self))
        except (OSError, ValueError):
            return 0

    @property
    def sounds(self) -> dict[int, Path]:
        """The windows that are kept as sound, by their position in `read`."""
        files = {f.name[7:13]: f for f in window_files(self.folder)}
        return {row: files[f.name[7:13]] for row, f in enumerate(self._files) if f.name[7:13] in files}

    def mark_failed(self) -> None:
        """Nothing can be learned from what there is: the next call listens on.

        Raises:
            EnrolmentError: the disk refuses.
        """
        try:
            write_private(self.folder / FAILURE_FILE, str(len(self)))
        except OSError as e:
            raise EnrolmentError(f"{self.folder}: can't be written: {e}") from e

    def forget(self) -> None:
        """Delete everything: what was collected is of no use, or was refused."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._files = []

    def heard_by(self, microphone: str | None) -> None:
        """Say who hears, before the first window is added.

        Raises:
            UsageError: another microphone heard what is there, and nobody has said what to do with it.
            EnrolmentError: the folder can't be written.
        """
        note = self._note
        if note is None or note.microphone == microphone:
            return
        try:
            if self._files:
                self._refuse(
                    f"heard by {note.microphone or 'an unknown microphone'}, now {microphone or 'an unknown one'}"
                )
                self._begin()
            note = self._note or note
            self._write(note.model_copy(update={"microphone": microphone}))
        except OSError as e:
            raise EnrolmentError(f"{self.folder}: can't be written: {e}") from e

    @property
    def last_number(self) -> int:
        """The number of the last window; -1 where there is none."""
        return int(self._files[-1].name[7:13]) if self._files else -1

    def begin_at(self, at: datetime) -> datetime:
        """When the first slot of time began: now, where it has not begun before.

        Raises:
            EnrolmentError: the folder can't be written.
        """
        note = self._note or CollectionNote(key=self._key)
        if note.begun_at is None:
            try:
                self._write(note.model_copy(update={"begun_at": at}))
            except OSError as e:
                raise EnrolmentError(f"{self.folder}: can't be written: {e}") from e
            return at
        return note.begun_at

    def add(
        self,
        extractor: FeatureExtractor,
        views: tuple[str, ...],
        samples: np.ndarray,
        *,
        number: int | None = None,
        keeps_sound: bool = True,
    ) -> None:
        """Describe a window and keep its vectors and its level.

        Args:
            extractor: describes it.
            views: by which views.
            samples: float32 (160 000,), or (160 000, 2) of two microphones: described and measured is the near one.
            number: higher than that of the last one; None: the next.
            keeps_sound: whether this one may be kept as sound, where any are.

        Raises:
            EnrolmentError: the disk refuses.
        """
        number = 1 + self.last_number if number is None else number
        self.hears_far |= samples.ndim == 2
        near = samples if samples.ndim == 1 else np.ascontiguousarray(samples[:, 0])
        own = extractor.vectors(near, views, parts=True)
        level = 10 * np.log10(np.mean(np.square(near, dtype=np.float64)) + 1e-20)
        file = self.folder / f"window-{number:06d}.npz"
        try:
            if self._keeps_sound and keeps_sound:
                write_window(self.folder, number, samples)
            write_vectors(file, own | {"level_dbfs": np.array([[level]], np.float32)})
        except OSError as e:
            raise EnrolmentError(f"{file}: can't be written: {e.strerror}; what was collected stays") from e
        self._files.append(file)

    def read(self) -> tuple[NormalSound, list[float]]:
        """All windows, and their levels.

        Raises:
            EnrolmentError: one of them is damaged.
        """
        windows: list[tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]] = []
        levels = []
        for file in self._files:
            own = read_vectors(file)
            levels.append(float(own.pop("level_dbfs")[0, 0]))
            windows.append((own, {}))
        return NormalSound.from_windows(windows), levels

    def _resumed(self) -> CollectionNote | None:
        """The note of a collection that is gone on with."""
        if not self._files:
            return None
        if self._earlier == "forget" or (self._earlier == "ask" and self._key.mode == "relearn"):
            return None
        try:
            note = CollectionNote.model_validate_json((self.folder / NOTE).read_bytes())
        except (OSError, ValidationError):
            self._refuse("nobody knows of what")
            return None
        other = self._difference(note)
        if other is not None:
            self._refuse(other)
            return None
        return note

    def _difference(self, note: CollectionNote) -> str | None:
        """What there is for another purpose, in words; None where it is for the same."""
        last = datetime.fromtimestamp(self._files[-1].stat().st_mtime, UTC)
        oldest = max(OLDEST, timedelta(seconds=self._key.over_s or 0))
        if not timedelta(hours=-1) <= self._now - last <= oldest:
            return f"the last of them of {last:%Y-%m-%d %H:%M} UTC, more than a day ago"
        if note.key.source != self._key.source:
            return f"heard from {note.key.source}, now {self._key.source}"
        if note.key.state != self._key.state:
            return f"of state {note.key.state or 'unknown'}, not {self._key.state or 'unknown'}"
        if note.key.over_s != self._key.over_s:
            return "spread over another time"
        if note.key.mode != self._key.mode:
            said = {"new": "enroll", "add": "enroll --add", "relearn": "enroll --relearn"}
            return f"collected for `{said[note.key.mode]}`, not `{said[self._key.mode]}`"
        return None if note.key == self._key else "described by another version of asd-edge"

    def _refuse(self, why: str) -> None:
        """Refuse to forget what is there, where nobody has said that it may be forgotten."""
        if self._earlier in ("ask", "resume"):
            raise UsageError(
                f"{self.folder}: {len(self._files)} windows of an earlier call are there, {why}; --anew begins without them"
            )

    def _begin(self) -> None:
        self.forgotten, self._files = len(self._files), []
        shutil.rmtree(self.folder, ignore_errors=True)
        make_private_folder(self.folder)
        self._write(CollectionNote(key=self._key, unattended=self._unattended, wanted=self._wanted))

    def _write(self, note: CollectionNote) -> None:
        write_private(self.folder / NOTE, note.model_dump_json())
        self._note = note
