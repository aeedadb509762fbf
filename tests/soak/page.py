"""`python -m soak.page`: the page under load beside a daemon that listens; what must hold is that no window is lost.

Three simulated machines at real time, 100 browsers that watch and never stop reading, 20 that never read, 10 000 requests with something
wrong in them, histories asked for all the while. Told: windows heard and dropped, memory of the page, how soon a browser paints.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from rig.broker import HOST
from rig.browser import DESKTOP, PHONE, browser, chromium, window
from rig.daemon import RunningDaemon
from rig.nonsense import nonsense
from rig.page import RunningPage, raw
from rig.waiting import wait_until

MACHINES = ("fan", "gearbox", "valve")
WATCHERS, DEAF_WATCHERS, REQUESTS = 100, 20, 10_000
MOST_MB = 60.0


def counts(home: Path) -> dict[str, int]:
    """Windows of all machines, by the daemon's status file."""
    (file,) = (home / "state" / "status").glob("status-*.json")
    machines = json.loads(file.read_text())["machines"].values()
    return {
        what: sum(machine["counts"][what] for machine in machines) for what in ("heard", "scored", "dropped", "gaps")
    }


class Watchers:
    """Browsers that look at all machines."""

    def __init__(self, port: int) -> None:
        self._port, self._stop = port, threading.Event()
        self.read_bytes = 0
        self._deaf = [self._connect() for _ in range(DEAF_WATCHERS)]
        self._threads = [threading.Thread(target=self._watch, daemon=True) for _ in range(WATCHERS)]
        for thread in self._threads:
            thread.start()

    def _connect(self) -> socket.socket:
        connection = socket.create_connection((HOST, self._port), 30)
        wanted = "&".join(f"sound={machine}" for machine in MACHINES)
        connection.sendall(f"GET /events?{wanted} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return connection

    def _watch(self) -> None:
        with self._connect() as connection:
            while not self._stop.is_set() and (got := connection.recv(65_536)):
                self.read_bytes += len(got)

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        for connection in self._deaf:
            connection.close()


def paint_s(page: RunningPage, size: tuple[int, int]) -> list[float]:
    """Seconds until something is painted, of nine visits by a browser that knows nothing yet."""
    found = []
    with browser() as started:
        for _ in range(9):
            with window(started, size) as tab:
                tab.goto(page.origin)
                tab.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length")
                found.append(
                    tab.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
                )
    return found


def load(page: RunningPage, requests: int) -> None:
    """Requests with something wrong in them, and now and then what a history asks for."""
    draw = random.Random(7)
    for number in range(requests):
        raw(page.port, nonsense(draw), within_s=0.02)
        if number % 50 == 0:
            assert page.ask("/api/scores?machine=fan").status == 200
            assert page.ask("/alerts").status == 200


def main(words: list[str]) -> int:
    """Measure, print, and say whether it held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=REQUESTS)
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        machines: dict[str, Any] = {name: {"source": {"simulate": name}} for name in MACHINES}
        (home / "c.json").write_text(json.dumps({"node": "soak", "machines": machines}))
        with RunningDaemon("run", "--config", home / "c.json", home=home) as daemon, RunningPage(home) as page:
            wait_until(lambda: any(home.glob("state/status/status-*.json")) and counts(home)["scored"] > 3, "windows")
            idle_mb, before, begun_s = page.resident_mb, counts(home), time.monotonic()
            watchers = Watchers(page.port)
            load(page, given.requests)
            wait_until(lambda: counts(home)["heard"] - before["heard"] >= 12 * len(MACHINES), "two minutes of windows")
            busy_mb, took_s, after = page.resident_mb, time.monotonic() - begun_s, counts(home)
            paints = (
                {name: paint_s(page, size) for name, size in (("desktop", DESKTOP), ("phone", PHONE))}
                if chromium()
                else {}
            )
            watchers.close()
            is_up = page.ask("/").status == 200
            defects = page.log.count("Traceback")
            daemon.stop()
    lines = [
        f"{after['heard'] - before['heard']} windows heard in {took_s:.0f} s under load, {after['dropped']} dropped, {after['gaps']} gaps",
        f"page: {idle_mb:.0f} MB idle, {busy_mb:.0f} MB after; {watchers.read_bytes / 1e6:.0f} MB read by watchers; {defects} defects",
    ]
    for name, seconds in paints.items():
        lines.append(
            f"first paint, {name}, under load: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s"
        )
    holds = after["dropped"] == after["gaps"] == defects == 0 and busy_mb <= MOST_MB and is_up
    sys.stdout.write("\n".join([*lines, "holds" if holds else "DOES NOT HOLD"]) + "\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
