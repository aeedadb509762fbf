"""Which message goes to the broker next, and what is learned from what becomes of it. Alerts first.

A connection begins with the alerts that wait, then come availability, states, what is to be cleared, discovery. Everything but scores
goes with QoS 1, so that a refusal is known and a broker that hangs up shows what it hung up on: after an end with several messages on the
way the next connections take one at a time, and a message behind which the broker hangs up again and again is set aside.

Pure, but for the outbox: it knows no connection. Safe from several threads.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable

from asd_daemon.tell.mqtt import reason_codes
from asd_daemon.tell.mqtt.message import Kind, Message, shortened
from asd_daemon.tell.mqtt.session import Ended, Limits, packet_bytes
from asd_daemon.tell.storage.alert_rows import WaitingAlert
from asd_daemon.tell.storage.outbox import Outbox
from asd_daemon.tell.storage.refusals import Refusals

_LOG = logging.getLogger(__name__)
_ALERTS_ALONE_S = 10.0  # so long after a connect nothing goes but alerts, if there are so many
_ENDS_BEHIND = 3  # ends of connections right behind one and the same message that are no chance
_JUST_S = 2.0  # an end so soon after a score may be its fault
_CONFIRMS_WITHIN_S = 60.0
_TROUBLES_TOLD = 3


class Deliveries:
    """What waits to be said.

    Args:
        outbox: the alerts.
        broker: its name in words.
    """

    def __init__(self, outbox: Outbox, broker: str) -> None:
        self._outbox, self._broker = outbox, broker
        self._lock = threading.Lock()
        self._standing: dict[str, Message] = {}  # by topic, as they were said last
        self._due: OrderedDict[str, Message] = OrderedDict()
        self._repeated: list[Message] = []
        self._on_the_way: OrderedDict[int, tuple[Message, float]] = OrderedDict()
        self._limits = Limits()
        self._connected_s = float("-inf")
        self._is_careful = False
        self._suspicions: Counter[Hashable] = Counter()
        self._culprits: set[object] = set()  # kinds, and topics of alerts, behind which the broker has hung up
        self._refusals = Refusals()
        self._closed: dict[str, str] = {}  # topics on which no alert is taken, and why
        self._too_large: set[Hashable] = set()  # alerts to be sent in their short form
        self._last_score: tuple[Message, float] | None = None
        self.refused_alerts = 0
        """How often the broker has refused one."""

    def stand(self, message: Message) -> None:
        """Say something now, or on the next connect, and on every one after it; what was said on the topic before is past."""
        with self._lock:
            self._standing[message.topic] = message
            self._due[message.topic] = message

    def connected(self, limits: Limits, repeated: Iterable[Message], now_s: float) -> None:
        """A connection begins: everything is said again.

        Args:
            limits: what the broker takes.
            repeated: alerts that are open.
            now_s: time.monotonic().
        """
        with self._lock:
            self._limits, self._connected_s, self._last_score = limits, now_s, None
            self._on_the_way.clear()
            self._repeated = list(repeated)
            order = sorted(self._standing.values(), key=lambda message: message.kind)
            self._due = OrderedDict((message.topic, message) for message in order)
            self._refusals.ask_again()
            self._outbox.ask_again()

    def repeat(self, messages: Iterable[Message]) -> None:
        """Say open alerts again."""
        with self._lock:
            self._repeated.extend(messages)

    def next(self, now_s: float) -> Message | None:
        """The message to send now; None where there is none, or something must be confirmed first."""
        with self._lock:
            while (message := self._choose(now_s)) is not None:
                fitting = self._fitting(message, now_s)
                if fitting is not None:
                    return fitting
            return None

    def _choose(self, now_s: float) -> Message | None:
        on_the_way = [message for message, _ in self._on_the_way.values()]
        if on_the_way and (self._is_careful or any(self._may_cost(message) for message in on_the_way)):
            return None
        alert_is_on_the_way = any(message.kind is Kind.ALERT for message in on_the_way)
        alert = None if alert_is_on_the_way else self._next_alert(now_s)
        if alert is not None and not (on_the_way and self._outbox.refusals.is_costly(alert.key)):
            payload = shortened(alert.payload) if alert.key in self._too_large else alert.payload
            chosen = Message(Kind.ALERT, alert.topic, payload, alert.machine, alert)
            if not self._outbox.refusals.is_costly(alert.key) or not self._choose_other(now_s, peek=True):
                return chosen
        if alert_is_on_the_way and now_s - self._connected_s < _ALERTS_ALONE_S:
            return None
        return self._choose_other(now_s) if len(on_the_way) < self._limits.window else None

    def _next_alert(self, now_s: float) -> WaitingAlert | None:
        """The alert to send now; one on a topic that costs connections waits with those that have cost them."""
        while (alert := self._outbox.next(now_s)) is not None:
            why = self._closed.get(alert.topic)
            if why is None or self._outbox.refusals.is_refused(alert.key):
                return alert
            self._outbox.refused(alert, why, now_s, is_costly=True, is_of_the_topic=True)
        return None

    def _choose_other(self, now_s: float, *, peek: bool = False) -> Message | None:
        """The next that is no alert; what may cost the connection comes last, and alone."""
        self._repeated = [message for message in self._repeated if self._refusals.may_go(message.topic, now_s)]
        if self._repeated:
            return self._repeated[0] if peek else self._repeated.pop(0)
        costly = None
        for topic, message in self._due.items():
            if self._refusals.is_costly(topic):
                costly = costly or (message if self._refusals.may_go(topic, now_s) else None)
            elif self._refusals.may_go(topic, now_s):
                return message if peek else self._due.pop(topic)
        if costly is None or self._on_the_way or peek:
            return None
        return self._due.pop(costly.topic)

    def _may_cost(self, message: Message) -> bool:
        return (self._outbox.refusals if message.alert else self._refusals).is_costly(message.key)

    def _fitting(self, message: Message, now_s: float) -> Message | None:
        """The message in a size that the broker takes; None where there is none, which is noted."""
        if self._limits.takes(message.topic, message.payload):
            return message
        if message.alert is not None:
            short = Message(message.kind, message.topic, shortened(message.payload), message.machine, message.alert)
            if self._limits.takes(short.topic, short.payload):
                return short
        size = packet_bytes(message.topic, message.payload)
        self._refuse(message, f"it takes {self._limits.packet_bytes} bytes, the message has {size}", now_s)
        return None

    def sent(self, message_id: int, message: Message, now_s: float) -> None:
        """A message is on its way."""
        with self._lock:
            self._on_the_way[message_id] = (message, now_s)

    def score_sent(self, message: Message, now_s: float) -> None:
        """A score is on its way; nobody will confirm it."""
        with self._lock:
            self._last_score = (message, now_s)

    def takes_score(self, topic: str, now_s: float) -> bool:
        """Whether a score may be sent."""
        with self._lock:
            if self._last_score is not None and now_s - self._last_score[1] > _JUST_S:
                self._trust(self._last_score[0])
                self._last_score = None
            return self._refusals.may_go(topic, now_s)

    def confirmed(self, message_id: int, code: int, detail: str, now_s: float) -> Message | None:
        """The broker has answered; the message, where it has taken it."""
        with self._lock:
            message, _ = self._on_the_way.pop(message_id, (None, 0.0))
            if message is None:
                return None
            if reason_codes.is_refusal(code):
                is_long = code == reason_codes.PACKET_TOO_LARGE and self._shorten(message)
                if not is_long:
                    self._refuse(message, reason_codes.publish_refusal(code, detail), now_s)
                return None
            self._trust(message)
            self._too_large.discard(message.key)
            if message.kind is Kind.CLEARED and self._standing.get(message.topic) is message:
                del self._standing[message.topic]
        if message.alert is not None:
            self._outbox.delivered(message.alert.key)
        return message

    def ended(self, ended: Ended, now_s: float) -> bool:
        """The connection is over; whether it has become known which message the broker does not take."""
        with self._lock:
            suspects = [message for message, _ in self._on_the_way.values()]
            if not suspects and self._last_score is not None and now_s - self._last_score[1] <= _JUST_S:
                suspects = [self._last_score[0]]
            self._on_the_way.clear()
            said = ended.code if ended.code is not None and reason_codes.is_refusal(ended.code) else None
            if not suspects or ended.silent or (said is not None and not reason_codes.may_be_about_a_message(said)):
                return False
            if len(suspects) > 1:
                self._is_careful = True
                return False
            (suspect,) = suspects
            self._suspicions[suspect.key] += 1
            if said == reason_codes.PACKET_TOO_LARGE and self._shorten(suspect):
                return True
            if self._suspicions[suspect.key] == _ENDS_BEHIND - 1:
                self._shorten(suspect)  # it may be its size
            is_known = self._may_cost(suspect) or suspect.kind in self._culprits or suspect.topic in self._culprits
            if said is None and not is_known and self._suspicions[suspect.key] < _ENDS_BEHIND:
                return False
            self._set_aside(suspect, ended, now_s)
            return True

    def lives(self) -> None:
        """The connection has lasted: messages may go together again."""
        with self._lock:
            self._is_careful = False

    def is_overdue(self, now_s: float) -> bool:
        """Whether a message has not been confirmed for too long."""
        with self._lock:
            return any(now_s - since_s > _CONFIRMS_WITHIN_S for _, since_s in self._on_the_way.values())

    @property
    def has_messages_on_the_way(self) -> bool:
        """Whether something waits for its confirmation."""
        with self._lock:
            return bool(self._on_the_way)

    @property
    def troubles(self) -> tuple[str, ...]:
        """What the broker does not take, in words; the first few."""
        with self._lock:
            told = [*self._outbox.refusals.reasons().items(), *self._refusals.reasons().items()]
        lines = [f"broker {self._broker} does not take {topic}: {why}" for topic, why in told]
        more = [f"and {len(lines) - _TROUBLES_TOLD} more topics"] if len(lines) > _TROUBLES_TOLD else []
        return (*lines[:_TROUBLES_TOLD], *more)

    def _trust(self, message: Message) -> None:
        self._suspicions.pop(message.key, None)
        self._culprits -= {message.kind, message.topic}
        if message.alert is not None:
            self._closed.pop(message.topic, None)
        if message.alert is None and self._refusals.taken(message.key, message.topic):
            _LOG.info("broker %s takes %s again", self._broker, message.topic)

    def _shorten(self, message: Message) -> bool:
        """Mark an alert to be sent in its short form; whether that is something new."""
        is_new = message.alert is not None and message.key not in self._too_large
        if is_new:
            self._too_large.add(message.key)
        return is_new

    def _set_aside(self, message: Message, ended: Ended, now_s: float) -> None:
        culprit: object = message.topic if message.kind is Kind.ALERT else message.kind
        is_second = culprit in self._culprits
        self._culprits.add(culprit)
        self._shorten(message)
        why = "it closes the connection whenever it is published"
        if ended.code is not None:
            why = f"it ends the connection for it: {reason_codes.disconnect_words(ended.code, ended.detail)}"
        why = f"{why}; set aside, and tried again rarely"
        if message.alert is not None and is_second:
            self._closed[message.topic] = why
        self._refuse(message, why, now_s, is_costly=True)

    def _refuse(self, message: Message, why: str, now_s: float, *, is_costly: bool = False) -> None:
        if message.alert is not None:
            self.refused_alerts += 1
            is_new = message.topic not in self._outbox.refusals.reasons()
            self._outbox.refused(message.alert, why, now_s, is_costly=is_costly)
        else:
            is_new = not self._refusals.is_refused(message.key)
            self._refusals.refused(message.key, message.topic, why, now_s, is_costly=is_costly)
            if message.kind not in (Kind.SCORE, Kind.REPEATED):
                self._due.setdefault(message.topic, message)
        if is_new:
            _LOG.warning("%s: broker %s does not take this topic: %s", message.topic, self._broker, why)
