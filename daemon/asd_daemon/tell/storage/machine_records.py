"""What is kept of one machine: its memory, its scores, the sound around its alerts. Without any of them it keeps nothing, well.

Owns which of the stores exist and what they say when something can't be kept. It decides nothing about alerts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.alarm.alarm import AlertEvent
from asd_daemon.tell.payloads import AlertDetails
from asd_daemon.tell.storage.alert_history import AlertHistory
from asd_daemon.tell.storage.clip_recorder import ClipRecorder
from asd_daemon.tell.storage.machine_memory import MachineMemory, parse_memory
from asd_daemon.tell.storage.outbox import Outbox
from asd_daemon.tell.storage.score_log import LoggedScore, ScoreLog
from asd_daemon.wording import counted


@dataclass(frozen=True)
class MachineRecords:
    """One machine's stores."""

    machine: str
    outbox: Outbox | None = None
    scores: ScoreLog | None = None
    clips: ClipRecorder | None = None
    history: AlertHistory | None = None

    def memory(self) -> MachineMemory:
        """What the monitor knew when it last ran."""
        return parse_memory(self.outbox.memory(self.machine) if self.outbox is not None else None, self.machine)

    def remember(self, memory: MachineMemory) -> None:
        """Keep what the monitor knows."""
        if self.outbox is not None:
            self.outbox.remember(self.machine, memory.to_bytes())

    def record_sound(self, samples: NDArray[np.float32]) -> None:
        """Take in sound that was not heard before, float32 (N,)."""
        if self.clips is not None:
            self.clips.feed(samples)

    def log_score(self, at: datetime, score: float | None, threshold: float | None, unfit: str | None = None) -> None:
        """Keep a window's score, or why there is none."""
        if self.scores is not None:
            self.scores.add(LoggedScore(self.machine, at, score, threshold, unfit))

    def begin_clip(self, event: AlertEvent) -> str | None:
        """Begin the clip of an alert; its file below the state folder, None where there will be none."""
        if self.clips is None:
            return None
        path = self.clips.begin(event.event_id, event.started_at)
        return None if self.clips.store.write_error else self.clips.store.named(path)

    def clip_of(self, event: AlertEvent | None) -> str | None:
        """The clip that an earlier run has made of an alert, below the state folder; None where there is none."""
        if self.clips is None or event is None:
            return None
        path = self.clips.path_of(event.event_id, event.started_at)
        return self.clips.store.named(path) if path.is_file() else None

    def keep_normal(self, samples: NDArray[np.float32], at: datetime) -> None:
        """Take in a normal window, float32 (N,); one of them is kept now and then, for people to compare an alert with."""
        if self.clips is not None:
            self.clips.keep_normal(samples, at)

    def record_alert(self, event: AlertEvent, details: AlertDetails, *, told: bool) -> None:
        """Keep how an alert stands, for people to look back at."""
        if self.history is not None:
            window_s = self.clips.held_s if self.clips is not None and details.clip is not None else None
            self.history.record(self.machine, event, details, told=told, clip_window_s=window_s)

    def take_up_alert(self, event: AlertEvent, details: AlertDetails, *, told: bool) -> None:
        """Keep an alert that an earlier run has left open, unless it is kept already: some versions kept none."""
        if self.history is not None:
            self.history.record(self.machine, event, details, told=told, clip_window_s=None, only_new=True)

    @property
    def write_errors(self) -> tuple[str, ...]:
        """What can't be kept at present, in words."""
        stores = (self.outbox, self.scores, self.clips.store if self.clips else None, self.history)
        found = [store.write_error for store in stores if store is not None and store.write_error is not None]
        if self.outbox is not None and self.outbox.dropped:
            found.append(f"{counted(self.outbox.dropped, 'message')} given up: too many waited for the broker")
        refused = () if self.outbox is None else self.outbox.refusals_of(self.machine)
        return (*found, *(f"alerts wait that the broker refuses: {why}" for why in refused))

    def finish(self) -> None:
        """Nothing more is heard."""
        if self.clips is not None:
            self.clips.finish()
