"""Do alerts arrive at brokers that forbid some topics, whatever their way to say so? RabbitMQ, NATS and mosquitto, in turn.

    PYTHONPATH=tests python -m soak.brokers [--only rabbitmq]

At each broker the daemon's side may not publish the alerts of one machine. Those of the other machine must arrive, the connection must
last, the topic must be named where the version of MQTT lets it be known, and nothing must be given up. Prints one JSON object a broker.
The short forms are in tests/daemon/tell/mqtt/test_real_brokers.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.tell.mqtt.connection import BrokerAddress
from asd_daemon.tell.mqtt.publisher import MqttPublisher
from asd_daemon.tell.mqtt.topics import Topics
from asd_daemon.tell.mqtt.trial import Outcome, try_topics
from asd_daemon.tell.payloads import Condition, MachineState
from rig.broker import HOST, PASSWORD, Broker, mosquitto
from rig.other_brokers import USER, Nats, RabbitMq, nats, rabbitmq

ALERTS = 20
FORBIDDEN = "asd/box/fan/alert"
_AT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
_WAIT = threading.Event()  # never set


@dataclass(frozen=True)
class Course:
    """How it went at one broker."""

    broker: str
    version: str | None
    """Of MQTT."""
    arrived: int
    """Alerts of the machine that may be told."""
    waiting: int
    """Of the other one."""
    named: bool
    """Whether the forbidden topic is told as a trouble."""
    found_by_check: str
    """What a trial of the right to publish says of the forbidden topic."""
    connects: int
    lasts: bool
    """Whether the connection is still there after some quiet seconds."""
    seconds: float

    @property
    def well(self) -> bool:
        """Whether nothing was lost that could be known."""
        is_known = self.named and self.waiting > 0
        is_silent = self.version == "3.1.1" and self.found_by_check == Outcome.UNKNOWN.value
        return self.arrived == ALERTS and self.lasts and self.connects <= 12 and (is_known or is_silent)


def ordeal(name: str, address: BrokerAddress, patience_s: float = 60) -> Course:
    """Tell alerts of two machines, of which the broker takes one machine's only."""
    began_s = time.monotonic()
    topics = Topics("box", ["fan", "lathe"])
    publisher = MqttPublisher(address, topics, wait_for_broker=True)
    for machine in topics.machines:
        publisher.publish_state(machine, MachineState(Condition.NORMAL, _AT))
    publisher.start(lambda _: None)
    for number in range(ALERTS):
        for machine in topics.machines:
            event = AlertEvent(AlertKind.OPEN, f"{machine}-{number}", _AT, _AT, 0.5, 0.5, 0.4, 3, 2)
            publisher.publish_alert(machine, event)

    waits = publisher.outbox.waits_for
    _until(lambda: not waits("lathe"), patience_s)
    _WAIT.wait(3.0)  # until it has settled what is not taken
    arrived, left = (0 if waits("lathe") else ALERTS), len(publisher.outbox)
    _until(lambda: publisher.connected, patience_s)
    connects = publisher.connects
    _WAIT.wait(3.0)
    status = publisher.broker_status
    course = Course(
        broker=name,
        version=status.protocol,
        arrived=arrived,
        waiting=left if waits("fan") else 0,
        named=any(FORBIDDEN in trouble for trouble in status.troubles),
        found_by_check=_found_by_check(address, topics),
        connects=connects,
        lasts=publisher.connected and publisher.connects == connects,
        seconds=round(time.monotonic() - began_s, 1),
    )
    publisher.close(2)
    return course


def _found_by_check(address: BrokerAddress, topics: Topics) -> str:
    trials = try_topics(BrokerAddress(**{**asdict(address), "client_id": "asd-check"}), topics, is_heard=False)
    return next(trial.outcome.value for trial in trials if trial.topic == FORBIDDEN)


def _until(fits: Callable[[], object], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not fits() and time.monotonic() < deadline_s:
        _WAIT.wait(0.05)


def at_mosquitto(folder: Path) -> Course:
    """mosquitto, which tells MQTT 5 the truth."""
    rights = ["topic read #", "topic write asd/box/+/availability", "topic write asd/box/availability"]
    rights += ["topic write asd/box/+/state", "topic write asd/box/lathe/alert"]
    with Broker(folder, rights=rights) as broker:
        return ordeal("mosquitto", BrokerAddress(HOST, broker.port, "asd-box"))


def at_nats(folder: Path) -> Course:
    """NATS."""
    with Nats(folder, denied=[FORBIDDEN]) as broker:
        return ordeal("nats", BrokerAddress(HOST, broker.port, "asd-box", username=USER, password=PASSWORD))


def at_rabbitmq(folder: Path) -> Course:
    """RabbitMQ, which hangs up."""
    with RabbitMq(folder, may_write=r"^(?!asd\.box\.fan\.alert$).*$") as broker:
        return ordeal("rabbitmq", BrokerAddress(HOST, broker.port, "asd-box", username=USER, password=PASSWORD))


_BROKERS = {
    "mosquitto": (mosquitto, at_mosquitto),
    "nats": (nats, at_nats),
    "rabbitmq": (rabbitmq, at_rabbitmq),
}


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(_BROKERS), help="one broker alone")
    words = parser.parse_args()
    well = True
    for name, (program, proof) in _BROKERS.items():
        if words.only not in (None, name):
            continue
        if program() is None:
            sys.stderr.write(f"{name} is not installed: left out\n")
            continue
        with tempfile.TemporaryDirectory() as folder:
            course = proof(Path(folder))
        sys.stdout.write(json.dumps({**asdict(course), "well": course.well}) + "\n")
        sys.stdout.flush()
        well = well and course.well
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
