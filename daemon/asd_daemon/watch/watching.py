"""`asd-daemon watch`: what the daemons of this box do, read again and again from their status files, and what was before from score logs.

It writes nothing and asks no daemon, so any number may watch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from asd_daemon.errors import UsageError
from asd_daemon.tell.storage.score_log import read_scores
from asd_daemon.watch.live_view import LiveView
from asd_daemon.watch.status import DaemonStatus

_SCORES = "scores.sqlite"


class Watching:
    """Compares what is read with what was read before.

    Args:
        view: makes the lines.
        machines: those to show; none: all.
    """

    def __init__(self, view: LiveView, machines: Collection[str] = ()) -> None:
        self._view, self._machines = view, machines
        self._before: dict[tuple[Path, str], Mapping[str, Any]] = {}
        self._troubles: dict[Path, str | None] = {}
        self._nodes: dict[Path, str] = {}

    def past(self, statuses: Sequence[DaemonStatus], minutes: float) -> Iterator[str]:
        """The scores that were logged in the last minutes, in the order of their times.

        Args:
            statuses: what is read now.
            minutes: how far back.
        """
        found: list[tuple[datetime, str, float, float]] = []
        for status in statuses:
            until = datetime.fromisoformat(str(status.content.get("updated_at")))
            scores = Path(str(status.content.get("state_folder", ""))) / _SCORES
            for name in self._wanted(status):
                try:
                    logged = list(read_scores(scores, name, until - timedelta(minutes=minutes)))
                except UsageError:  # a daemon that has not written any yet, or another user's
                    continue
                label = self._label(status, name, statuses)
                found += [(one.at, label, one.score, one.threshold or 0.0) for one in logged if one.score is not None]
        for at, label, score, threshold in sorted(found):
            told = {"at": at.isoformat(), "score": score, "threshold": threshold, "anomalous": score > threshold}
            yield from self._view.lines("score", told, label)

    def lines(self, statuses: Sequence[DaemonStatus]) -> Iterator[str]:
        """What is new since the last time."""
        self._view.expect(self._label(s, name, statuses) for s in statuses for name in self._wanted(s))
        for status in statuses:
            yield from self._daemon_lines(status)
            for name in self._wanted(status):
                machine = status.content["machines"][name]
                yield from self._machine_lines(status, name, machine, self._label(status, name, statuses))
        for file in set(self._nodes) - {status.file for status in statuses}:
            yield from self._view.note(f"{self._nodes.pop(file)}: has stopped, or hears other machines now")
            self._troubles.pop(file, None)
            for key in [key for key in self._before if key[0] == file]:
                del self._before[key]
                self._view.forget(key[1])

    def _daemon_lines(self, status: DaemonStatus) -> Iterator[str]:
        node = str(status.content.get("node", status.file.name))
        if status.file not in self._nodes:
            names = ", ".join(self._wanted(status))
            yield from self._view.note(
                f"{node}: asd-daemon {status.content.get('version', '?')} listens to {names or 'nothing'}"
            )
        elif status.trouble is None and self._troubles[status.file] is not None:
            yield from self._view.note(f"{node}: goes on")
        self._nodes[status.file] = node
        if (
            status.trouble is not None
            and status.trouble.split(" for ")[0] != (self._troubles.get(status.file) or "").split(" for ")[0]
        ):
            yield from self._view.note(f"{node}: {status.trouble}")
        self._troubles[status.file] = status.trouble

    def _machine_lines(self, status: DaemonStatus, name: str, machine: Mapping[str, Any], label: str) -> Iterator[str]:
        before = self._before.get((status.file, name), {})
        self._before[status.file, name] = machine
        at = str(status.content["updated_at"])
        event, event_before = machine["event_id"], before.get("event_id")
        has_scored = bool(before) and machine["counts"]["scored"] > before["counts"]["scored"]
        if has_scored and machine["score"] is not None:
            told = {"at": at, "score": machine["score"], "threshold": machine["threshold"]}
            yield from self._view.lines("score", {**told, "anomalous": told["score"] > told["threshold"]}, label)
        if event != event_before and machine["score"] is not None:
            alert = {
                "at": at,
                "peak_score": machine["score"],
                "threshold": machine["threshold"],
                "text": machine.get("text"),
            }
            yield from self._view.lines(
                "alert", {**alert, "kind": "open" if event else "close", "repeated": not before}, label
            )
        yield from self._view.lines("state", {**machine, "said_at": at}, label)

    def _wanted(self, status: DaemonStatus) -> list[str]:
        return [name for name in status.content.get("machines", {}) if not self._machines or name in self._machines]

    def _label(self, status: DaemonStatus, name: str, statuses: Sequence[DaemonStatus]) -> str:
        """The machine's name, with its node where daemons of several nodes are seen."""
        nodes = {other.content.get("node") for other in statuses}
        return name if len(nodes) == 1 else f"{status.content.get('node')}/{name}"
