"""A node that several processes share: its availability, which no single connection's last will could keep true.

Each process says `online` when it comes and `stopped` when it goes, and the broker says `offline` for one that died. Whoever is still
there hears that and says `online` again, so the topic is `online` exactly while somebody of the node is. It needs a connection of its
own: MQTT allows one last will a connection, and the other one's is the machine's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

from asd_daemon.tell.mqtt.connection import BrokerAddress
from asd_daemon.tell.mqtt.link import Link
from asd_daemon.tell.mqtt.session import Confirmed, Ended, Event, Heard, Limits, Session, Will
from asd_daemon.tell.payloads import Availability

_GOOD_BYE_S = 1.0


class NodeAvailability:
    """Keeps a node's availability topic true as long as this process lives."""

    def __init__(self, address: BrokerAddress, topic: str) -> None:
        self._topic = topic
        own = replace(address, client_id=f"{address.client_id}-node")
        self._link = Link(own, Will(topic, Availability.OFFLINE.value), self, wait_for_broker=True)

    def start(self) -> None:
        """Connect in the background; refusals are told by the other connection."""
        self._link.start(lambda _: None)

    def close(self) -> None:
        """Say `stopped`, which the others of the node correct, and leave."""
        self._link.close(1.0)

    def accepted(self, session: Session, limits: Limits) -> None:
        """Say that somebody is here, and listen whether others say something else."""
        del limits
        self._say(session, Availability.ONLINE)
        session.subscribe([self._topic])

    def handle(self, session: Session, event: Event) -> None:
        """Correct what is not true any more."""
        is_wrong = isinstance(event, Heard) and event.payload.decode(errors="replace") != Availability.ONLINE.value
        if is_wrong:
            self._say(session, Availability.ONLINE)

    def send_waiting(self, session: Session, lived_s: float) -> None:
        """There is nothing else to say."""

    def ended(self, ended: Ended) -> tuple[bool, bool]:
        """What was said is said again on the next connection."""
        del ended
        return False, False

    def is_done(self) -> bool:
        """At once."""
        return True

    def disconnect(self, session: Session) -> None:
        """Say so."""
        self._say(session, Availability.STOPPED)

    def _say(self, session: Session, availability: Availability) -> None:
        session.publish(self._topic, availability.value.encode(), qos=0, retain=True)


def say_stopped(session: Session, topics: Iterable[str]) -> Iterator[Event]:
    """Say on topics that nobody is here any more, and see that it has arrived; what happens meanwhile."""
    said = Availability.STOPPED.value.encode()
    unconfirmed = {session.publish(topic, said, qos=1, retain=True) for topic in topics}
    until_s = time.monotonic() + _GOOD_BYE_S
    while unconfirmed and not session.is_over and time.monotonic() < until_s:
        for event in session.poll(0.1):
            yield event
            if isinstance(event, Confirmed):
                unconfirmed.discard(event.message_id)
