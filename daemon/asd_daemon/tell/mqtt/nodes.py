"""Which node of a broker to connect to: every address of every name that it has, each in turn, beginning with any of them.

A name may have several addresses and a configuration several names. The system puts the addresses of a name into the same order on every
box, and goes on to the next only where a connection can't be made; so all boxes would be at the first node, and none would leave one that
takes connections and says nothing. Here chance orders them, once a process, and an attempt begins behind the node that was tried last.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paho.mqtt.enums import MQTTProtocolVersion

from asd_daemon.tell.mqtt.connection import BrokerAddress
from asd_daemon.tell.mqtt.session import Session, Will

Resolve = Callable[[str, int], Sequence[tuple[int, str]]]
"""Name and port → family and address, best first; raises OSError where the name is unknown."""


@dataclass(frozen=True)
class Node:
    """One of them."""

    name: str
    """By which it is configured, and which its certificate must have."""
    address: str

    def __str__(self) -> str:
        return self.name if self.name == self.address else f"{self.name} ({self.address})"


def resolve(name: str, port: int) -> list[tuple[int, str]]:
    """Ask the system."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [(family, _with_scope(address)) for family, _, _, _, address in found]


def _with_scope(address: Sequence[object]) -> str:
    scope = address[3] if len(address) > 3 else 0
    return f"{address[0]}%{scope}" if scope else str(address[0])


class Nodes:
    """All of them.

    Args:
        address: the broker, with its names.
        chance: for the order.
        resolve: finds the addresses of a name.
    """

    def __init__(
        self, address: BrokerAddress, *, chance: random.Random | None = None, resolve: Resolve = resolve
    ) -> None:
        self._address, self._resolve = address, resolve
        self._chance = chance or random.Random()  # noqa: S311  # no secret
        self._ranks: dict[Node, float] = {}
        self._last: Node | None = None

    @property
    def last(self) -> Node | None:
        """The one that was tried last."""
        return self._last

    def in_turn(self) -> list[Node]:
        """Those to try now, as their names are resolved now. Families of addresses keep the system's order.

        Raises:
            OSError: no name is known.
        """
        families: dict[int, list[Node]] = {}
        unknown: OSError | None = None
        for name in self._address.hosts:
            try:
                found = self._resolve(name, self._address.port)
            except OSError as e:
                unknown = e
                continue
            for family, address in found:
                families.setdefault(family, []).append(Node(name, address))
        if not families:
            raise unknown or OSError("the name has no address")
        for node in (node for nodes in families.values() for node in nodes):
            self._ranks.setdefault(node, self._chance.random())
        order = [
            node for nodes in families.values() for node in sorted(dict.fromkeys(nodes), key=self._ranks.__getitem__)
        ]
        behind = order.index(self._last) + 1 if self._last in order else 0
        return order[behind:] + order[:behind]

    def connect(self, protocol: MQTTProtocolVersion, will: Will | None = None) -> Session:
        """A connection to the first that can be reached, on which CONNECT is sent.

        Raises:
            OSError, ValueError: none can be reached.
            BrokerError: a certificate file that can't be used.
        """
        nodes = self.in_turn()
        for node in nodes:
            session = Session(self._address, protocol, will, server_name=node.name)
            self._last = node
            try:
                session.connect(node.address)
            except (OSError, ValueError):
                if node is nodes[-1]:
                    raise
            else:
                return session
        raise AssertionError("unreachable: there is a node, or its name would not be known")
