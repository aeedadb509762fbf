"""A cluster of brokers whose nodes die and are cut off, in short; `python -m soak.cluster` is the long form."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from rig.broker import HOST, Broker, Subscriber, mosquitto
from rig.broker_clusters import BROKERS, NODES
from rig.waiting import wait_until
from soak.cluster import lacking, ordeal
from soak.cluster_report import Course

LACKING = lacking("nats")


@pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
def test_no_alert_is_lost_when_a_node_of_three_is_killed_and_another_is_cut_off(tmp_path: Path) -> None:
    course = Course(boxes=24, daemons=1, players=1, ramp_s=2, seconds=14, window_s=0.4, alerts=2)
    found = ordeal("nats", course, tmp_path)
    assert found.well, found
    assert found.alerts >= 72
    assert found.connects > course.boxes  # those of the node that died came to others
    assert found.daemons_alerts == 1


def test_configurations_of_nodes_name_all_of_them() -> None:
    for file in ("nats.conf", "rabbitmq.conf"):
        text = (BROKERS / file).read_text()
        assert all(node in text for node in NODES), file
    assert yaml.safe_load((BROKERS / "rabbitmq-plugins").read_text().rstrip(".\n")) == ["rabbitmq_mqtt"]


@pytest.mark.broker
@pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")
def test_bridge_of_two_mosquittos_carries_both_ways_once_and_catches_up(tmp_path: Path) -> None:
    with Broker(tmp_path / "first") as first:
        lines = (BROKERS / "mosquitto-bridge.conf").read_text().splitlines()
        bridge = [line for line in lines[lines.index("connection plant") :] if not line.startswith("remote_")]
        bridge[1] = f"address {HOST}:{first.port}"
        with Broker(tmp_path / "second", more=bridge) as second, Subscriber(first.port) as at_first:
            with Subscriber(second.port) as at_second:
                second_says = Heard(at_second, at_first, "asd/box/fan/state")
                first_says = Heard(at_first, at_second, "asd/box/fan/alert")
                wait_until(lambda: second_says.arrives("probe"), "the bridge is up")
                for number in range(20):
                    at_second.say("asd/box/fan/state", str(number).encode(), retain=True)
                    at_first.say("asd/box/fan/alert", str(number).encode())
                wait_until(lambda: second_says.has(19) and first_says.has(19), "all of it has come")
                assert second_says.counts() == first_says.counts() == dict.fromkeys(range(20), 1)
            with Subscriber(first.port, "asd/box/fan/state") as late:
                late.wait_for(lambda m: m.payload == 19 and m.retained)


class Heard:
    """What one subscriber says on a topic and another hears."""

    def __init__(self, says: Subscriber, hears: Subscriber, topic: str) -> None:
        self._says, self._hears, self._topic = says, hears, topic

    def arrives(self, word: str) -> bool:
        """Say something, and see whether something of it has come."""
        self._says.say(self._topic, word.encode())
        return word in self._hears.of(self._topic)

    def has(self, number: int) -> bool:
        """Whether a number has come."""
        return number in self._hears.of(self._topic)

    def counts(self) -> dict[int, int]:
        """Number → how often."""
        return dict(Counter(one for one in self._hears.of(self._topic) if isinstance(one, int)))
