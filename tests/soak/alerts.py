"""Are alerts ever lost? A daemon is killed at random moments while it makes alerts, its broker is killed and frozen, and all is counted.

    PYTHONPATH=tests python -m soak.alerts [--alerts 200] [--kills 20] [--seed 0]

Prints one JSON object and ends with 0 only if every alert that the daemon's outbox had taken arrived, every alert that opened also
closed, and each came in the order open → close. The short form is tests/end_to_end/test_alerts.py.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rig.broker import Broker, Subscriber
from rig.gate import Gate
from rig.waiting import PATIENT_S, wait_until

ROOT = Path(__file__).resolve().parents[2]
ALERTER = ROOT / "tests" / "rig" / "alerter.py"
_WAIT = threading.Event()  # never set: a pause that is no sleep of the machine


@dataclass(frozen=True)
class Count:
    """What became of the alerts."""

    made: int
    """Alerts that opened and were on disk."""
    messages: int
    """Opens and closes that were on disk."""
    lost: int
    """Of these messages."""
    never_closed: int
    """Alerts that opened and never closed."""
    out_of_order: int
    """Alerts whose close came before their open."""
    duplicates: int
    """Messages that came again; event_id and kind tell them."""
    daemon_kills: int
    broker_kills: int
    broker_freezes: int
    seconds: float

    @property
    def well(self) -> bool:
        """Whether nothing was lost."""
        return self.made > 0 and self.lost == self.never_closed == self.out_of_order == 0


class Ordeal:
    """A daemon, its broker and the door between them, all of which go wrong."""

    def __init__(self, folder: Path, port: int, seed: int) -> None:
        self.folder, self.port, self.chance = folder, port, random.Random(seed)
        self.witness = folder / "witness"
        self.witness.touch()
        self.daemon_kills = self.broker_kills = self.broker_freezes = 0
        self._daemon: subprocess.Popen[bytes] | None = None

    def witnessed(self) -> list[tuple[str, str]]:
        """Event and kind of all that the outbox has taken; a line that was cut off by a kill is none."""
        lines = self.witness.read_text().split("\n")[:-1]
        return [(event, kind) for event, kind in (line.split() for line in lines)]

    def made(self) -> int:
        """How many alerts have opened."""
        return sum(kind == "open" for _, kind in self.witnessed())

    def start_daemon(self, windows: int) -> None:
        """Start it anew on the same state folder."""
        paths = [str(ROOT / "daemon"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        words = [str(self.port), str(self.folder / "state"), str(self.witness), str(windows)]
        with (self.folder / "daemon.log").open("ab") as log:
            self._daemon = subprocess.Popen(
                [sys.executable, str(ALERTER), *words],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
                stderr=log,
            )

    def kill_daemon(self) -> None:
        """End it as a power cut does."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait(PATIENT_S)
        self.daemon_kills += 1

    def stop_daemon(self) -> int:
        """End it as systemd does."""
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGTERM)
        return self._daemon.wait(PATIENT_S)

    def let_it_make(self, more: int) -> None:
        """Wait for so many more alerts."""
        goal = self.made() + more
        wait_until(lambda: self.made() >= goal, f"{goal} alerts are made (see {self.folder}/daemon.log)")
        _WAIT.wait(self.chance.uniform(0, 0.1))


def count_losses(folder: Path, alerts: int, kills: int, seed: int) -> Count:
    """Make so many alerts, and kill the daemon so often, while all else goes wrong too; and count."""
    began_s = time.monotonic()
    with (
        Broker(folder / "broker") as broker,
        Gate(broker.port) as gate,
        Subscriber(broker.port, "asd/box/fan/alert") as heard,
    ):
        ordeal = Ordeal(folder, gate.port, seed)
        gate.open()
        while ordeal.made() < alerts or ordeal.daemon_kills < kills:
            ordeal.start_daemon(windows=100_000)
            part = max(3, min(alerts // 10, 40))
            ordeal.let_it_make(ordeal.chance.randint(1, part))
            happening = ordeal.chance.choice(("daemon", "broker", "both", "door", "frozen"))
            if happening == "frozen":
                freeze(broker, ordeal, part)
            if happening in ("broker", "both"):
                broker.kill()  # in the middle of what it is doing
                ordeal.broker_kills += 1
            if happening in ("broker", "both", "door"):
                gate.shut()
                ordeal.let_it_make(ordeal.chance.randint(1, part))
            if happening in ("broker", "both"):
                bring_back(broker, heard)
            if happening == "both":
                ordeal.kill_daemon()  # while what it made in the outage waits on disk
                ordeal.start_daemon(windows=100_000)
            gate.open()
            ordeal.let_it_make(ordeal.chance.randint(1, part))
            ordeal.kill_daemon()
        # At last it runs in peace: closes what is open, sends what waits
        ordeal.start_daemon(windows=3)
        wait_until_all_is_there(ordeal, heard)
        assert ordeal.stop_daemon() == 0
        return judge(ordeal, heard, time.monotonic() - began_s)


def freeze(broker: Broker, ordeal: Ordeal, part: int) -> None:
    """Let the broker hang with what it has half received, the daemon die of a power cut meanwhile, and both go on."""
    broker.freeze()
    ordeal.broker_freezes += 1
    ordeal.let_it_make(ordeal.chance.randint(1, part))
    ordeal.kill_daemon()
    broker.thaw()
    ordeal.start_daemon(windows=100_000)


def bring_back(broker: Broker, heard: Subscriber) -> None:
    """Start it again; the door stays shut until the subscriber is back, who would miss something else."""
    before = heard.subscriptions
    broker.up()
    wait_until(lambda: heard.subscriptions > before, "the subscriber is back")


def wait_until_all_is_there(ordeal: Ordeal, heard: Subscriber, timeout_s: float = PATIENT_S) -> None:
    """Until everything witnessed has arrived and everything open is closed, or it is clear that it never will."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        arrived = {(m["event_id"], m["kind"]) for m in heard.of("alert")}
        opened = {event for event, kind in arrived if kind == "open"}
        closed = {event for event, kind in arrived if kind == "close"}
        waits = len(opened - closed)
        if set(ordeal.witnessed()) <= arrived and waits <= 1:  # the script ends with a failing window
            return
        _WAIT.wait(0.1)


def judge(ordeal: Ordeal, heard: Subscriber, seconds: float) -> Count:
    """What was made against what arrived."""
    told = [(m["event_id"], m["kind"]) for m in heard.of("alert") if not m["repeated"]]
    arrived, must = set(told), ordeal.witnessed()
    first = {message: number for number, message in reversed(list(enumerate(told)))}
    opened = [event for event, kind in dict.fromkeys(told) if kind == "open"]
    closed = {event for event, kind in arrived if kind == "close"}
    return Count(
        made=ordeal.made(),
        messages=len(must),
        lost=len(set(must) - arrived),
        never_closed=len([event for event in opened[:-1] if event not in closed]),
        out_of_order=sum(first[e, "close"] < first.get((e, "open"), len(told)) for e in closed),
        duplicates=len(told) - len(arrived),
        daemon_kills=ordeal.daemon_kills,
        broker_kills=ordeal.broker_kills,
        broker_freezes=ordeal.broker_freezes,
        seconds=round(seconds, 1),
    )


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alerts", type=int, default=200, help="how many to make")
    parser.add_argument("--kills", type=int, default=20, help="how often to kill the daemon at least")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        count = count_losses(Path(folder), words.alerts, words.kills, words.seed)
    sys.stdout.write(json.dumps({**asdict(count), "well": count.well}) + "\n")
    return 0 if count.well else 1


if __name__ == "__main__":
    sys.exit(main())
