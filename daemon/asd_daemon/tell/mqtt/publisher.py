"""The MQTT side: one connection a process, its topics, its last will, and alerts that wait until the broker has them.

    <prefix>/<node>/availability            online | offline | stopped, retained; offline is the last will
    <prefix>/<node>/<machine>/availability  the same of one machine (docs/decisions/0007)
    <prefix>/<node>/<machine>/state         retained
    <prefix>/<node>/<machine>/score         QoS 0, every window
    <prefix>/<node>/<machine>/alert         QoS 1, in order, one in flight
    <prefix>/<node>/<machine>/picture       PNG of its last alert, retained
    <prefix>/<node>/<machine>/command       what people ask for, where the configuration allows it; …/answer says what came of it
    homeassistant/device/<id>/config        discovery, retained

A broker's word is not for ever (a killed mosquitto forgets retained messages), so availability, discovery and every state are sent
again on each connect, and alerts that are open as well. Every connection begins with nothing on the way: what was not confirmed before
comes from the outbox, or as the present state, never from the library's memory, which would repeat an old state after the present one.
In which order things go, and what is learned from refusals, is `deliveries`'s.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.tell.commands import Command
from asd_daemon.tell.mqtt.connection import BrokerAddress
from asd_daemon.tell.mqtt.deliveries import Deliveries
from asd_daemon.tell.mqtt.link import Link
from asd_daemon.tell.mqtt.message import Kind, Message, messages_of_the_topics
from asd_daemon.tell.mqtt.node_availability import NodeAvailability, say_stopped
from asd_daemon.tell.mqtt.open_alerts import OpenAlerts
from asd_daemon.tell.mqtt.session import Confirmed, Ended, Event, Heard, Limits, Session, Subscribed, Will
from asd_daemon.tell.mqtt.subscriptions import Subscriptions
from asd_daemon.tell.mqtt.topics import Topics, own_availability, retained_topics
from asd_daemon.tell.payloads import (
    NO_DETAILS,
    AlertDetails,
    Availability,
    MachineState,
    PublishedScore,
    alert_payload,
    score_payload,
    state_payload,
    to_json,
)
from asd_daemon.tell.publisher import BrokerStatus
from asd_daemon.tell.storage.outbox import Outbox
from asd_daemon.tell.storage.retained_topics import Ownership, RetainedTopics
from asd_daemon.wording import counted

_LOG = logging.getLogger(__name__)
_TEND_EVERY_S = 30.0
_SCORES_WAITING = 1000


class MqttPublisher:
    """Publishes to a broker."""

    def __init__(
        self,
        address: BrokerAddress,
        topics: Topics,
        *,
        outbox: Outbox | None = None,
        retained: RetainedTopics | None = None,
        wait_for_broker: bool = False,
    ) -> None:
        """Prepare the connection; nothing is sent before `start`.

        Args:
            address: the broker.
            topics: what goes there.
            outbox: where alerts wait for their confirmation.
            retained: what brokers keep of ours.
            wait_for_broker: whether a refusal at the very first attempt is waited out like any later one.

        Raises:
            BrokerError: a certificate file that can't be used.
        """
        self._address, self._topics, self._node, self._base = address, topics, topics.node, topics.base
        self.on_command: Callable[[str, Command], None] = lambda m, _: _LOG.warning("%s: takes no commands", m)
        """Called, from the connection's thread, with what people ask for."""
        self.outbox = outbox if outbox is not None else Outbox(machines=topics.machines)
        self._retained = retained or RetainedTopics(None, Ownership(str(address), tuple(topics.machines)))
        self._deliveries, self._subscriptions = (
            Deliveries(self.outbox, str(address)),
            Subscriptions(topics, str(address)),
        )
        self._open_alerts = OpenAlerts(self.outbox)
        self._scores: deque[Message] = deque(maxlen=_SCORES_WAITING)
        self._tended_s = float("-inf")
        self._has_delivered = False  # an alert, on the connection at hand
        self._has_other_topics = threading.Event()
        shared, self._own_availability = topics.is_of_one_of_several, own_availability(topics)
        will = Will(topics.availability(topics.machines[0] if shared else None), Availability.OFFLINE.value)
        self._link = Link(address, will, self, wait_for_broker=wait_for_broker)
        self._node_availability = NodeAvailability(address, topics.availability()) if shared else None
        self._described = messages_of_the_topics(topics, self._own_availability)
        for message in self._described:
            self._deliveries.stand(message)

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us and has not gone since, as far as we know."""
        return self._link.connected

    @property
    def connects(self) -> int:
        """How often the broker has accepted us."""
        return self._link.connects

    @property
    def broker_status(self) -> BrokerStatus:
        """How the connection is."""
        link = self._link
        second_client = [words for words in (link.second_client,) if words and words != link.trouble]
        troubles = (*second_client, *self._deliveries.troubles, *self._subscriptions.troubles)
        return BrokerStatus(
            str(self._address),
            self.connected,
            self.connects,
            self._subscriptions.refused_commands,
            link.trouble,
            troubles,
            link.protocol,
            self._deliveries.refused_alerts,
        )

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for the broker to accept us."""
        return self._link.wait_connected(timeout_s)

    def start(self, failed: Callable[[Exception], None]) -> None:
        """Connect in the background, again and again until it works; only a refusal at the very first attempt is a failure, if that."""
        self._link.start(failed)
        if self._node_availability is not None:
            self._node_availability.start()

    def change_topics(self, topics: Topics, ownership: Ownership) -> None:
        """Speak of other machines from now on, on the connection at hand; the broker forgets those that are gone. Node and prefix stay.

        Args:
            topics: what goes to the broker.
            ownership: which topics may be cleared when they are ours no more.
        """
        before, described = self._described, self._kept_topics()
        self._topics, self._own_availability = topics, own_availability(topics)
        self._described = messages_of_the_topics(topics, self._own_availability)
        self._subscriptions.change_topics(topics)
        self._retained = RetainedTopics(self._retained.file, ownership)
        self._open_alerts.forget_all_but(topics.machines)
        for topic in described.keys() - self._kept_topics().keys():
            self._clear(topic, described[topic])
        for message in (message for message in self._described if message not in before):
            self._deliveries.stand(message)
        self._tended_s = float("-inf")
        self._has_other_topics.set()
        self._link.wake()

    def publish_state(self, machine: str, state: MachineState) -> None:
        """Publish a machine's state, now or on the next connect."""
        payload = to_json(state_payload(self._node, machine, state))
        self._deliveries.stand(Message(Kind.STATE, f"{self._base}/{machine}/state", payload, machine))
        self._link.wake()

    def publish_score(self, machine: str, score: PublishedScore) -> None:
        """Publish a score, if we are connected."""
        if self.connected:
            payload = to_json(score_payload(self._node, machine, score))
            self._scores.append(Message(Kind.SCORE, f"{self._base}/{machine}/score", payload, machine))
            self._link.wake()

    def publish_alert(
        self, machine: str, event: AlertEvent, details: AlertDetails = NO_DETAILS, memory: bytes | None = None
    ) -> None:
        """Keep an alert, and what the alarm knows after it, until the broker confirms it; on disk when this returns."""
        payload = to_json(alert_payload(self._node, machine, event, details))
        topic = f"{self._base}/{machine}/alert"
        self.outbox.put(machine, topic, payload, kind=event.kind, event_id=event.event_id, memory=memory)
        self._open_alerts.note(machine, event, details)
        if event.kind is AlertKind.OPEN and details.picture is not None and self._topics.has_pictures:
            picture = details.picture.png()
            self._deliveries.stand(Message(Kind.PICTURE, self._topics.picture(machine), picture, machine))
        self._link.wake()

    def publish_about(self, machine: str, payload: bytes) -> None:
        """Publish by what a machine is heard and judged, now or on the next connect."""
        self._deliveries.stand(Message(Kind.ABOUT, self._topics.about(machine), payload, machine))
        self._link.wake()

    def publish_answer(self, machine: str, payload: bytes) -> None:
        """Say what came of a command, if we are connected."""
        self._deliveries.repeat([Message(Kind.REPEATED, f"{self._base}/{machine}/answer", payload, machine)])
        self._link.wake()

    def republish_alert(self, machine: str, event: AlertEvent) -> None:
        """An alert was told by an earlier run and is still open."""
        self._open_alerts.note(machine, event, NO_DETAILS)
        if self.connected:  # else it is said when we are
            self._deliveries.repeat(self._open_alerts.repeated(self._topics, machine))
            self._link.wake()

    def close(self, timeout_s: float) -> None:
        """Wait for the alerts that are on their way, say `stopped`, and leave."""
        if self._node_availability is not None:
            self._node_availability.close()
        self._link.close(timeout_s)
        if left := len(self.outbox):
            fate = "kept on disk for the next start" if self.outbox.is_durable else "lost"
            _LOG.warning("%s not confirmed by broker %s: %s", counted(left, "alert"), self._address, fate)

    # What the link asks for, from its thread

    def accepted(self, session: Session, limits: Limits) -> None:
        """Begin with what waits."""
        waiting = counted(len(self.outbox), "alert")
        node = f", node {self._link.node}" if self._link.node else ""
        _LOG.info("connected to broker %s%s by MQTT %s, %s waiting", self._address, node, self._link.protocol, waiting)
        self._scores.clear()
        self._subscriptions.ask(session)
        self._tend()
        self._deliveries.connected(limits, self._open_alerts.repeated(self._topics), time.monotonic())

    def handle(self, session: Session, event: Event) -> None:
        """Heed what the broker answers and what people ask for."""
        del session
        if isinstance(event, Confirmed):
            message = self._deliveries.confirmed(event.message_id, event.code, event.detail, time.monotonic())
            if message is not None and message.kind is Kind.ALERT:
                self._has_delivered = True
            if message is not None and message.kind is Kind.CLEARED:
                self._retained.cleared(message.topic)
        elif isinstance(event, Subscribed):
            self._subscriptions.answered(event)
        elif isinstance(event, Heard):
            asked, former = self._subscriptions.command(event), self._subscriptions.former_machine(event)
            if asked is not None:
                self.on_command(*asked)
            if former is not None:
                self._clear(event.topic, former)

    def send_waiting(self, session: Session, lived_s: float) -> None:
        """Send what may be sent."""
        del lived_s
        now_s = time.monotonic()
        if self._has_other_topics.is_set():
            self._has_other_topics.clear()
            self._subscriptions.ask(session)
        if now_s - self._tended_s > _TEND_EVERY_S:
            self._tend()
        while not session.is_over and (message := self._deliveries.next(now_s)) is not None:
            message_id = session.publish(message.topic, message.payload, qos=1, retain=message.retained)
            self._deliveries.sent(message_id, message, now_s)
        while self._scores and not session.is_over:
            score = self._scores.popleft()
            if self._deliveries.takes_score(score.topic, now_s):
                session.publish(score.topic, score.payload, qos=0, retain=False)
                self._deliveries.score_sent(score, now_s)
        if self._deliveries.is_overdue(now_s):
            session.give_up("it does not confirm what it was sent")

    def ended(self, ended: Ended) -> tuple[bool, bool]:
        """Note what the end means for what was on the way."""
        had_messages = self._deliveries.has_messages_on_the_way
        knows_more = self._deliveries.ended(ended, time.monotonic())
        had_progress, self._has_delivered = self._has_delivered or knows_more, False
        return had_progress, had_messages

    def is_done(self) -> bool:
        """Whether nothing that the broker may take waits."""
        return self.outbox.next(time.monotonic()) is None and not self._deliveries.has_messages_on_the_way

    def disconnect(self, session: Session) -> None:
        """Say `stopped`, and see that it has arrived."""
        for event in say_stopped(session, self._own_availability):
            self.handle(session, event)

    def _tend(self) -> None:
        """Write what could not be written, remember what brokers keep of ours, and have them forget what is ours no more."""
        self._tended_s = time.monotonic()
        self.outbox.retry_writing()
        said = self._kept_topics()
        self._retained.note(said.items())
        if self._retained.has_changed():
            for topic, machine in self._retained.unwanted(said):
                self._clear(topic, machine)

    def _kept_topics(self) -> dict[str, str]:
        """Topics on which the broker keeps a message of ours, and whose each is."""
        kept = retained_topics(self._topics, self._own_availability, says_node=self._node_availability is not None)
        return kept | {message.topic: message.machine for message in self._described}

    def _clear(self, topic: str, machine: str) -> None:
        _LOG.info(
            "%s: broker %s is made to forget what it keeps there of %s", topic, self._address, machine or "this node"
        )
        self._deliveries.stand(Message(Kind.CLEARED, topic, b"", machine))
