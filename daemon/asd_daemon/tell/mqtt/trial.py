"""Does a broker take us, and each kind of message that we would send? For `asd-daemon check`: it looks, and leaves nothing behind.

What is sent for that is kept by nobody and true: what the broker keeps there already, else that the machine is not heard; the close of an
alert that nobody knows, said again; the description that Home Assistant gets anyway; a score without a value; a picture
of one dot.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import numpy as np

from asd_daemon.errors import BrokerError
from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.tell.mqtt import reason_codes
from asd_daemon.tell.mqtt.connection import BrokerAddress, why_not_connected
from asd_daemon.tell.mqtt.discovery import discoveries
from asd_daemon.tell.mqtt.nodes import Nodes
from asd_daemon.tell.mqtt.reconnecting import Attempt, trouble_of
from asd_daemon.tell.mqtt.session import (
    MQTT_3,
    MQTT_5,
    Accepted,
    Confirmed,
    Ended,
    Event,
    Heard,
    Limits,
    Session,
    Subscribed,
)
from asd_daemon.tell.mqtt.topics import Topics
from asd_daemon.tell.payloads import Availability, Condition, MachineState, alert_payload, state_payload, to_json
from asd_daemon.tell.png import png

_ANSWER_S = 5.0
_ECHO_S = 2.0


class Outcome(StrEnum):
    """What became of a try."""

    TAKEN = "taken"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """MQTT 3.1.1 does not say, and nothing came back."""
    UNTRIED = "untried"
    """A daemon says something there now, which a try would contradict."""


@dataclass(frozen=True)
class Trial:
    """One try."""

    kind: str
    """availability, state, score, alert, about, picture or discovery."""
    topic: str
    outcome: Outcome
    why: str = ""


def open_session(address: BrokerAddress, timeout_s: float = _ANSWER_S) -> tuple[Session, Limits]:
    """Connect, in MQTT 5 or else in 3.1.1.

    Raises:
        BrokerError: the broker can't be reached, or refuses.
    """
    trouble, nodes = "", Nodes(address)
    for protocol in (MQTT_5, MQTT_3):
        try:
            session = nodes.connect(protocol)
        except (OSError, ValueError) as e:
            raise BrokerError(f"broker {address} can't be reached: {why_not_connected(e)}") from e
        answer = next((e for e in _events(session, timeout_s) if isinstance(e, Accepted | Ended)), Ended(silent=True))
        if isinstance(answer, Accepted):
            return session, answer.limits
        session.close()
        attempt = Attempt(answer, was_accepted=False)
        trouble = trouble_of(str(address), attempt)
        if answer.refused is not None and not reason_codes.is_of_another_version(answer.refused):
            break
    raise BrokerError(trouble)


def try_broker(address: BrokerAddress, timeout_s: float = _ANSWER_S) -> str:
    """Connect once and leave; the version of MQTT that the broker speaks.

    Raises:
        BrokerError: it can't be reached, or refuses.
    """
    session, _ = open_session(address, timeout_s)
    session.close()
    return "5" if session.protocol is MQTT_5 else "3.1.1"


def try_topics(address: BrokerAddress, topics: Topics, *, is_heard: bool) -> list[Trial]:
    """Send one message of every kind for every machine.

    Args:
        address: the broker, with a name that no running daemon has.
        topics: what a daemon would say.
        is_heard: whether one may be running now.

    Raises:
        BrokerError: the broker can't be reached, or refuses us.
    """
    trials: list[Trial] = []
    session, limits = open_session(address)
    try:
        kept = _kept(session, topics)
        for kind, topic, payload in _messages(topics):
            if session.is_over:
                session, limits = open_session(address)
                session.subscribe([topic for _, topic, _ in _messages(topics)])
            content = kept.get(topic, payload)
            if is_heard and kind in ("state", "availability") and topic not in kept:
                trials.append(Trial(kind, topic, Outcome.UNTRIED, "a daemon may be running"))
            elif not limits.takes(topic, content):
                size = f"the message has {len(content)} bytes, the broker takes packets of {limits.packet_bytes}"
                trials.append(Trial(kind, topic, Outcome.REFUSED, size))
            else:
                trials.append(_try(session, kind, topic, content))
    finally:
        session.close()
    return trials


def _messages(topics: Topics) -> Iterator[tuple[str, str, bytes]]:
    """Kind, topic and payload of what is tried."""
    now = datetime.now(UTC)
    gone = MachineState(Condition.STOPPED, now, reason="asd-daemon check looks whether this can be published")
    close = AlertEvent(AlertKind.CLOSE, "asd-daemon-check", now, now, 0.0, 0.0, 0.0, 0, 0)
    stopped = Availability.STOPPED.value.encode()
    if topics.owns_node:
        yield "availability", topics.availability(), stopped
    for machine in topics.machines:
        yield "availability", topics.availability(machine), stopped
        yield "state", f"{topics.base}/{machine}/state", to_json(state_payload(topics.node, machine, gone))
        yield "score", f"{topics.base}/{machine}/score", b"{}"
        payload = alert_payload(topics.node, machine, close, repeated=True)
        yield "alert", f"{topics.base}/{machine}/alert", to_json(payload)
        yield "about", topics.about(machine), b"{}"
        if topics.has_pictures:
            yield "picture", topics.picture(machine), png(np.zeros((1, 1), np.uint8), np.zeros((1, 3), np.uint8))
    for topic, payload in discoveries(topics):
        yield "discovery", topic, to_json(payload)


def _kept(session: Session, topics: Topics) -> dict[str, bytes]:
    """What the broker keeps on the topics to be tried, as far as we may know."""
    session.subscribe([topic for _, topic, _ in _messages(topics)])
    found: dict[str, bytes] = {}
    answered_s = None
    for event in _events(session, _ANSWER_S):
        if isinstance(event, Subscribed):
            answered_s = time.monotonic()
        elif isinstance(event, Heard) and event.retained and event.payload:
            found[event.topic] = event.payload
        if isinstance(event, Ended) or (answered_s is not None and time.monotonic() - answered_s > _ECHO_S / 4):
            break
    return found


def _try(session: Session, kind: str, topic: str, payload: bytes) -> Trial:
    """Send one message and see what the broker makes of it."""
    message_id = session.publish(topic, payload, qos=1, retain=False)
    has_said_yes, until_s = False, time.monotonic() + _ANSWER_S
    for event in _events(session, _ANSWER_S):
        if isinstance(event, Ended):
            why = "it closes the connection for it"
            if event.code is not None:
                why = f"it ends the connection for it: {reason_codes.disconnect_words(event.code, event.detail)}"
            return Trial(kind, topic, Outcome.REFUSED, why)
        if isinstance(event, Confirmed) and event.message_id == message_id:
            if reason_codes.is_refusal(event.code):
                return Trial(kind, topic, Outcome.REFUSED, reason_codes.publish_refusal(event.code, event.detail))
            if session.protocol is MQTT_5:
                return Trial(kind, topic, Outcome.TAKEN)
            has_said_yes, until_s = True, time.monotonic() + _ECHO_S
        if isinstance(event, Heard) and event.topic == topic and event.payload == payload and not event.retained:
            return Trial(kind, topic, Outcome.TAKEN)
        if time.monotonic() > until_s:
            break
    if not has_said_yes:
        return Trial(kind, topic, Outcome.REFUSED, "it does not confirm it")
    return Trial(kind, topic, Outcome.UNKNOWN, "it says yes, as MQTT 3.1.1 must, but nothing came back")


def _events(session: Session, timeout_s: float) -> Iterator[Event]:
    """What happens, for so long; a `Heard` without content now and then, so that whoever waits can look at the clock."""
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        events = session.poll(0.1)
        yield from events
        if not events:
            yield Heard("", b"", retained=False)
        if any(isinstance(event, Ended) for event in events):
            return
