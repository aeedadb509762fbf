"""The stores of the state folder, opened once for all machines of a process and closed in order.

    alerts.sqlite     alerts that wait for the broker, and what the alarms know
    scores.sqlite     every window's score
    history.sqlite    every alert that opened, and how it ended
    alerts/MACHINE/   alerts of the past, and what was said of them
    clips/MACHINE/    sound around alerts
    notices.sqlite    what people must still be told
    pictures/MACHINE/ pictures of alerts for these messages
    commands/MACHINE/ what other programs of this box ask for
    chosen.yaml       what people have chosen while the daemon ran (settings/chosen.py)
    locks/            one file a machine, locked by the process that hears it

Owns which of them there are, by the settings. What lies in them is their own business.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asd_daemon.private_files import tighten
from asd_daemon.settings.keep import KeepSettings
from asd_daemon.tell.storage.alert_archive import AlertArchive
from asd_daemon.tell.storage.alert_history import AlertHistory
from asd_daemon.tell.storage.alert_pictures import AlertPictures
from asd_daemon.tell.storage.clip_recorder import ClipRecorder, ClipSpan
from asd_daemon.tell.storage.clips import ClipBudget, ClipStore
from asd_daemon.tell.storage.command_spool import CommandSpool
from asd_daemon.tell.storage.machine_locks import MachineLocks
from asd_daemon.tell.storage.machine_records import MachineRecords
from asd_daemon.tell.storage.outbox import Outbox
from asd_daemon.tell.storage.plausible_clock import PlausibleClock, newest_change_s
from asd_daemon.tell.storage.score_log import ScoreLog
from asd_daemon.tell.storage.waiting_notices import WaitingNotices
from asd_daemon.watch.report import StoreReport

STATE = (
    *("*.sqlite*", "alerts", "chosen*.yaml", "clips", "commands", "enrolled", "locks", "machines", "pictures"),
    "status",
)
"""What a state folder holds that is nobody else's business; bundles may be shared by several services."""
SIGNS_OF_LIFE = ("*.sqlite*", "clips/*/*.flac")


def scores_file(folder: Path) -> Path:
    """Where the scores lie below a state folder."""
    return folder / "scores.sqlite"


def history_file(folder: Path) -> Path:
    """Where the alerts that opened lie below a state folder."""
    return folder / "history.sqlite"


def outbox_file(folder: Path) -> Path:
    """Where alerts wait and memories lie below a state folder."""
    return folder / "alerts.sqlite"


def notices_file(folder: Path) -> Path:
    """Where what people must still be told lies below a state folder."""
    return folder / "notices.sqlite"


def alerts_folder(folder: Path) -> Path:
    """Where alerts of the past lie below a state folder."""
    return folder / "alerts"


def commands_folder(folder: Path) -> Path:
    """Where commands are left below a state folder."""
    return folder / "commands"


class Stores:
    """All of them.

    Args:
        folder: the state folder.
        keep: what the configuration wants kept.
        machines: those of this process.
        locks: what keeps other processes of this box from hearing them; None: nothing does.
    """

    def __init__(
        self, folder: Path, keep: KeepSettings, machines: Sequence[str], locks: MachineLocks | None = None
    ) -> None:
        self._keep, self._folder, self._locks = keep, folder, locks
        self.spool = CommandSpool(commands_folder(folder))
        alive_until_s = newest_change_s(folder, SIGNS_OF_LIFE)  # before anything is opened
        clock = PlausibleClock(alive_until_s=alive_until_s)
        tighten(folder, STATE)
        self.outbox = Outbox(outbox_file(folder), machines, limit=keep.alerts_waiting)
        self.notices = WaitingNotices(notices_file(folder), machines)
        self.pictures = AlertPictures(folder / "pictures" if keep.store_sound else None)
        self.scores = ScoreLog(scores_file(folder), every_s=keep.scores_every_s, days=keep.scores_days, clock=clock)
        self._history = AlertHistory(history_file(folder), days=keep.scores_days, clock=clock)
        budget = ClipBudget(most_bytes=keep.clips_mb * 1e6, most_days=keep.clips_days)
        self._clip_store = ClipStore(folder / "clips", budget, clock=clock) if keep.keeps_clips else None

    def add(self, machines: Sequence[str]) -> None:
        """Look after further machines too.

        Raises:
            CannotStartError: another process of this box hears one of them.
        """
        if self._locks is not None:
            self._locks.take(machines)
        self.outbox.take_up(machines)

    def release(self, machines: Sequence[str]) -> None:
        """Let other processes of this box hear some machines; what is kept of them stays."""
        self.outbox.let_go(machines)
        if self._locks is not None:
            self._locks.release(machines)

    def records(self, machine: str) -> MachineRecords:
        """What is kept of one machine."""
        span = ClipSpan(self._keep.clip_before_s, self._keep.clip_after_s)
        recorder = ClipRecorder(self._clip_store, machine, span, self._keep.normal_clips) if self._clip_store else None
        return MachineRecords(machine, self.outbox, self.scores, recorder, self._history)

    def archive(self, machine: str) -> AlertArchive:
        """The past alerts of one machine."""
        return AlertArchive(alerts_folder(self._folder), machine)

    @property
    def store_report(self) -> StoreReport:
        """How full they are; from any thread."""
        written, failed = (self._clip_store.written, self._clip_store.failed) if self._clip_store else (0, 0)
        return StoreReport(
            len(self.outbox), self.outbox.dropped, written, failed, self.scores.dropped, self.outbox.is_durable
        )

    def start(self) -> None:
        """Begin to write."""
        if self._clip_store is not None:
            self._clip_store.start()

    def close(self, timeout_s: float) -> None:
        """Write what waits, and let go."""
        self.scores.close()
        if self._clip_store is not None:
            self._clip_store.close(timeout_s)
        self.outbox.close()
        if self._locks is not None:
            self._locks.close()
