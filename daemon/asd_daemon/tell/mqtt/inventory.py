"""What a broker keeps of all boxes: who is there, how each machine is, by what it is heard and judged.

Reads retained topics alone, and leaves nothing behind. What is no message of ours is left out and counted.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from asd_daemon.errors import BrokerError
from asd_daemon.tell.mqtt import reason_codes
from asd_daemon.tell.mqtt.connection import BrokerAddress
from asd_daemon.tell.mqtt.session import Ended, Event, Heard, Subscribed
from asd_daemon.tell.mqtt.trial import open_session
from asd_daemon.tell.payloads import Availability

_TOPICS = ("availability", "+/availability", "+/state", "+/about")
_QUIET_S = 0.5
_MOST_BYTES = 100_000


@dataclass
class FleetMachine:
    """One machine of one box, as the broker knows it."""

    node: str
    machine: str
    availability: str | None = None
    """online, offline or stopped; None where nobody has ever said so."""
    node_availability: str | None = None
    """The same of its box."""
    state: dict[str, Any] = field(default_factory=dict)
    """Its state (docs/schemas/state.json), as it was last."""
    about: dict[str, Any] = field(default_factory=dict)
    """By what it is heard and judged (docs/schemas/about.json)."""

    @property
    def is_heard(self) -> bool:
        """Whether somebody listens to it at this moment."""
        is_there = Availability.ONLINE.value
        node = self.node_availability in (None, is_there)
        return node and self.availability == is_there and self.state.get("listening") is True

    @property
    def trouble(self) -> str | None:
        """What is wrong, in words; None where all is well."""
        said = self.node_availability if self.node_availability not in (None, "online") else self.availability
        if said != Availability.ONLINE.value:
            return said or "never online"
        troubles = self.state.get("troubles") or []
        reason = f": {self.state['reason']}" if self.state.get("reason") else ""
        if self.state.get("listening") is not True:
            return f"not heard: {self.state.get('state', 'no state')}{reason}"
        return "; ".join(map(str, troubles)) or None


@dataclass(frozen=True)
class Inventory:
    """All of them."""

    machines: list[FleetMachine]
    """By box and name."""
    not_understood: int
    """Messages on our topics that were none of ours."""


def read_inventory(address: BrokerAddress, prefix: str = "asd", patience_s: float = 10.0) -> Inventory:
    """Ask a broker.

    Args:
        address: the broker.
        prefix: first part of the topics.
        patience_s: at most so long; it ends half a second after the last message.

    Raises:
        BrokerError: it can't be reached, refuses, or does not let us read.
    """
    session, _ = open_session(address)
    found: dict[str, bytes] = {}
    try:
        session.subscribe([f"{prefix}/+/{topic}" for topic in _TOPICS])
        until_s = time.monotonic() + patience_s
        last_s, is_subscribed = time.monotonic(), False
        while time.monotonic() < until_s and not (is_subscribed and time.monotonic() - last_s > _QUIET_S):
            for event in session.poll(0.1):
                is_subscribed = is_subscribed or _is_answer(event, address)
                if isinstance(event, Heard) and event.payload:
                    found[event.topic] = event.payload
                last_s = time.monotonic()
    finally:
        session.close()
    return inventory_of(found, prefix)


def _is_answer(event: Event, address: BrokerAddress) -> bool:
    if isinstance(event, Ended):
        raise BrokerError(f"broker {address} has ended the connection")
    if isinstance(event, Subscribed) and all(map(reason_codes.is_refusal, event.codes)):
        raise BrokerError(f"broker {address} does not let us read the topics; give the user the right to read")
    return isinstance(event, Subscribed)


def inventory_of(messages: dict[str, bytes], prefix: str) -> Inventory:
    """Put retained messages, topic → payload, together."""
    machines: dict[tuple[str, str], FleetMachine] = {}
    nodes: dict[str, str] = {}
    strange = 0
    for topic, payload in messages.items():
        node, *rest = topic.removeprefix(f"{prefix}/").split("/")
        try:
            if rest == ["availability"]:
                nodes[node] = Availability(payload.decode()).value
                continue
            machine, kind = rest
            known = machines.get((node, machine)) or FleetMachine(node, machine)
            if kind == "availability":
                known.availability = Availability(payload.decode()).value
            else:
                setattr(known, kind, _content(payload))
            machines[node, machine] = known
        except ValueError:  # also what is not UTF-8 or JSON
            strange += 1
    for known in machines.values():
        known.node_availability = nodes.get(known.node)
    return Inventory(sorted(machines.values(), key=lambda one: (one.node, one.machine)), strange)


def _content(payload: bytes) -> dict[str, Any]:
    content = json.loads(payload) if len(payload) <= _MOST_BYTES else None
    if not isinstance(content, dict) or content.get("schema") != 1:
        raise ValueError("no message of ours")
    return content
