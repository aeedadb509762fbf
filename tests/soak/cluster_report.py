"""What came of a course of soak.cluster: what is lost, what came twice, how long it took. Pure, but for the files it reads."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from soak.cluster_player import MACHINE, Play


@dataclass(frozen=True)
class Course:
    """What is done."""

    boxes: int = 1000
    daemons: int = 4
    players: int = 4
    ramp_s: float = 60
    seconds: float = 360
    """So long windows are judged. Faults come at fixed parts of it."""
    window_s: float = 1.0
    """Between two windows of a box; 10 in real time."""
    alerts: float = 2.0
    """A box."""
    patience_s: float = 90
    faults: bool = True


KILL, RETURN, CUT_OFF, MEND = 0.2, 0.4, 0.55, 0.75  # of the seconds


@dataclass(frozen=True)
class Record:
    """What was written down."""

    broker: str
    windows_s: float
    """Unix time of the first window."""
    plays: Sequence[Play]
    heard: dict[str, Any]
    """Listener → its report."""
    kept: dict[str, dict[str, str]]
    """Node → what it had retained at the end, by topic."""
    daemons_alerts: list[dict[str, Any]]
    node_mb: dict[str, list[float]]
    seconds: float


@dataclass(frozen=True)
class Found:
    """How it went at one broker."""

    broker: str
    boxes: int
    alerts: int
    """Messages on alert topics that boxes have told: open, update, close."""
    lost: int
    """Of them, those that have reached no listener."""
    missed: dict[str, int]
    """Listener → those that it has not got: the one at the node that nothing happens to, and the one with a session that lasts, at the
    node that is killed."""
    duplicates: int
    """Messages that came again with the same event, kind and time, without `repeated` …"""
    repeated: int
    """… and those with it, after a new connection."""
    unknown: int
    """Alerts of boxes that came and that nobody has told."""
    unconfirmed: int
    daemons_alerts: int
    """That daemons have opened."""
    daemons_lost: int
    """Those whose beginning or end has not come."""
    scores: int
    scores_heard: int
    kept: dict[str, int]
    """Node → boxes whose last state a new listener gets there."""
    silent_boxes: int
    connects: int
    peak_connects: dict[str, int]
    """Part of the course → most connections that were taken in one second."""
    delays_ms: dict[str, dict[str, list[float]]]
    """Kind → part of the course in which it was told → p50, p95, p99, most."""
    messages_s: float
    """Heard by one listener."""
    player_late_s: float
    """95th percentile over seconds of the player's own lateness."""
    player_mb_a_box: float
    player_cores: float
    node_mb: dict[str, list[float]]
    """Node → before the boxes, with them, at the end."""
    seconds: float

    @property
    def well(self) -> bool:
        """Whether nothing was lost."""
        is_whole = self.alerts > 0 and not self.unknown
        return is_whole and not (self.lost or self.unconfirmed or self.daemons_lost or self.silent_boxes)


def judge(record: Record, course: Course) -> Found:
    """Compare what was told with what was heard."""
    told = [json.loads(line) for play in record.plays for line in Path(play.told).read_text().splitlines()]
    played = [json.loads(Path(play.report).read_text()) for play in record.plays]
    keys = {(row["event_id"], row["kind"], row["at"]) for row in told}
    came = {name: _counts(report["alerts"]) for name, report in record.heard.items()}
    survivor = record.heard["survivor"]
    real = [(alert["event_id"], kind) for alert in record.daemons_alerts for kind in ("open", "close")]
    came_short = {(event, kind) for counts in came.values() for event, kind, _ in counts}
    connects = [at_s for one in played for at_s in one["connects"]]
    scores_heard = survivor["delays"]["score"]
    empty = sum(one["memory_mb"] - one["empty_mb"] for one in played)
    return Found(
        broker=record.broker,
        boxes=course.boxes,
        alerts=len(told),
        lost=len(keys - came["survivor"].keys() - came["session"].keys()),
        missed={name: len(keys - counts.keys()) for name, counts in came.items()},
        duplicates=sum(count - 1 for count in came["survivor"].values()),
        repeated=survivor["repeated"],
        unknown=len({key for key in came["survivor"] if (key[0], "open") not in real} - keys),
        unconfirmed=sum(one["unconfirmed"] for one in played),
        daemons_alerts=len(record.daemons_alerts),
        daemons_lost=sum(key not in came_short for key in real),
        scores=sum(one["scores"] for one in played),
        scores_heard=len(scores_heard),
        kept={node: _as_told(kept, told) for node, kept in record.kept.items()},
        silent_boxes=sum(one["silent_boxes"] for one in played),
        connects=len(connects),
        peak_connects=_peaks(connects, record.windows_s, course),
        delays_ms={kind: _delays(rows, record.windows_s, course) for kind, rows in survivor["delays"].items()},
        messages_s=round(sum(map(len, survivor["delays"].values())) / course.seconds, 1),
        player_late_s=round(float(np.percentile([late for one in played for late in one["late_s"]], 95)), 3),
        player_mb_a_box=round(empty / course.boxes, 3),
        player_cores=round(sum(one["cpu_s"] for one in played) / (course.ramp_s + course.seconds), 2),
        node_mb=record.node_mb,
        seconds=record.seconds,
    )


def part_of(at_s: float, windows_s: float, course: Course) -> str:
    """Which part of the course a time is in."""
    if at_s < windows_s:
        return "coming"
    names = (("quiet", KILL), ("killed", RETURN), ("returned", CUT_OFF), ("cut", MEND))
    done = (at_s - windows_s) / course.seconds
    return next((name for name, end in names if done < end), "mended")


def _counts(rows: Sequence[Sequence[Any]]) -> dict[tuple[str, str, str], int]:
    return {(event, kind, at): count for event, kind, at, count in rows}


def _as_told(kept: dict[str, str], told: Sequence[dict[str, str]]) -> int:
    """How many states are the last that their boxes have told: normal, since the end of the last alert."""
    ends = {row["node"]: row["at"] for row in told if row["kind"] == "close"}
    good = 0
    for topic, payload in kept.items():
        state, node = json.loads(payload), topic.split("/")[1]
        good += state["state"] == "normal" and ends.get(node, state["since"]) == state["since"]
    assert all(topic.endswith(f"/{MACHINE}/state") for topic in kept)
    return good


def _peaks(connects: Sequence[float], windows_s: float, course: Course) -> dict[str, int]:
    seconds = Counter((part_of(at_s, windows_s, course), int(at_s)) for at_s in connects)
    peaks: dict[str, int] = {}
    for (part, _), count in seconds.items():
        peaks[part] = max(peaks.get(part, 0), count)
    return peaks


def _delays(rows: Sequence[Sequence[float]], windows_s: float, course: Course) -> dict[str, list[float]]:
    parts: dict[str, list[float]] = {}
    for at_s, delay_s in rows:
        parts.setdefault(part_of(at_s, windows_s, course), []).append(delay_s * 1000)
    return {
        part: [round(float(value), 1) for value in (*np.percentile(found, [50, 95, 99]), max(found))]
        for part, found in parts.items()
    }
