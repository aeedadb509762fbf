"""What people say of a machine's alerts, and what follows: accepted windows are normal from then on, named ones are recognised.

Owns the machine's archive of alerts, the vectors of the alert that is open, and the judge that knows what was said. From one thread, the
judging one. Nothing of what was learned at enrolment changes, so that any word can be taken back.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import UsageError
from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.judge.scoring.verdict import DescribedVerdict, Likeness, Verdict
from asd_daemon.learn.view_probes import ViewProbe, view_probes
from asd_daemon.tell.commands import Answer, Command, CommandKind
from asd_daemon.tell.storage.alert_archive import AlertArchive, ArchivedAlert

_LOG = logging.getLogger(__name__)
F32 = NDArray[np.float32]
MOST_WINDOWS = 24
"""So many windows of an alert are kept as vectors, the first ones."""
_WRITTEN_AT = (4, 8, 16, MOST_WINDOWS)
NOT_TAUGHT = (
    "is judged by the nearest neighbour of an older bundle, which can't be taught; learn it with `asd-daemon enroll`"
)


class AlertTeaching:
    """One machine's.

    Args:
        machine: whose.
        archive: where its alerts are kept; None: nothing is, and nothing can be said.
    """

    def __init__(self, machine: str, archive: AlertArchive | None) -> None:
        self._machine, self._archive = machine, archive
        self._recent: deque[tuple[datetime, Mapping[str, F32]]] = deque(maxlen=MOST_WINDOWS)
        self._alert: ArchivedAlert | None = None  # the one that is open
        self._vectors: list[Mapping[str, F32]] = []
        self.version = 0
        """Another number whenever something else was said."""
        self.can_be_taught = True
        self.write_error: str | None = None
        """Why alerts can't be kept, in words; None where they can."""

    def accepted(self) -> list[dict[str, F32]]:
        """Windows that people called normal, view → (K, D) for each alert."""
        return [vectors for alert, vectors in self._said() if alert.word == "normal"]

    def examples(self) -> list[tuple[Likeness, dict[str, F32]]]:
        """Named faults, each with its windows, view → (K, D); without the alert that is open, which would resemble itself."""
        own = self._alert.event_id if self._alert is not None else None
        return [
            (Likeness(alert.name, alert.started_at.date()), vectors)
            for alert, vectors in self._said()
            if alert.word == "fault" and alert.name is not None and alert.event_id != own
        ]

    def resume(self, event: AlertEvent | None, clip: str | None = None) -> None:
        """Go on with the alert that an earlier run has left open, and keep it where that run, of an older version, did not."""
        if event is not None:
            self._alert = self._begin(event)
            if self._alert.clip is None:
                self._alert = self._alert.model_copy(update={"clip": clip})
            self._write(with_vectors=False)

    def hear(self, verdict: Verdict, at: datetime, *, alert_open: bool) -> None:
        """Take in a window that was judged, before what it makes of the alert is told to `follow`.

        Args:
            verdict: of the window.
            at: UTC time of the window.
            alert_open: whether an alert was open before it.
        """
        if not isinstance(verdict, DescribedVerdict) or not verdict.vectors:
            return
        if not verdict.anomalous:
            return
        own = {view: vector[:1] for view, vector in verdict.vectors.items()}
        if not alert_open:
            self._recent.append((at, own))
        elif len(self._vectors) < MOST_WINDOWS and own.keys() == next(iter(self._vectors), own).keys():
            self._vectors.append(
                own
            )  # one that is described otherwise, since the machine is judged otherwise now, is no part of it
            if len(self._vectors) in _WRITTEN_AT:
                self._write(with_vectors=True)

    def follow(self, event: AlertEvent, text: str | None, clip: str | None) -> None:
        """Keep what has become of an alert."""
        if event.kind is AlertKind.OPEN or self._alert is None or self._alert.event_id != event.event_id:
            self._alert = self._begin(event)
        word = self._word_of(event.event_id)
        self._alert = self._alert.model_copy(
            update={
                "at": event.at,
                "peak_score": event.peak_score,
                "threshold": event.threshold,
                "text": text or self._alert.text,
                "clip": clip or self._alert.clip,
                "closed_at": event.at if event.kind is AlertKind.CLOSE else None,
                **word,
            }
        )
        self._write(with_vectors=event.kind is not AlertKind.UPDATE)
        if event.kind is AlertKind.CLOSE:
            self.version += self._alert.word == "fault"  # an example from now on
            self._alert, self._vectors = None, []

    def say(self, command: Command, open_event: str | None, now: datetime) -> tuple[Answer, str | None]:
        """Take somebody's word for an alert; the answer, and which alert it was for (None: it was refused)."""
        event_id = command.event_id or open_event
        if self._archive is None:
            return Answer(False, f"{self._machine}: no alerts are kept of recordings and simulations"), None
        if event_id is None:
            return Answer(False, f"{self._machine}: no alert is open; say which one is meant"), None
        is_normal, is_note = command.command is CommandKind.NORMAL, command.command is CommandKind.NOTE
        if not self.can_be_taught and not command.undo and not is_note:
            return Answer(False, f"{self._machine} {NOT_TAUGHT}"), None
        self._write(with_vectors=True)
        try:
            alert = self._archive.read(event_id)
            answer = say_of(self._archive, alert, command, now)
        except (UsageError, OSError) as e:
            return Answer(False, str(e)), None
        if answer.ok:
            self.version += 0 if is_note else 1
            _LOG.info("%s: %s", self._machine, answer.text)
            if self._alert is not None and self._alert.event_id == alert.event_id:
                self._alert = self._archive.read(alert.event_id)
        return answer, alert.event_id if answer.ok and is_normal and not command.undo else None

    def _said(self) -> list[tuple[ArchivedAlert, dict[str, F32]]]:
        return said_alerts(self._archive, self._machine) if self._archive is not None else []

    def _begin(self, event: AlertEvent) -> ArchivedAlert:
        """An alert's entry; where an earlier run has begun it, with the windows that were kept then."""
        recent = [own for at, own in self._recent if at >= event.started_at]
        self._vectors = [own for own in recent if own.keys() == recent[-1].keys()]
        self._recent.clear()
        try:
            if self._archive is not None:
                known = self._archive.read(event.event_id)
                kept = self._archive.vectors(event.event_id)
                self._vectors = [{view: x[n : n + 1] for view, x in kept.items()} for n in range(known.windows)]
                return known
        except UsageError:
            _LOG.debug("%s: alert %s is new", self._machine, event.event_id)
        return ArchivedAlert(
            event_id=event.event_id,
            started_at=event.started_at,
            at=event.at,
            peak_score=event.peak_score,
            threshold=event.threshold,
        )

    def _word_of(self, event_id: str) -> dict[str, object]:
        """What somebody said of an alert meanwhile, without this process."""
        if self._archive is None:
            return {}
        try:
            kept = self._archive.read(event_id)
        except UsageError:
            return {}
        return {"word": kept.word, "name": kept.name, "said_at": kept.said_at, "note": kept.note}

    def _write(self, *, with_vectors: bool) -> None:
        if self._archive is None or self._alert is None:
            return
        vectors: dict[str, F32] = {}
        if with_vectors and self._vectors:
            vectors = {view: np.concatenate([one[view] for one in self._vectors]) for view in self._vectors[0]}
            probes = {view: view_probes()[view].model_dump() for view in vectors if view in view_probes()}
            self._alert = self._alert.model_copy(update={"windows": len(self._vectors), "probes": probes})
        try:
            self._archive.write(self._alert, vectors)
            self.write_error = None
        except OSError as e:
            if self.write_error is None:
                _LOG.error("%s: its alerts can't be kept: %s", self._machine, e.strerror or e)
            self.write_error = f"alerts can't be kept: {e.strerror or e}"


def say_of(archive: AlertArchive, alert: ArchivedAlert, command: Command, now: datetime) -> Answer:
    """Note what is said of an alert, and answer it.

    Raises:
        OSError: the disk refuses.
    """
    which = f"alert {alert.event_id[:8]} of {alert.started_at:%Y-%m-%d %H:%M}"
    if command.command is CommandKind.NOTE:
        archive.note(alert.event_id, (command.text or "").strip())
        return Answer(True, f"{which}: {'noted' if (command.text or '').strip() else 'the note is gone'}")
    word = "normal" if command.command is CommandKind.NORMAL else "fault"
    if command.undo:
        if alert.word != word:
            return Answer(False, f"{which} was not called {'normal' if word == 'normal' else 'a fault'}")
        archive.say(alert.event_id, None, now)
        return Answer(True, f"{which} is {'no longer taken for normal' if word == 'normal' else 'no example any more'}")
    if not alert.windows:
        return Answer(False, f"{which}: its windows were not kept, so nothing can be learned from it")
    if word == "normal":
        archive.say(alert.event_id, "normal", now)
        taken = f"{alert.windows} windows are" if alert.windows > 1 else "its window is"
        return Answer(True, f"{which} is normal: {taken} taken for normal from now on")
    archive.say(alert.event_id, "fault", now, command.name)
    return Answer(True, f"{which} is kept as {command.name}; alerts that resemble it will say so")


def said_alerts(archive: AlertArchive, machine: str) -> list[tuple[ArchivedAlert, dict[str, F32]]]:
    """Alerts of which somebody has said something, with their windows as this program still understands them."""
    found = []
    for alert in archive.all():
        if alert.word is None:
            continue
        try:
            vectors = archive.vectors(alert.event_id)
            changed = [view for view, then in alert.probes.items() if not _is_computed_as(view, then)]
        except (UsageError, ValueError) as e:
            _LOG.warning("%s: what was said of alert %s is of no use any more: %s", machine, alert.event_id, e)
            continue
        if changed:
            why = f"view {changed[0]} is computed otherwise by this asd-edge"
            _LOG.warning("%s: what was said of alert %s is of no use any more: %s", machine, alert.event_id, why)
        elif vectors:
            found.append((alert, vectors))
    return found


def _is_computed_as(view: str, then: object) -> bool:
    """Whether this program computes a view as it was computed then."""
    now = view_probes().get(view)
    return now is not None and now.same_as(ViewProbe.model_validate(then))
