"""Whoever hears all boxes, for soak.cluster.

    python -m soak.cluster_listener PLAN.json      # until its standard input ends

Listens at one node after the other, and writes what it has heard to the file `report` at the end: every alert with how often it came, and
how long scores and alerts were on the way (the clock is the same at both ends).
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from rig.broker_clusters import PORT
from rig.other_brokers import USER

_AT = re.compile(rb'"at":"([^"]+)"')
_CLEAN_QOS, _QOS = 0, 1
_ASKS_FOR_S = 60.0  # what a node has retained; then it has nothing


@dataclass(frozen=True)
class Listening:
    """What one listener does."""

    hosts: tuple[str, ...]
    """Nodes, in the order in which they are tried."""
    password: str
    client_id: str
    topics: tuple[str, ...]
    lasts: bool
    """Whether the broker keeps its session and what comes for it while it is away."""
    exact: bool
    """Whether it asks for what is retained only, and is done when nothing more comes."""
    report: str

    def save(self, file: Path) -> None:
        """Write it for the process."""
        file.write_text(json.dumps(asdict(self)))


class Listener:
    """Hears and remembers."""

    def __init__(self, listening: Listening) -> None:
        self._listening = listening
        self._last_s = time.monotonic()
        self.alerts: Counter[tuple[str, str, str]] = Counter()
        """Event, kind, time → how often."""
        self.repeated = 0
        self.retained: dict[str, Any] = {}
        self.delays: dict[str, list[tuple[float, float]]] = {"score": [], "alert": []}
        """Kind → Unix time at which it was told, seconds on the way."""
        self.connects = 0
        self._is_subscribed = False
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=listening.client_id,
            clean_session=not listening.lasts,
            reconnect_on_failure=False,
            protocol=paho.MQTTv311,
        )
        client.username_pw_set(USER, listening.password)
        client.on_connect, client.on_message, client.on_subscribe = (
            self._on_connect,
            self._on_message,
            self._on_subscribe,
        )
        self._client = client

    def run(self, is_over: threading.Event) -> None:
        """Listen until it is over; at the next node whenever one has gone."""
        turn, gives_up_s = 0, time.monotonic() + (_ASKS_FOR_S if self._listening.exact else float("inf"))
        while not is_over.is_set() and time.monotonic() < gives_up_s:
            try:
                self._client.connect(self._listening.hosts[turn % len(self._listening.hosts)], PORT, keepalive=5)
                while not is_over.is_set() and self._client.loop(0.2) is MQTTErrorCode.MQTT_ERR_SUCCESS:
                    is_quiet = time.monotonic() - self._last_s > 2.0
                    if self._listening.exact and self._is_subscribed and is_quiet:
                        return
            except OSError as e:
                sys.stderr.write(f"{self._listening.hosts[turn % len(self._listening.hosts)]}: {e}\n")
            turn += 1
            is_over.wait(0.5)

    def save(self) -> None:
        """Write it down."""
        rows = [[*key, count] for key, count in self.alerts.items()]
        content = {
            "alerts": rows,
            "repeated": self.repeated,
            "retained": self.retained,
            "delays": self.delays,
            "connects": self.connects,
        }
        Path(self._listening.report).write_text(json.dumps(content))

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        self.connects += 1
        self._last_s = time.monotonic()
        topics = self._listening.topics
        for first in range(0, len(topics), 50):
            client.subscribe(
                [(topic, _CLEAN_QOS if self._listening.exact else _QOS) for topic in topics[first : first + 50]]
            )

    def _on_subscribe(self, *_: Any) -> None:
        self._is_subscribed, self._last_s = True, time.monotonic()

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        now_s = time.time()
        self._last_s = time.monotonic()
        kind = message.topic.rpartition("/")[2]
        if kind == "alert":
            content = json.loads(message.payload)
            if content["repeated"]:
                self.repeated += 1
                return
            self.alerts[content["event_id"], content["kind"], content["at"]] += 1
        elif message.retain:
            self.retained[message.topic] = message.payload.decode()
        found = _AT.search(message.payload)
        if (
            kind in self.delays and found is not None and "/box-" in message.topic
        ):  # clocks of simulated sound run as fast as it does
            at_s = datetime.fromisoformat(found[1].decode()).timestamp()
            self.delays[kind].append((at_s, now_s - at_s))


def main() -> int:
    """The program."""
    content = json.loads(Path(sys.argv[1]).read_text())
    lists = {key: tuple(content[key]) for key in ("hosts", "topics")}
    listener, is_over = Listener(Listening(**{**content, **lists})), threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        is_over.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    listener.run(is_over)
    listener.save()
    return 0


if __name__ == "__main__":
    sys.exit(main())
