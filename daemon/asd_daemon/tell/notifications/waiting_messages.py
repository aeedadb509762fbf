"""Which recipient is told what next, and when: gathered for seconds, held in quiet hours, limited per hour, tried again after failures.

Each recipient has a way of its own: what fails at one waits there and nowhere else. Asked with the time; it has no thread and no clock.
What waits is on disk until the recipient has it; after a crash in between it is told twice rather than never. When who was told in the last
hour is on disk too, in the transaction that takes away what was told, so that a daemon that starts again and again tells nobody more often.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from asd_daemon.tell.notifications.following import Addressed
from asd_daemon.tell.notifications.notice import Notice, NoticeKind, NotificationRules, RecipientStatus
from asd_daemon.tell.notifications.recipients import Recipient, chosen
from asd_daemon.tell.storage.waiting_notices import Place, WaitingNotices
from asd_daemon.wording import counted

_LOG = logging.getLogger(__name__)
_NOTICE, _SENT = "notice", "sent"
_MOST_WAITING = 1000
PAUSES_S = (15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
"""From one failure to the next try; the last holds for all later ones."""
_HOUR_S = 3600.0


@dataclass(frozen=True)
class Batch:
    """What goes to one recipient at once."""

    recipient: Recipient
    places: tuple[Place, ...]
    notices: tuple[Notice, ...]
    is_last_of_the_hour: bool = False
    """Whether the next one has to wait for the limit."""
    has_failed: bool = False
    """Whether the last try failed: it may hang this time, and goes where nobody waits behind it."""


@dataclass
class _Way:
    """The way to one recipient."""

    next_try_s: float = 0.0
    failures: int = 0
    trouble: str | None = None
    told: int = 0
    is_busy: bool = False


@dataclass(frozen=True)
class _Waiting:
    place: Place
    notice: Notice
    to: tuple[str, ...]
    made_s: float


class WaitingMessages:
    """Of all recipients; the caller sees to it that one thread asks at a time.

    Args:
        items: where it is kept.
        rules: those that hold now.
        steady_s: seconds of a clock that nobody sets.
    """

    def __init__(
        self,
        items: WaitingNotices,
        rules: Callable[[], NotificationRules],
        steady_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._items, self._rules, self._steady_s = items, rules, steady_s
        self._made_s: dict[Place, float] = {}  # when, by the steady clock, of what came in this run
        self._recipients: dict[str, Recipient] = {}
        self._ways: dict[str, _Way] = {}
        self._numbers = itertools.count()
        self.given_up = 0
        """What nobody could be told, since the start."""

    def change_recipients(self, recipients: Sequence[Recipient]) -> None:
        """Tell these from now on; what waits for others is dropped, and who had failed is tried at once."""
        self._recipients = {recipient.key: recipient for recipient in recipients}
        ways = {key: self._ways.get(key, _Way()) for key in self._recipients}
        for way in ways.values():
            way.next_try_s = 0.0
        self._ways = ways
        for one in self._all():
            self._keep_for(one, [key for key in one.to if key in self._recipients])

    def put(self, addressed: Addressed, now_s: float) -> None:
        """Have a notice told to those it is for; `WaitingNotices.save` has it on disk."""
        to = [recipient.key for recipient in chosen(self._recipients.values(), addressed.tags)]
        if not to:
            return
        notice = addressed.notice
        name = f"{round(now_s * 1000):015d}-{next(self._numbers):06d}"
        content = {"notice": notice.to_content(), "to": to, "made_s": now_s}
        place = (notice.machine, _NOTICE, name)
        self._items.put(place, content)
        self._made_s[place] = self._steady_s()
        too_many = self._items.count(_NOTICE) - _MOST_WAITING
        for one in self._all()[:too_many] if too_many > 0 else ():
            self._give_up(one, "too much waits")

    def batches(self, now_s: float) -> list[Batch]:
        """What shall go now; each is on its way until `told` or `failed`."""
        at, waiting = datetime.fromtimestamp(now_s, UTC), self._all()
        for one in [one for one in waiting if self._age_s(one, now_s) > self._rules().keep_s]:
            self._give_up(one, "it is too old")
            waiting.remove(one)
        allowed = [one for one in waiting if self._held_until(one.notice, at) is None]
        batches = []
        for key, way in self._ways.items():
            mine = [one for one in allowed if key in one.to]
            if not mine or way.is_busy or self._ready_s(key, way, mine, now_s) > now_s:
                continue
            way.is_busy = True
            is_last = len(self._sent_in_the_hour(key, now_s)) + 1 >= self._rules().most_per_hour
            places, notices = tuple(one.place for one in mine), tuple(one.notice for one in mine)
            batches.append(Batch(self._recipients[key], places, notices, is_last, way.failures > 0))
        return batches

    def next_s(self, now_s: float) -> float:
        """Unix time at which to ask for batches again, at the latest."""
        at, times, waiting = datetime.fromtimestamp(now_s, UTC), [float("inf")], self._all()
        held = {one.place: self._held_until(one.notice, at) for one in waiting}
        times += [until.timestamp() for until in held.values() if until is not None]
        for key, way in self._ways.items():
            mine = [one for one in waiting if key in one.to and held[one.place] is None]
            if mine and not way.is_busy:
                times.append(self._ready_s(key, way, mine, now_s))
        return min(times)

    def told(self, batch: Batch, now_s: float) -> None:
        """A recipient has it."""
        way = self._ways.get(batch.recipient.key)
        if way is not None:
            if way.trouble is not None:
                _LOG.info("%s: is told again", batch.recipient.name)
            self._remember(batch, now_s)
            way.told, way.failures, way.trouble, way.is_busy, way.next_try_s = way.told + 1, 0, None, False, 0.0
        for place in batch.places:
            one = self._waiting(place)
            if one is not None:
                self._keep_for(one, [key for key in one.to if key != batch.recipient.key])

    def failed(self, batch: Batch, why: str, now_s: float) -> None:
        """A recipient could not be told; it is tried again later."""
        way = self._ways.get(batch.recipient.key)
        if way is None:
            return
        pause_s = PAUSES_S[min(way.failures, len(PAUSES_S) - 1)]
        way.failures, way.trouble, way.is_busy, way.next_try_s = way.failures + 1, why, False, now_s + pause_s
        name, again = batch.recipient.name, f"tried again in {pause_s:g} s"
        _LOG.warning("%s: could not be told (%s), %s: %s", name, counted(way.failures, "try", "tries"), again, why)

    def statuses(self) -> list[RecipientStatus]:
        """How the ways are."""
        waiting = self._all()
        return [
            RecipientStatus(
                self._recipients[key].name,
                sum(key in one.to for one in waiting),
                *(way.told, way.failures, way.trouble),
            )
            for key, way in self._ways.items()
        ]

    def _age_s(self, one: _Waiting, now_s: float) -> float:
        """A clock that is set forward, as on a box that starts without one, makes nothing old."""
        age_s = now_s - one.made_s
        return min(age_s, self._steady_s() - self._made_s[one.place]) if one.place in self._made_s else age_s

    def _ready_s(self, key: str, way: _Way, mine: Sequence[_Waiting], now_s: float) -> float:
        """When a recipient may be told what is for it."""
        # What lies farther ahead than it can was made before the clock was set back
        gathered_s = mine[0].made_s + self._rules().storm_s if mine[0].made_s <= now_s else now_s
        ready_s = max(gathered_s, way.next_try_s if way.next_try_s <= now_s + PAUSES_S[-1] else now_s)
        sent_s = self._sent_in_the_hour(key, now_s)
        most = self._rules().most_per_hour
        is_urgent = any(one.notice.kind is NoticeKind.ESCALATION for one in mine)
        if len(sent_s) >= most and not is_urgent:
            ready_s = max(ready_s, sent_s[-most] + _HOUR_S)
        return ready_s

    def _sent_in_the_hour(self, key: str, now_s: float) -> list[float]:
        """When a recipient was told in the last hour, Unix time; a clock that was set back forgets."""
        return sorted(sent_s for place, times in self._sent(now_s).items() if place[2] == key for sent_s in times)

    def _sent(self, now_s: float) -> dict[Place, list[float]]:
        """The same of all recipients; kept with the first machine of each message, since processes share a file by machines."""
        kept = self._items.of_kind(_SENT).items()
        return {place: [one for one in times if 0 <= now_s - one < _HOUR_S] for place, times in kept}

    def _remember(self, batch: Batch, now_s: float) -> None:
        """A recipient was told just now; what is older than an hour is forgotten."""
        place = (batch.places[0][0], _SENT, batch.recipient.key)
        sent = self._sent(now_s)
        sent[place] = [*sent.get(place, []), now_s]
        for each, times in sent.items():
            if times:
                self._items.put(each, times)
            else:
                self._items.delete(each)

    def _held_until(self, notice: Notice, at: datetime) -> datetime | None:
        rules = self._rules().of(notice.machine)
        if notice.kind in rules.quiet_passes or not rules.quiet.cover(at):
            return None
        return rules.quiet.end_after(at)

    def _all(self) -> list[_Waiting]:
        return [one for place in self._items.of_kind(_NOTICE) if (one := self._waiting(place)) is not None]

    def _waiting(self, place: Place) -> _Waiting | None:
        content = self._items.get(place)
        if content is None:
            return None
        try:
            notice = Notice.from_content({**content["notice"], "machine": place[0]})  # which may be another name now
            return _Waiting(place, notice, tuple(content["to"]), float(content["made_s"]))
        except (KeyError, TypeError, ValueError) as e:
            _LOG.error("%s: what waited to be told can't be understood, and is dropped: %s", place[0], e)
            self._items.delete(place)
            self.given_up += 1
            return None

    def _keep_for(self, one: _Waiting, to: Sequence[str]) -> None:
        if to:
            content = {"notice": one.notice.to_content(), "to": list(to), "made_s": one.made_s}
            self._items.put(one.place, content)
        else:
            self._forget(one.place)

    def _give_up(self, one: _Waiting, why: str) -> None:
        names = ", ".join(self._names(one.to))
        _LOG.error("%s: %s is not told any more to %s: %s", one.notice.machine, one.notice.kind.value, names, why)
        self._forget(one.place)
        self.given_up += 1

    def _forget(self, place: Place) -> None:
        self._items.delete(place)
        self._made_s.pop(place, None)

    def _names(self, keys: Iterable[str]) -> list[str]:
        return [self._recipients[key].name for key in keys if key in self._recipients]
