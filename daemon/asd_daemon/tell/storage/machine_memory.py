"""What a machine's monitor knows and must still know after a restart, as bytes for the outbox.

Owns the form on disk. It decides nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from asd_daemon.judge.alarm.alarm import AlarmMemory
from asd_daemon.judge.alarm.alert_silence import AlertSilence
from asd_daemon.judge.alarm.score_drift import ScoreDriftMemory
from asd_daemon.judge.thresholds.tail_memory import TailMemory

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class MachineMemory:
    """All of it."""

    alarm: AlarmMemory = field(default_factory=AlarmMemory)
    silence: AlertSilence = field(default_factory=AlertSilence)
    level: ScoreDriftMemory = field(default_factory=ScoreDriftMemory)
    tail: TailMemory = field(default_factory=TailMemory)
    unknown_told: str | None = None
    """The alert of which people have been told that it may be a state that was never heard."""
    other_tail: TailMemory = field(default_factory=TailMemory)
    """Of the scores before those of `tail`."""

    def to_bytes(self) -> bytes:
        """JSON."""
        return _ADAPTER.dump_json(self)


_ADAPTER = TypeAdapter(MachineMemory)


def parse_memory(content: bytes | None, machine: str) -> MachineMemory:
    """The memory that was kept; an empty one where there is none, or none that this program understands."""
    if content is None:
        return MachineMemory()
    try:
        return _ADAPTER.validate_json(content)
    except ValidationError as e:
        _LOG.error("%s: what was remembered can't be understood and begins anew: %s", machine, e.errors()[0]["msg"])
        return MachineMemory()
