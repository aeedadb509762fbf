"""What is told, as JSON: topics, payloads, times. One function a topic; no connection, no thread.

Every payload carries `schema`, `node`, `machine` and a UTC time with `Z`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from asd_daemon.judge.alarm.alarm import AlertEvent
from asd_daemon.judge.features.change import Change
from asd_daemon.judge.features.spectral_difference import Difference
from asd_daemon.judge.scoring.verdict import Likeness
from asd_daemon.judge.thresholds.threshold import Threshold
from asd_daemon.redaction import redact_all
from asd_daemon.tell.alert_picture import AlertPicture
from asd_daemon.tell.change_words import change_text
from asd_daemon.tell.commands import Answer, Command

SCHEMA = 1


class Condition(StrEnum):
    """What a machine's state topic says first."""

    STARTING = "starting"
    """No window has been judged yet, or none since sound is back, as `reason` says then."""
    NORMAL = "normal"
    OFF = "off"
    """The machine stands still: nothing of it is judged, and that is as it should be."""
    ALERT = "alert"
    """An alert is open."""
    UNKNOWN_STATE = "unknown_state"
    """An alert is open whose change began at once, lasts and is steady: a state that was never heard, or a fault."""
    LEARNING = "learning"
    """The machine is being learned, or waits to be; `reason` says how far it is. What was known before goes on judging."""
    UNUSABLE = "unusable"
    """The last window could not be judged; `reason` says why."""
    MIC_LOST = "mic_lost"
    """The source is silent against its will; `reason` says why."""
    WRONG_DEVICE = "wrong_device"
    """There is sound, but from another microphone than before; `reason` names both. Nothing is judged."""
    OVERLOADED = "overloaded"
    """This box can't keep up: windows are dropped, the oldest first."""
    STOPPED = "stopped"
    """The daemon was told to stop, or its recordings ended."""


_UNHEARD = (Condition.MIC_LOST, Condition.WRONG_DEVICE, Condition.STOPPED)


@dataclass(frozen=True)
class MachineState:
    """How a machine is."""

    condition: Condition
    since: datetime
    """UTC time from which the condition holds."""
    score: float | None = None
    """Of the last window that was judged."""
    threshold: float | None = None
    reason: str | None = None
    event_id: str | None = None
    """Of the alert that is open, whatever the condition."""
    acknowledged: bool = False
    """Whether somebody looks after that alert."""
    muted_until: datetime | None = None
    """UTC time until which no alert is told; None where alerts are told."""
    drift: Drift | None = None
    """Where the level of normal scores has crept towards the threshold."""
    calibration: Threshold | None = None
    """How sure the threshold is; None before the first window is judged."""
    troubles: tuple[str, ...] = ()
    """What can't be kept or told at present and why, in words."""
    hears: bool = True
    """Whether sound comes that could be the machine's; False for silence and for what has not been usable for too long."""
    operating_state: str | None = None
    """In which of the states that were learned the machine is; None where none were, or that is not known."""
    changes: tuple[Change, ...] | None = None
    """What has changed in the sound since the alert that is open; None where none is, or nothing is known of it."""
    like: Likeness | None = None
    """The named example that this alert resembles; None where there is none."""

    @property
    def listening(self) -> bool:
        """Whether the machine is heard."""
        return self.hears and self.condition not in _UNHEARD


@dataclass(frozen=True)
class AboveThreshold:
    """Windows above the threshold that make no alert yet."""

    windows: int
    """So many …"""
    opens_at: int
    """… of those that it takes …"""
    of: int
    """… among so many."""


@dataclass(frozen=True)
class Drift:
    """A slow change of the normal level; no alert."""

    since: datetime
    """UTC time."""
    fraction: float
    """How far the level has gone from where it was first towards the threshold, 0 to 1."""


@dataclass(frozen=True)
class AlertDetails:
    """What is told of an alert besides the alarm's own figures."""

    difference: Difference | None = None
    """From the nearest normal window."""
    changes: tuple[Change, ...] | None = None
    """What has changed in kinds that have a name, the most telling first; None until enough normal windows are known."""
    clip: str | None = None
    """The file of its sound, below the state folder; it is complete some seconds after the alert has opened."""
    unknown_state: bool = False
    """Whether it may be a state of the machine that was never heard."""
    like: Likeness | None = None
    """The named example that its worst window resembles; None where there is none."""
    picture: AlertPicture | None = field(default=None, compare=False)
    """Its worst window beside a normal one, for people; no part of the payload."""
    hall_share: float | None = None
    """Of its worst window's power that came from the hall, 0 to 1; None without a second microphone."""


NO_DETAILS = AlertDetails()


@dataclass(frozen=True)
class PublishedScore:
    """A window's score."""

    started_at: datetime
    """UTC time of the window's first sample."""
    score: float
    threshold: float
    anomalous: bool
    operating_state: str | None = None
    """The state that the window was judged in."""
    hall_share: float | None = None
    """Of the window's power that came from the hall, 0 to 1; None without a second microphone."""


class Availability(StrEnum):
    """The plain words of a node's availability topic."""

    ONLINE = "online"
    OFFLINE = "offline"
    """The last will: the daemon went without a word."""
    STOPPED = "stopped"


def time_text(at: datetime) -> str:
    """UTC ISO 8601 with milliseconds and Z."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def state_payload(node: str, machine: str, state: MachineState) -> dict[str, Any]:
    """The machine's state topic, retained."""
    return {
        "schema": SCHEMA,
        "node": node,
        "machine": machine,
        "state": state.condition.value,
        "listening": state.listening,
        "since": time_text(state.since),
        "score": _rounded(state.score),
        "threshold": _rounded(state.threshold),
        "reason": state.reason,
        "event_id": state.event_id,
        "acknowledged": state.acknowledged,
        "muted_until": time_text(state.muted_until) if state.muted_until else None,
        "drift": {"since": time_text(state.drift.since), "fraction": round(state.drift.fraction, 3)}
        if state.drift
        else None,
        "calibration": _calibration(state.calibration),
        "troubles": list(state.troubles),
        "text": alert_text(state.changes, state.like),
        "operating_state": state.operating_state,
    }


def _calibration(threshold: Threshold | None) -> dict[str, Any] | None:
    if threshold is None:
        return None
    return {
        "state": threshold.state,
        "windows": threshold.windows,
        "days": threshold.days,
        "wanted": _rounded(threshold.wanted),
        "held": threshold.held,
    }


def score_payload(node: str, machine: str, told: PublishedScore) -> dict[str, Any]:
    """The machine's score topic, one message a window."""
    return {
        "schema": SCHEMA,
        "node": node,
        "machine": machine,
        "at": time_text(told.started_at),
        "score": _rounded(told.score),
        "threshold": _rounded(told.threshold),
        "anomalous": told.anomalous,
        "operating_state": told.operating_state,
        "hall_share": _rounded(told.hall_share),
    }


def alert_payload(
    node: str, machine: str, event: AlertEvent, details: AlertDetails = NO_DETAILS, *, repeated: bool = False
) -> dict[str, Any]:
    """The machine's alert topic, at least once; `event_id`, `kind` and `at` tell a repetition."""
    difference = details.difference
    return {
        "schema": SCHEMA,
        "node": node,
        "machine": machine,
        "kind": event.kind.value,
        "event_id": event.event_id,
        "started_at": time_text(event.started_at),
        "at": time_text(event.at),
        "score": _rounded(event.score),
        "peak_score": _rounded(event.peak_score),
        "threshold": _rounded(event.threshold),
        "headroom": _rounded(event.headroom),
        "windows": event.windows,
        "anomalous_windows": event.anomalous_windows,
        "unjudged_since": time_text(event.unjudged_since) if event.unjudged_since else None,
        "outcome": event.outcome.value if event.outcome else None,
        "bands": [asdict(band) for band in difference.bands] if difference else [],
        "seconds": list(difference.seconds) if difference else [],
        "text": alert_text(details.changes, details.like),
        "changes": [_change(change) for change in details.changes or ()],
        "like": {"name": details.like.name, "on": details.like.on.isoformat()} if details.like else None,
        "clip": details.clip,
        "unknown_state": details.unknown_state,
        "hall_share": _rounded(details.hall_share),
        "repeated": repeated,
    }


def to_json(payload: dict[str, Any]) -> bytes:
    """UTF-8 JSON without NaN, which is no JSON, and without secrets in its texts."""
    return json.dumps(redact_all(payload), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def answer_payload(node: str, machine: str, command: Command, answer: Answer, at: datetime) -> dict[str, Any]:
    """The machine's answer topic, one message a command that is answered."""
    return {
        "schema": SCHEMA,
        "node": node,
        "machine": machine,
        "at": time_text(at),
        "id": command.id,
        "command": command.command.value,
        "event_id": command.event_id,
        "ok": answer.ok,
        "text": answer.text,
    }


def about_payload(node: str, machine: str, at: datetime, facts: dict[str, Any]) -> dict[str, Any]:
    """The machine's about topic: by what it is heard and judged."""
    return {"schema": SCHEMA, "node": node, "machine": machine, "at": time_text(at), **facts}


def alert_text(changes: tuple[Change, ...] | None, like: Likeness | None) -> str | None:
    """What is said of an alert in one line; None where nothing is known."""
    words = [] if changes is None else [change_text(changes)]
    words += [] if like is None else [f"like {like.name}, {like.on.isoformat()}"]
    return "; ".join(words) or None


def _change(change: Change) -> dict[str, Any]:
    told = {key: value for key, value in asdict(change).items() if key != "strength"}
    return {**told, "kind": change.kind.value, "certainty": change.certainty}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
