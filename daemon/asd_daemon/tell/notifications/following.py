"""What goes on with machines until people need not be told any more: alerts that nobody has answered, machines that are not heard.

Owns when something becomes worth telling. Asked with the time; it has no thread and no clock, and what it knows survives a restart.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind, AlertOutcome
from asd_daemon.tell.notifications.notice import MachineRules, Notice, NoticeKind, NotificationRules
from asd_daemon.tell.payloads import AlertDetails, Condition, MachineState, alert_text
from asd_daemon.tell.storage.waiting_notices import Place, WaitingNotices
from asd_daemon.wording import score_of

_ALERT, _DEAF, _DRIFT = "alert", "deaf", "drift"
_SAYS_NOTHING = (Condition.STARTING, Condition.STOPPED)
_OUTCOMES = {
    AlertOutcome.ACCEPTED: "Somebody says that it was normal",
    AlertOutcome.UNKNOWN: "How it went on is not known: it could not be judged any more",
}
_UNKNOWN_STATE = "may be a state that was never heard"


@dataclass(frozen=True)
class Addressed:
    """A notice and the tags of those who are told; no tag: all."""

    notice: Notice
    tags: tuple[str, ...]


class Following:
    """Of all machines of a process; the caller sees to it that one thread asks at a time.

    Args:
        items: where it is kept.
        rules: those that hold now.
    """

    def __init__(self, items: WaitingNotices, rules: Callable[[], NotificationRules]) -> None:
        self._items, self._rules = items, rules

    def alert(self, machine: str, event: AlertEvent, details: AlertDetails, now_s: float) -> list[Addressed]:
        """An alert opened, changed or closed."""
        rules, place = self._rules().of(machine), (machine, _ALERT, event.event_id)
        known = self._items.get(place) or self._new(rules, event, now_s)
        text = alert_text(details.changes, details.like)
        if details.unknown_state:
            text = f"{text}; {_UNKNOWN_STATE}" if text else _UNKNOWN_STATE.capitalize()
        known = {**known, "text": text or known["text"], "score": score_of(event.peak_score, event.threshold)}
        tags = rules.tell
        if event.kind is AlertKind.CLOSE:
            self._items.delete(place)
            outcome = _OUTCOMES.get(event.outcome) if event.outcome else None
            known["text"] = outcome or known["text"]
            tags = (*rules.tell, *rules.escalate_to) if known["escalated"] and rules.tell else rules.tell
        else:
            self._items.put(place, known)
        kind = NoticeKind(event.kind.value)
        notice = self._notice(kind, place, known, event.at.timestamp(), is_over=kind is NoticeKind.CLOSE)
        return [Addressed(notice, tags)] if kind in rules.events else []

    def still_open(self, machine: str, event: AlertEvent, now_s: float) -> None:
        """An alert that an earlier run has told is open."""
        place = (machine, _ALERT, event.event_id)
        if self._items.get(place) is None:
            self._items.put(place, self._new(self._rules().of(machine), event, now_s))

    def state(self, machine: str, state: MachineState, now_s: float) -> list[Addressed]:
        """How a machine is has changed."""
        for place, known in list(self._items.of_kind(_ALERT).items()):
            if place[0] != machine or state.condition is Condition.STOPPED:
                continue
            if place[2] != state.event_id:
                self._items.delete(place)
            elif (state.acknowledged or state.muted_until is not None) and not known["acknowledged"]:
                self._items.put(place, {**known, "acknowledged": True})
        if state.condition in _SAYS_NOTHING:
            return []
        return [*self._hearing(machine, state, now_s), *self._drift(machine, state, now_s)]

    def tick(self, now_s: float) -> list[Addressed]:
        """What has become worth telling because time has passed."""
        return [*self._escalations(now_s), *self._deaf(now_s)]

    def next_s(self) -> float:
        """Unix time at which to ask `tick` again, at the latest."""
        times = [known["escalates_s"] for _, known in self._unanswered()]
        times += [known["since_s"] + self._rules().deaf_after_s for _, known in self._untold_deaf()]
        return min(times, default=float("inf"))

    def forget(self, machines: Callable[[str], bool]) -> None:
        """Follow some machines no more."""
        for kind in (_ALERT, _DEAF, _DRIFT):
            for place in self._items.of_kind(kind):
                if machines(place[0]):
                    self._items.delete(place)

    def _new(self, rules: MachineRules, event: AlertEvent, now_s: float) -> dict[str, Any]:
        after_s = rules.escalate_after_s
        return {
            "since_s": event.started_at.timestamp(),
            "escalates_s": None if after_s is None else now_s + after_s,
            "acknowledged": False,
            "escalated": False,
            "text": None,
            "score": score_of(event.peak_score, event.threshold),
        }

    def _unanswered(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        for place, known in self._items.of_kind(_ALERT).items():
            is_answered = known["acknowledged"] or known["escalated"]
            if known["escalates_s"] is not None and not is_answered and self._after_s(place) is not None:
                yield place, known

    def _after_s(self, place: Place) -> float | None:
        return self._rules().of(place[0]).escalate_after_s

    def _untold_deaf(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        for place, known in self._items.of_kind(_DEAF).items():
            if not known["told"]:
                yield place, known

    def _escalations(self, now_s: float) -> Iterator[Addressed]:
        for place, known in list(self._unanswered()):
            rules, after_s = self._rules().of(place[0]), self._after_s(place) or 0.0
            if known["escalates_s"] > now_s:
                if known["escalates_s"] > now_s + after_s:  # the clock was set back, or the rule is another one
                    self._items.put(place, {**known, "escalates_s": now_s + after_s})
                continue
            self._items.put(place, {**known, "escalated": True})
            yield Addressed(self._notice(NoticeKind.ESCALATION, place, known, now_s), rules.escalate_to)

    def _deaf(self, now_s: float) -> Iterator[Addressed]:
        for place, known in list(self._untold_deaf()):
            rules = self._rules().of(place[0])
            lasts_s = now_s - known["since_s"]
            if lasts_s < self._rules().deaf_after_s:
                if lasts_s < 0:  # the clock was set back
                    self._items.put(place, {**known, "since_s": now_s})
                continue
            self._items.put(place, {**known, "told": True})
            if NoticeKind.DEAF in rules.events:
                yield Addressed(self._notice(NoticeKind.DEAF, place, known, now_s), rules.tell)

    def _hearing(self, machine: str, state: MachineState, now_s: float) -> Iterator[Addressed]:
        place, rules = (machine, _DEAF, "microphone"), self._rules().of(machine)
        known = self._items.get(place)
        if state.listening:
            self._items.delete(place)
            if known is not None and known["told"] and NoticeKind.DEAF in rules.events:
                known = {**known, "text": None}
                yield Addressed(self._notice(NoticeKind.DEAF, place, known, now_s, is_over=True), rules.tell)
        elif state.muted_until is None or known is not None:
            since = {"since_s": now_s, "told": False, "name": uuid.uuid4().hex} if known is None else known
            self._items.put(place, {**since, "text": state.reason})

    def _drift(self, machine: str, state: MachineState, now_s: float) -> Iterator[Addressed]:
        place, rules = (machine, _DRIFT, "level"), self._rules().of(machine)
        if state.drift is None:
            self._items.delete(place)
        elif self._items.get(place) is None:
            text = f"Its normal level has gone {state.drift.fraction:.0%} of the way to the threshold"
            known = {"since_s": state.drift.since.timestamp(), "name": uuid.uuid4().hex, "text": text}
            self._items.put(place, known)
            if NoticeKind.DRIFT in rules.events:
                yield Addressed(self._notice(NoticeKind.DRIFT, place, known, now_s), rules.tell)

    @staticmethod
    def _notice(kind: NoticeKind, place: Place, known: dict[str, Any], at_s: float, *, is_over: bool = False) -> Notice:
        return Notice(
            kind,
            place[0],
            known.get("name", place[2]),
            at_s,
            known["text"],
            is_over,
            known["since_s"],
            known.get("score"),
        )
