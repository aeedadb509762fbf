"""The stores of the state folder, opened once for all machines of a process and closed in order.

    alerts.sqlite     alerts that wait for the broker, and what the alarms know
    scores.sqlite     every window's score
    clips/MACHINE/    sound around alerts

Owns which of them there are, by the settings. What lies in them is their own business.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asd_daemon.settings.keys import KeepSettings
from asd_daemon.tell.storage.clips import Budget, ClipRecorder, ClipShelf, ClipSpan
from asd_daemon.tell.storage.machine_records import Keeper
from asd_daemon.tell.storage.outbox import Outbox
from asd_daemon.tell.storage.score_log import ScoreLog
from asd_daemon.watch.report import Stock


def scores_file(folder: Path) -> Path:
    """Where the scores lie below a state folder."""
    return folder / "scores.sqlite"


class Stores:
    """All of them.

    Args:
        folder: the state folder.
        keep: what the configuration wants kept.
        machines: those of this process.
    """

    def __init__(self, folder: Path, keep: KeepSettings, machines: Sequence[str]) -> None:
        self._keep = keep
        self.outbox = Outbox(folder / "alerts.sqlite", machines, limit=keep.alerts_waiting)
        self._scores = ScoreLog(scores_file(folder), every_s=keep.scores_every_s, days=keep.scores_days)
        budget = Budget(most_bytes=keep.clips_mb * 1e6, most_days=keep.clips_days)
        self._shelf = ClipShelf(folder / "clips", budget) if keep.keeps_clips else None

    def keeper(self, machine: str) -> Keeper:
        """What is kept of one machine."""
        span = ClipSpan(self._keep.clip_before_s, self._keep.clip_after_s)
        recorder = ClipRecorder(self._shelf, machine, span) if self._shelf else None
        return Keeper(machine, self.outbox, self._scores, recorder)

    @property
    def stock(self) -> Stock:
        """How full they are; from any thread."""
        written, failed = (self._shelf.written, self._shelf.failed) if self._shelf else (0, 0)
        return Stock(len(self.outbox), self.outbox.dropped, written, failed, self._scores.dropped)

    def start(self) -> None:
        """Begin to write."""
        if self._shelf is not None:
            self._shelf.start()

    def close(self, timeout_s: float) -> None:
        """Write what waits, and let go."""
        self._scores.close()
        if self._shelf is not None:
            self._shelf.close(timeout_s)
        self.outbox.close()
