"""`python -m soak.small_board`: the daemon with microphones and a broker in as much memory and processor as a small board has (wants root).

A fan is healthy, rubs for a while and is repaired, in real time, through virtual microphones. The daemon and its recorders run in a
control group with so much memory, no swap, and a share of one core; sound server, broker and listener run outside. What ends the daemon is
waited out as its unit does, two seconds, then it is started again.

The share **stands for** a board, it does not equal one. A Cortex-A53 of 1 GHz in a Pi Zero 2 W has a third of the clock of a server's core,
starts two instructions at a time in order, and multiplies 4 numbers in the time in which the other multiplies 16: between 1/9 (plain
programs) and 1/20 (arithmetic) of a core. 0.08 is a guess in between, 0.25 one for a Cortex-A72 of a Pi 4; no board was at hand. Caches,
memory and card of a board are slower still, and the kernel hands the share out in slices of 100 ms. On the other hand a board has four such
cores, and here all processes share one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_S
from rig import control_group, microphone
from rig.broker import Broker, Subscriber
from rig.control_group import ControlGroup
from rig.daemon import RunningDaemon, ask
from rig.ears import simulated_fan
from rig.feeder import Feeder, as_s16

RESTART_S = 2.0  # of the unit
_MOST_RESTARTS = 5
_TICK = threading.Event()
_EVERY_S = 0.25
_DROPPED = re.compile(r"stopped: .* (\d+) dropped")


@dataclass(frozen=True)
class Board:
    """What the daemon gets."""

    name: str
    memory_mb: int
    processors: float
    microphones: int = 1
    keeps: bool = True
    """Whether all that is asked must hold; else it is found out how it ends."""


BOARDS = (
    Board("Pi Zero 2 W, 512 MB", 512, 0.08),
    Board("Pi 4, 512 MB, 4 microphones", 512, 0.25, microphones=4),
    Board("256 MB", 256, 0.08),
    Board("160 MB", 160, 0.08),
    Board("128 MB", 128, 0.08, keeps=False),
    Board("96 MB", 96, 0.25, keeps=False),
    Board("64 MB", 64, 0.25, keeps=False),
)


@dataclass
class BoardReport:
    """What came of it."""

    board: Board
    start_s: float = float("nan")
    """By the clock, from the first start until it listens."""
    start_processor_s: float = float("nan")
    """Of the processor till then, recorders included."""
    daemon_mb: float = 0.0
    """Most resident memory of the daemon, libraries that it shares with the recorder included."""
    recorder_mb: float = 0.0
    """Most of a recorder."""
    anonymous_mb: float = 0.0
    """Most of the group that can't be dropped."""
    peak_mb: float = 0.0
    killed: int = 0
    starts: int = 0
    delays_s: list[float] = field(default_factory=list)
    """From the end of each window until its score was there."""
    processor: float = float("nan")
    """Share of a core while it listens, windows included."""
    opened: int = 0
    closed: int = 0
    unclosed: int = 0
    dropped: int = 0
    last_words: str = ""

    def faults(self) -> list[str]:
        """What is not as it must be."""
        found = []
        if self.board.keeps:
            if self.killed or self.starts > 1:
                found.append(f"{self.killed} processes killed, started {self.starts} times")
            if self.opened < self.board.microphones or self.dropped:
                found.append(f"{self.opened} alerts, {self.dropped} windows dropped")
        if self.unclosed and not self.killed:
            found.append(f"{self.unclosed} alerts never closed")
        return found

    def line(self) -> str:
        """All of it in words."""
        delay = f"{statistics.median(self.delays_s):.2f} s, at most {max(self.delays_s):.2f}" if self.delays_s else "–"
        return (
            f"{self.board.name} ({self.board.processors:g} of a core): listens after {self.start_s:.1f} s"
            f" ({self.start_processor_s:.2f} s of processor); daemon {self.daemon_mb:.0f} MB, recorder {self.recorder_mb:.0f} MB,"
            f" group {self.anonymous_mb:.0f} MB that can't be dropped, {self.peak_mb:.0f} MB with files; {self.processor:.1%} of a core;"
            f" {len(self.delays_s)} windows, scored after {delay}; {self.dropped} dropped; {self.killed} killed, {self.starts} starts;"
            f" {self.opened} alerts opened, {self.closed} closed{f'; {self.last_words}' if self.last_words else ''}"
        )


class Watch:
    """Looks at a daemon in its group while it runs."""

    def __init__(self, report: BoardReport, group: ControlGroup, heard: Subscriber) -> None:
        self._report, self._group, self._heard, self._seen = report, group, heard, 0

    def look(self, daemon: RunningDaemon) -> float:
        """Take the readings; seconds of processor so far."""
        report, used_s = self._report, 0.0
        report.anonymous_mb = max(report.anonymous_mb, self._group.anonymous_mb)
        with contextlib.suppress(psutil.NoSuchProcess):
            own = psutil.Process(daemon.process.pid)
            report.daemon_mb = max(report.daemon_mb, own.memory_info().rss / 2**20)
            used_s += sum(own.cpu_times()[:2])
            for child in own.children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    used_s += sum(child.cpu_times()[:2])
                    if "asd_daemon.hear" in " ".join(child.cmdline()):
                        report.recorder_mb = max(report.recorder_mb, child.memory_info().rss / 2**20)
        now_s, messages = time.time(), self._heard.messages
        for message in messages[self._seen :]:
            self._seen += 1
            if message.topic.endswith("/score"):
                report.delays_s.append(now_s - _time(message.payload) - WINDOW_S)
        return used_s


def _time(payload: dict[str, Any]) -> float:
    return datetime.fromisoformat(payload["at"]).timestamp()


def listen(
    board: Board,
    folder: Path,
    compiled: Mapping[str, str],
    healthy_s: int = 40,
    failing_s: int = 50,
    repaired_s: int = 110,
) -> BoardReport:
    """Run through it on one board; `compiled` says where modules are kept compiled."""
    folder.mkdir(parents=True)
    ear = simulated_fan()
    well, ill = as_s16(ear.healthy), as_s16(ear.failing)
    rate = SAMPLE_RATE_HZ
    sound = np.concatenate(
        [np.resize(well, healthy_s * rate), np.resize(ill, failing_s * rate), np.resize(well, 600 * rate)]
    )
    report = BoardReport(board)
    names = [microphone.NAME, *(f"{microphone.NAME}-{n}" for n in range(1, board.microphones))]
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Broker(folder / "broker"))
        heard = stack.enter_context(Subscriber(broker.port, "asd/box/#"))
        mic = stack.enter_context(microphone.VirtualMicrophone(folder / "v", others=board.microphones - 1))
        feeders = [stack.enter_context(Feeder(fifo)) for fifo in (mic.fifo, *mic.other_fifos)]
        for feeder in feeders:
            feeder.play(np.resize(well, 600 * rate))
        machines = {
            f"fan-{n}": {"source": {"device": name, "rate_hz": rate}, "model": "fan"} for n, name in enumerate(names)
        }
        content = {"node": "box", "machines": machines, "mqtt": {"host": "127.0.0.1", "port": broker.port}}
        (folder / "board.yaml").write_text(json.dumps(content))
        group = stack.enter_context(ControlGroup("asd-board", board.memory_mb * 2**20, board.processors))
        watch, plays, begin_s = Watch(report, group, heard), False, time.monotonic()
        end_s = begin_s + 240  # where it never listens
        while time.monotonic() < end_s and report.starts < _MOST_RESTARTS:
            report.starts += 1
            words = ["run", "--config", folder / "board.yaml", "--wait-for-device"]
            more = {**mic.environment, "ASD_RUNTIME_DIR": str(folder / "run"), **compiled}
            with RunningDaemon(*words, home=folder, more=more, before=group.prefix) as daemon:
                at_start = (0.0, 0.0)
                while daemon.process.poll() is None and time.monotonic() < end_s:
                    _TICK.wait(_EVERY_S)
                    used_s = watch.look(daemon)
                    if not at_start[0] and _listens(daemon):
                        at_start = (time.monotonic(), used_s)
                        if not plays:
                            report.start_s, report.start_processor_s = at_start[0] - begin_s, used_s
                            for feeder in feeders:
                                feeder.interrupt(sound)
                            plays, end_s = True, time.monotonic() + healthy_s + failing_s + repaired_s
                if daemon.process.poll() is None:
                    if at_start[0]:
                        report.processor = (used_s - at_start[1]) / (time.monotonic() - at_start[0])
                    daemon.stop()
                else:
                    report.last_words = f"ended by {daemon.process.returncode}"
                    _TICK.wait(RESTART_S)
                report.dropped += sum(int(found[1]) for line in daemon.log if (found := _DROPPED.search(line)))
                (folder / f"daemon-{report.starts}.log").write_text("".join(daemon.log))
        report.peak_mb, report.killed = group.peak_mb, group.killed
        _count(report, heard)
    return report


def compiled_modules(folder: Path) -> dict[str, str]:
    """What makes a daemon start as one that is installed: with its modules compiled, wherever the checkout lies."""
    variables = {"PYTHONPYCACHEPREFIX": str(folder / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
    words = ["run", "--machine", "fan", "--source", "simulate:fan?seconds=10&speed=max", "--no-mqtt"]
    with microphone.VirtualMicrophone(folder / "v") as mic:
        once = ask(*words, home=folder, more=variables)
        recorder = ask("devices", home=folder, more={**variables, **mic.environment})
    assert once.returncode == recorder.returncode == 0, once.stderr + recorder.stderr
    return variables


def _listens(daemon: RunningDaemon) -> bool:
    """Whether it listens to its machines, of which it speaks in one line."""
    return any("listening to" in line for line in list(daemon.log))


def _count(report: BoardReport, heard: Subscriber) -> None:
    alerts = heard.of("/alert")
    opened, closed = ({a["event_id"] for a in alerts if a["kind"] == kind} for kind in ("open", "close"))
    report.opened, report.closed, report.unclosed = len(opened), len(closed), len(opened - closed)


def main() -> int:
    """One board after the other; 1 where something does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="boards whose name has this in it")
    parser.add_argument("--keep", type=Path, help="leave logs and state in this folder")
    wanted = parser.parse_args()
    if (why := control_group.missing() or microphone.missing()) is not None:
        sys.stdout.write(f"skipped: {why}\n")
        return 0
    well = True
    with tempfile.TemporaryDirectory(prefix="asd-board-") as name:
        compiled = compiled_modules(Path(name))
        for number, board in enumerate(BOARDS):
            if wanted.only and wanted.only not in board.name:
                continue
            report = listen(board, (wanted.keep or Path(name)) / str(number), compiled)
            sys.stdout.write(f"{report.line()}; load {os.getloadavg()[0]:.0f}\n")
            for fault in report.faults():
                sys.stdout.write(f"FAULT: {fault}\n")
                well = False
            sys.stdout.flush()
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
