"""Many boxes in one process, for soak.cluster: each has the daemon's own publisher, outbox and connection; only the machine is made up.

    python -m soak.cluster_player PLAN.json

A box is judged every `window_s`; now and then an alert opens, rises twice and closes. What was told goes to the file `told`, one JSON
line an alert; the report of the process to `report`. It begins when the time of the first connection comes as a line, which is asked for
by the file `ready`, so that a busy box costs the course nothing. It ends when every alert is confirmed, or after `patience_s` without.
"""

from __future__ import annotations

import heapq
import json
import logging
import random
import resource
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.judge.features.spectral_difference import Band, Difference
from asd_daemon.tell.mqtt.connection import BrokerAddress, client_id
from asd_daemon.tell.mqtt.publisher import MqttPublisher
from asd_daemon.tell.mqtt.topics import Topics
from asd_daemon.tell.payloads import AlertDetails, Condition, MachineState, PublishedScore, time_text
from rig.broker_clusters import PORT
from rig.other_brokers import USER

MACHINE = "fan"
_THRESHOLD = 1.6
_ALERT_WINDOWS = 8
_DETAILS = AlertDetails(Difference((Band(3599.0, 4317.0, 13.5, 12.4), Band(4317.0, 5035.0, 9.1, 8.8)), (5, 0, 1), 64))
_STACK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Play:
    """What one process plays."""

    first: int
    """Number of its first box."""
    boxes: int
    hosts: tuple[str, ...]
    password: str
    ramp_s: float
    """Over so long the boxes are switched on."""
    seconds: float
    """So long windows are judged, from the end of the ramp on."""
    window_s: float
    alerts: float
    """Alerts a box, in the mean."""
    patience_s: float
    told: str
    report: str
    ready: str

    def save(self, file: Path) -> None:
        """Write it for the process."""
        file.write_text(json.dumps(asdict(self)))


@dataclass(frozen=True)
class Played:
    """How it went."""

    connects: tuple[float, ...]
    """Unix time of each."""
    scores: int
    late_s: tuple[float, ...]
    """Largest lateness of a window in each second: what the player itself could not keep up with."""
    unconfirmed: int
    """Alerts that nobody has taken to the end."""
    memory_mb: float
    """Resident, with all boxes connected …"""
    empty_mb: float
    """… and before there were any."""
    cpu_s: float
    silent_boxes: int
    """Boxes that were not connected at the end."""


def node_name(number: int) -> str:
    """Of a box."""
    return f"box-{number:04d}"


class Box:
    """One of them."""

    def __init__(self, number: int, play: Play) -> None:
        self._chance = random.Random(number)
        self.node = node_name(number)
        address = BrokerAddress(
            play.hosts[0],
            PORT,
            client_id(self.node, [MACHINE]),
            username=USER,
            password=play.password,
            other_hosts=tuple(play.hosts[1:]),
        )
        self.publisher = MqttPublisher(address, Topics(self.node, [MACHINE]), wait_for_broker=True)
        self._opens = play.alerts * play.window_s / play.seconds  # chance of a window to open one
        self._alert: AlertEvent | None = None
        self.publisher.publish_state(MACHINE, MachineState(Condition.NORMAL, datetime.now(UTC)))

    def judge(self, *, may_open: bool) -> Iterator[AlertEvent]:
        """One window; the alerts that it makes."""
        now = datetime.now(UTC)
        opens = self._alert is None and may_open and self._chance.random() < self._opens
        is_anomalous = opens or (self._alert is not None and self._alert.windows < _ALERT_WINDOWS)
        score = 5.0 + self._chance.random() if is_anomalous else self._chance.random()
        self.publisher.publish_score(MACHINE, PublishedScore(now, score, _THRESHOLD, is_anomalous))
        if opens:
            self._alert = AlertEvent(AlertKind.OPEN, str(uuid.uuid4()), now, now, score, score, _THRESHOLD, 1, 1)
            yield self._tell(self._alert)
            self._say(Condition.ALERT, now, self._alert.event_id)
        elif self._alert is not None:
            count = self._alert.windows + 1
            self._alert = replace(self._alert, kind=AlertKind.UPDATE, at=now, score=score, windows=count)
            if not is_anomalous:
                yield self._tell(replace(self._alert, kind=AlertKind.CLOSE))
                self._alert = None
                self._say(Condition.NORMAL, now)
            elif count % 3 == 0:
                self._alert = replace(self._alert, peak_score=max(score, self._alert.peak_score))
                yield self._tell(self._alert)

    @property
    def is_open(self) -> bool:
        """Whether an alert is."""
        return self._alert is not None

    def _tell(self, event: AlertEvent) -> AlertEvent:
        self.publisher.publish_alert(MACHINE, event, _DETAILS)
        return event

    def _say(self, condition: Condition, since: datetime, event_id: str | None = None) -> None:
        self.publisher.publish_state(MACHINE, MachineState(condition, since, event_id=event_id))


class _Connects(logging.Handler):
    """Remembers when the publisher's log says that it is connected."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.times: list[float] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a line."""
        if record.getMessage().startswith("connected to broker"):
            self.times.append(record.created)


def run(play: Play) -> Played:
    """All of it."""
    process = psutil.Process()
    connects = _Connects()
    logger = logging.getLogger("asd_daemon.tell.mqtt.publisher")
    logger.setLevel(logging.INFO)
    logger.addHandler(connects)
    logger.propagate = False
    logging.getLogger("asd_daemon.tell.mqtt.link").setLevel(logging.ERROR)
    empty_mb = process.memory_info().rss / 1e6
    tick = threading.Event()
    boxes = [Box(play.first + number, play) for number in range(play.boxes)]
    Path(play.ready).touch()
    begins_s = float(sys.stdin.readline())
    windows_s = begins_s + play.ramp_s
    due = [(windows_s + play.window_s * number / play.boxes, number) for number in range(play.boxes)]
    starts = [(begins_s + play.ramp_s * number / play.boxes, number) for number in range(play.boxes)]
    for start_s, number in starts:
        tick.wait(max(0.0, start_s - time.time()))
        boxes[number].publisher.start(_complain)
    heapq.heapify(due)
    ends_s, scores, late_s = windows_s + play.seconds, 0, [0.0] * (int(play.seconds) + 60)
    with Path(play.told).open("w") as told:
        while due:
            due_s, number = heapq.heappop(due)
            tick.wait(max(0.0, due_s - time.time()))
            second = min(len(late_s) - 1, max(0, int(due_s - windows_s)))
            late_s[second] = max(late_s[second], time.time() - due_s)
            for event in boxes[number].judge(may_open=due_s < ends_s - play.window_s * (_ALERT_WINDOWS + 2)):
                row = {"node": boxes[number].node, "kind": event.kind.value, "event_id": event.event_id}
                told.write(json.dumps({**row, "at": time_text(event.at)}) + "\n")
            scores += 1
            if due_s + play.window_s < ends_s or boxes[number].is_open:
                heapq.heappush(due, (due_s + play.window_s, number))
    patient_until_s = time.monotonic() + play.patience_s
    while any(len(box.publisher.outbox) for box in boxes) and time.monotonic() < patient_until_s:
        tick.wait(0.2)
    tick.wait(2.0)  # states go behind the alerts
    played = Played(
        connects=tuple(connects.times),
        scores=scores,
        late_s=tuple(round(late, 3) for late in late_s),
        unconfirmed=sum(len(box.publisher.outbox) for box in boxes),
        memory_mb=round(process.memory_info().rss / 1e6, 1),
        empty_mb=round(empty_mb, 1),
        cpu_s=round(sum(process.cpu_times()[:2]), 1),
        silent_boxes=sum(not box.publisher.connected for box in boxes),
    )
    Path(play.report).write_text(json.dumps(asdict(played)))
    return played


def _complain(error: Exception) -> None:
    sys.stderr.write(f"{error}\n")


def main() -> int:
    """The program; its boxes are gone without a word, as when power fails."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    threading.stack_size(_STACK_BYTES)
    content = json.loads(Path(sys.argv[1]).read_text())
    run(Play(**{**content, "hosts": tuple(content["hosts"])}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
