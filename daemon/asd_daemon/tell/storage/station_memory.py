"""What a machine's station knows and must still know after a restart, as bytes for the outbox.

Owns the form on disk. It decides nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from asd_daemon.judge.alarm.alarm import AlarmMemory
from asd_daemon.judge.alarm.score_drift import ScoreDriftMemory

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AlertSilence:
    """What people have asked for by command."""

    muted_at: datetime | None = None
    """UTC time from which no alert is told; None where alerts are told."""
    muted_for_s: float = 0.0
    held: bool = False
    """Whether the alert that is open has not been told, because it opened while muted."""
    acknowledged: str | None = None
    """The event_id that somebody looks after: nothing but its close is told."""


@dataclass(frozen=True)
class StationMemory:
    """All of it."""

    alarm: AlarmMemory = field(default_factory=AlarmMemory)
    silence: AlertSilence = field(default_factory=AlertSilence)
    level: ScoreDriftMemory = field(default_factory=ScoreDriftMemory)

    def to_bytes(self) -> bytes:
        """JSON."""
        return _ADAPTER.dump_json(self)


_ADAPTER = TypeAdapter(StationMemory)


def memory_from(content: bytes | None, machine: str) -> StationMemory:
    """The memory that was kept; an empty one where there is none, or none that this program understands."""
    if content is None:
        return StationMemory()
    try:
        return _ADAPTER.validate_json(content)
    except ValidationError as e:
        _LOG.error("%s: what was remembered can't be understood and begins anew: %s", machine, e.errors()[0]["msg"])
        return StationMemory()
