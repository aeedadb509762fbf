"""A machine that is gone for good: brokers are made to forget what they keep of it, at once or on the next connection.

For the commands that remove and rename machines. The wish is written down first, so it holds when the broker is away.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from asd_daemon.errors import BrokerError
from asd_daemon.tell.mqtt import reason_codes
from asd_daemon.tell.mqtt.connection import BrokerAddress
from asd_daemon.tell.mqtt.session import Confirmed
from asd_daemon.tell.mqtt.trial import open_session
from asd_daemon.tell.storage.retained_topics import Ownership, RetainedTopics, kept_topics, mark_unwanted

_ANSWER_S = 5.0


@dataclass(frozen=True)
class Cleared:
    """What came of it."""

    cleared: tuple[str, ...] = ()
    """Topics that the broker has forgotten."""
    queued: tuple[str, ...] = ()
    """Topics that are cleared by the next daemon that connects to their broker."""
    trouble: str | None = None
    """Why some are queued, in words."""


def clear_machine(file: Path, machine: str, address: BrokerAddress | None = None) -> Cleared:
    """Have brokers forget a machine: its availability, its state, its device in Home Assistant.

    The machine must not be heard any more, or it is said again.

    Args:
        file: the outbox's database, `alerts.sqlite` in the state folder.
        machine: its name.
        address: the broker to try at once, by a client id that no daemon has; None leaves all to the next connection.

    Raises:
        sqlite3.Error, OSError: the file can't be written.
    """
    mark_unwanted(file, machine)
    topics = [topic for broker, topic in kept_topics(file, machine) if address is not None and broker == str(address)]
    cleared, trouble = [], None
    if address is not None and topics:
        try:
            cleared = _clear(address, topics)
        except BrokerError as e:
            trouble = str(e)
        table = RetainedTopics(file, Ownership(str(address), ()))
        for topic in cleared:
            table.cleared(topic)
    return Cleared(tuple(cleared), tuple(topic for _, topic in kept_topics(file, machine)), trouble)


def _clear(address: BrokerAddress, topics: list[str]) -> list[str]:
    """Publish the empty message on each; those for which the broker has said yes."""
    session, _ = open_session(address)
    with contextlib.closing(session):
        asked = {session.publish(topic, b"", qos=1, retain=True): topic for topic in topics}
        done: list[str] = []
        until_s = time.monotonic() + _ANSWER_S
        while asked and not session.is_over and time.monotonic() < until_s:
            for event in session.poll(0.1):
                if isinstance(event, Confirmed) and event.message_id in asked:
                    topic = asked.pop(event.message_id)
                    done += [] if reason_codes.is_refusal(event.code) else [topic]
    return done
