"""Is a box ever deaf while bundles are rolled out to it? Daemon and fetcher are killed at random moments, the server cuts, lies and drips.

    PYTHONPATH=tests python -m soak.rollout [--kills 200] [--seed 0]

A real daemon hears a simulated fan and asks a server of which a third of all answers is wrong. It, or the process that fetches, is killed
(SIGKILL) at random moments: at any time after its start, some answers of the server later, soon after a bundle is fetched, while one is
copied, and when it is installed. After every kill what is current must be a whole, signed bundle.
Whenever an update is complete the next version is offered. Prints one JSON object; ends with 0 only if each daemon that was left alone
judged windows, and the last version is installed in the end. The short form is tests/end_to_end/test_soak.py.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from asd_daemon.judge.bundle.bundle import load_bundle
from asd_daemon.judge.scoring.installed_bundles import CURRENT
from asd_daemon.rollout.rollout_state import read_state, state_file
from rig.bundle_server import BundleServer, sometimes
from rig.daemon import RunningDaemon, ask
from rig.plant import Plant
from rig.waiting import wait_until

_WAIT = threading.Event()  # never set: a pause that is no sleep of the machine
BLOB_BYTES = 400_000
FAULTY = 0.33


@dataclass
class Count:
    """What was done and seen."""

    kills: Counter[str] = field(default_factory=Counter)
    """By what was killed, and when."""
    updates: int = 0
    """That were complete."""
    daemons: int = 0
    """That were started …"""
    judged: int = 0
    """… of those that were waited for, how many judged; each must …"""
    waited_for: int = 0
    """… of so many."""
    windows: int = 0
    """That were judged in all."""
    dropped_bundles: int = 0
    """Times that what was current was no whole bundle."""
    answers: Counter[str] = field(default_factory=Counter)
    """Of the server, by fault."""


class Torment:
    """One box, one server, one person who kills.

    Args:
        home: an empty folder.
        seed: of chance.
        pause_s: from kill to kill, on the average.
        tried: share of starts at which bundles are tried before they are installed.
        longest_s: that a moment is waited for, which may not come.
    """

    def __init__(
        self, home: Path, seed: int, pause_s: float = 1.2, tried: float = 0.25, longest_s: float = 60.0
    ) -> None:
        self._pause_s, self._tried, self._longest_s = pause_s, tried, longest_s
        self.home, self.dice, self.count = home, random.Random(seed), Count()
        self.plant = Plant.made(home / "plant")
        self.root = home / "state" / "bundles"
        self.version = "1"
        done = ask("bundle", "install", self.plant.first, "--key", self.plant.public, home=home)
        assert done.returncode == 0, done.stderr

    def offer_next(self) -> None:
        """Offer another version."""
        self.version = str(int(self.version) + 1)
        self.plant.offer(self.plant.version(self.version, self.dice.randbytes(BLOB_BYTES)))

    def configure(self, url: str) -> None:
        """Now and then a bundle is tried before it is installed."""
        trial = "1s" if self.dice.random() < self._tried else "0s"
        rollout = {"url": url, "insecure": True, "check": "1s", "trial": trial}
        machine = {"source": {"simulate": "fan?speed=100"}}
        settings = {
            "node": "box",
            "machines": {"fan": machine},
            "bundle": rollout,
            "bundle_key": str(self.plant.public),
        }
        (self.home / "asd.yaml").write_text(json.dumps(settings))

    def current(self) -> str:
        """Version of what is current, which must be whole and signed."""
        try:
            return load_bundle(self.root / CURRENT, self.plant.public).version
        except Exception:
            self.count.dropped_bundles += 1
            raise

    @property
    def is_complete(self) -> bool:
        """Whether what is offered is current, and the daemon knows."""
        switch = read_state(state_file(self.root)).switch
        is_known = switch is not None and switch.folder is not None and switch.named.version == self.version
        return is_known and self.current() == self.version

    def daemon(self) -> RunningDaemon:
        """Start one."""
        self.count.daemons += 1
        return RunningDaemon("run", "--no-mqtt", "--config", self.home / "asd.yaml", home=self.home)

    def suffer(self, kills: int, server: BundleServer) -> None:
        """Kill so often."""
        server.fault_of = sometimes(self.dice.randrange(2**30), FAULTY)
        done = 0
        while done < kills:
            self.configure(server.url)
            with self.daemon() as running:
                if self.dice.random() < 0.6:
                    self._wait_judged(running)
                is_over = False
                while not is_over and done < kills:
                    moment = self._wait(running, server)
                    is_over = self._kill(running, moment)
                    done += 1
                    if done % 5 == 0:
                        sys.stderr.write(f"{done} kills: {json.dumps(vars(self.count))}\n")
                    self.current()
                    if self.is_complete:
                        self.count.updates += 1
                        self.offer_next()
            self.count.windows += windows(running)
        self.current()

    def _wait_judged(self, running: RunningDaemon) -> None:
        self.count.waited_for += 1
        wait_until(lambda: windows(running) > 0 or running.process.poll() is not None, "a window is judged")
        assert running.process.poll() is None, "\n".join(running.log)
        self.count.judged += 1

    def _wait(self, running: RunningDaemon, server: BundleServer) -> str:
        """Wait for a random moment; which."""
        asked, answers = len(server.asked), self.dice.randint(1, 5)
        moments: dict[str, Callable[[], bool]] = {
            "any time": lambda: True,
            "some answers later": lambda: len(server.asked) >= asked + answers,
            "fetched": lambda: read_state(state_file(self.root)).candidate is not None,
            "being copied": lambda: any((self.root / "versions").glob(".incoming-*")),
            "installed": lambda: self.is_complete,
        }
        moment = self.dice.choice(list(moments))
        deadline_s = time.monotonic() + self._longest_s
        while not moments[moment]() and time.monotonic() < deadline_s and running.process.poll() is None:
            _WAIT.wait(0.02)
        _WAIT.wait(self.dice.expovariate(1 / (self._pause_s if moment == "any time" else 0.2)))
        return moment

    def _kill(self, running: RunningDaemon, moment: str) -> bool:
        """Kill the fetcher where there is one and chance says so, else the daemon; whether it was that."""
        assert running.process.poll() is None, "it ended by itself: " + "\n".join(running.log)
        fetchers = [] if self.dice.random() < 0.4 else fetchers_of(running.process.pid)
        for process in fetchers:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        if fetchers:
            self.count.kills[f"fetcher, {moment}"] += 1
            return False
        running.process.send_signal(signal.SIGKILL)
        running.wait()
        self.count.kills[f"daemon, {moment}"] += 1
        return True

    def end_well(self, server: BundleServer) -> None:
        """Without faults and kills the last version is installed, and judges."""
        server.fault_of = lambda _: None
        self.configure(server.url)
        with self.daemon() as running:
            wait_until(lambda: self.is_complete, "the last version is installed")
            heard = windows(running)
            wait_until(lambda: windows(running) > heard, "it judges with it")
            self.count.updates += 1
            assert running.stop() == 0, "\n".join(running.log)
        self.count.windows += windows(running)


def windows(running: RunningDaemon) -> int:
    """How many windows a daemon has judged."""
    return sum(json.loads(line)["topic"] == "score" for line in list(running.lines))


def fetchers_of(daemon: int) -> list[psutil.Process]:
    """The processes that fetch for a daemon."""
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(daemon).children()
        return [child for child in children if _is_fetcher(child)]
    return []


def _is_fetcher(process: psutil.Process) -> bool:
    try:
        return "asd_daemon.rollout.fetching" in process.cmdline()
    except psutil.Error:
        return False


def torment(
    kills: int, home: Path, seed: int = 0, pause_s: float = 1.2, tried: float = 0.25, longest_s: float = 60.0
) -> Count:
    """Roll out versions to a box that is killed so often.

    Raises:
        AssertionError: it was deaf, what was current was no bundle, or the last version did not come.
    """
    box = Torment(home, seed, pause_s, tried, longest_s)
    box.offer_next()
    with BundleServer(box.plant.www) as server:
        box.suffer(kills, server)
        box.end_well(server)
        box.count.answers = server.faults
    leftovers = list((box.root / "versions").glob(".incoming-*"))
    assert len(list((box.root / "versions").glob("[!.]*"))) <= 2, "old versions are deleted"
    assert not leftovers, leftovers
    return box.count


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="asd-rollout-") as folder:
        count = torment(given.kills, Path(folder), given.seed)
    sys.stdout.write(json.dumps(vars(count), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
