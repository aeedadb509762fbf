"""A daemon process whose machine does nothing but fail and recover, as fast as it can: the real monitor, stores and MQTT side, with a
scripted source and judge. What its stores have taken is written down by a witness, line by line, so that a test knows what must arrive.

Run as a program: `alerter.py PORT STATE_FOLDER WITNESS_FILE WINDOWS`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.hear.source import Block, SourceEvent, SourceHealth
from asd_daemon.judge.alarm.alarm import AlertEvent
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.run.machine_monitor import MachineMonitor, MonitorCallbacks
from asd_daemon.run.service import Service
from asd_daemon.run.stores import Stores
from asd_daemon.settings.keep import KeepSettings
from asd_daemon.tell.mqtt.connection import BrokerAddress
from asd_daemon.tell.mqtt.publisher import MqttPublisher
from asd_daemon.tell.mqtt.topics import Topics
from asd_daemon.tell.payloads import NO_DETAILS, AlertDetails
from asd_daemon.watch.systemd import SystemdNotifier
from rig.scripted_sound import Loudness

MACHINE = "fan"
RULE = AlarmRule(open_after=1, of=1, close_after=1, update_every_s=0)


class _Script:
    """A live source that gives the next window when the one before is judged, and its judge: in turn failing and well."""

    live = True
    source_health = SourceHealth()

    def __init__(self, windows: int) -> None:
        self._windows = windows
        self._judged = threading.Semaphore(1)
        self._closed = threading.Event()
        self._count = 0
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, 160_000).astype(np.float32)
        self._block = Block(noise)

    def events(self) -> Iterator[SourceEvent]:
        for _ in range(self._windows):
            while not self._judged.acquire(timeout=0.1):
                if self._closed.is_set():
                    return
            if self._closed.is_set():
                return
            yield self._block
        self._closed.wait()

    def close(self) -> None:
        self._closed.set()

    def score(self, waveform: NDArray[np.float32]) -> Loudness:
        assert waveform.shape == (160_000,)
        self._count += 1
        self._judged.release()
        return Loudness(0.9 if self._count % 2 else 0.1)


class _WitnessedTeller(MqttPublisher):
    """Writes down every alert that the outbox has taken."""

    witness = -1

    def publish_alert(
        self, machine: str, event: AlertEvent, details: AlertDetails = NO_DETAILS, memory: bytes | None = None
    ) -> None:
        super().publish_alert(machine, event, details, memory)
        os.write(self.witness, f"{event.event_id} {event.kind.value}\n".encode())


def run(port: int, state: Path, witness: Path, windows: int) -> None:
    """Fail and recover so many windows long, then wait to be stopped."""
    stores = Stores(state, KeepSettings(clips="none", scores_every_s=1), [MACHINE])
    address = BrokerAddress("127.0.0.1", port, client_id="alerter", keepalive_s=5)
    publisher = _WitnessedTeller(address, Topics("box", [MACHINE]), outbox=stores.outbox)
    publisher.witness = os.open(witness, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    script = _Script(windows)

    def monitors(callbacks: MonitorCallbacks) -> Sequence[MachineMonitor]:
        return [
            MachineMonitor(
                MACHINE, script, lambda: script, publisher, callbacks, rule=RULE, records=stores.records(MACHINE)
            )
        ]

    Service(publisher, SystemdNotifier({}), monitors, stores=stores).run()


if __name__ == "__main__":
    run(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
