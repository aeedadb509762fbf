"""A message to the broker: what it is, where it goes, and what it is known by. Pure."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from enum import IntEnum

from asd_daemon.tell.mqtt.discovery import discoveries
from asd_daemon.tell.mqtt.topics import Topics
from asd_daemon.tell.payloads import Availability, to_json
from asd_daemon.tell.storage.alert_rows import WaitingAlert


class Kind(IntEnum):
    """What a message is; in the order in which a connection begins."""

    ALERT = 0
    REPEATED = 1
    """An alert that is open, said again."""
    AVAILABILITY = 2
    STATE = 3
    CLEARED = 4
    """The empty message that makes a broker forget a retained one."""
    DISCOVERY = 5
    ABOUT = 6
    """By what a machine is heard and judged."""
    PICTURE = 7
    """Of the last alert; the largest, so it holds nothing else up."""
    SCORE = 8


@dataclass(frozen=True)
class Message:
    """One message."""

    kind: Kind
    topic: str
    payload: bytes
    machine: str = ""
    """Whose it is; empty for the node's."""
    alert: WaitingAlert | None = None

    @property
    def key(self) -> Hashable:
        """What it is known by: an alert's place in the order, else the topic."""
        return self.alert.key if self.alert is not None else self.topic

    @property
    def retained(self) -> bool:
        """Whether the broker keeps it for those who come later."""
        return self.kind in (Kind.AVAILABILITY, Kind.STATE, Kind.CLEARED, Kind.DISCOVERY, Kind.ABOUT, Kind.PICTURE)


def shortened(alert: bytes) -> bytes:
    """An alert without what explains it, for brokers that take little."""
    content = json.loads(alert)
    return json.dumps({**content, "bands": [], "seconds": []}, ensure_ascii=False, separators=(",", ":")).encode()


def messages_of_the_topics(topics: Topics, own_availability: dict[str, str]) -> list[Message]:
    """What is said of ourselves on every connect, whatever happens: that we are here, and what Home Assistant must know.

    Args:
        topics: ours.
        own_availability: the topics that say that we are here, and whose each is.
    """
    online = Availability.ONLINE.value.encode()
    here = [Message(Kind.AVAILABILITY, topic, online, machine) for topic, machine in own_availability.items()]
    return here + [
        Message(Kind.DISCOVERY, topic, to_json(payload), machine)
        for machine, (topic, payload) in zip(topics.machines, discoveries(topics), strict=False)
    ]
