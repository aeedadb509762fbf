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
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
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
from soak.board_report import BOARDS, Board, BoardReport

RESTART_S = 2.0  # of the unit
_MOST_STARTS, _NEVER_LISTENS_S = 5, 240.0
_TICK = threading.Event()
_EVERY_S = 0.25
_DROPPED = re.compile(r"stopped: .* (\d+) dropped")


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
        variables = {**mic.environment, "ASD_RUNTIME_DIR": str(folder / "run"), **compiled}
        run = BoardRun(report, folder, variables, group, heard)

        def play() -> None:
            for feeder in feeders:
                feeder.interrupt(sound)

        run.until_played(play, healthy_s + failing_s + repaired_s)
        report.peak_mb, report.killed = group.peak_mb, group.killed
        if report.killed:  # once more, with all the memory that there is: what waits is sent, what is open is closed
            run.in_peace(_NEVER_LISTENS_S)
        _count(report, heard, _kept(folder))
    return report


class BoardRun:
    """A daemon on a board, started again as its unit does."""

    def __init__(
        self,
        report: BoardReport,
        folder: Path,
        variables: Mapping[str, str],
        group: ControlGroup,
        heard: Subscriber,
    ) -> None:
        self._report, self._folder, self._variables, self._group = report, folder, variables, group
        self._watch, self._heard = Watch(report, group, heard), heard
        self._words = ("run", "--config", folder / "board.yaml", "--wait-for-device")
        self._end_s = time.monotonic() + _NEVER_LISTENS_S
        self._hog: subprocess.Popen[bytes] | None = None

    def until_played(self, play: Callable[[], None], seconds: float) -> None:
        """Have the sound played when it first listens, and start the daemon again until so many seconds are over."""
        report, begin_s, plays = self._report, time.monotonic(), False
        while time.monotonic() < self._end_s and report.starts < _MOST_STARTS:
            report.starts += 1
            with RunningDaemon(
                *self._words, home=self._folder, more=self._variables, before=self._group.prefix
            ) as daemon:
                since_s, used_then_s, used_s = 0.0, 0.0, 0.0
                while daemon.process.poll() is None and time.monotonic() < self._end_s:
                    _TICK.wait(_EVERY_S)
                    used_s = self._watch.look(daemon)
                    self._eat()
                    if since_s or not _listens(daemon):
                        continue
                    since_s, used_then_s = time.monotonic(), used_s
                    if not plays:
                        report.start_s, report.start_processor_s = since_s - begin_s, used_s
                        play()
                        plays, self._end_s = True, time.monotonic() + seconds
                if daemon.process.poll() is not None:
                    report.last_words = f"ended by {daemon.process.returncode}"
                    _TICK.wait(RESTART_S)
                elif since_s:
                    report.processor = (used_s - used_then_s) / (time.monotonic() - since_s)
                    daemon.stop()
                report.dropped += sum(int(found[1]) for line in daemon.log if (found := _DROPPED.search(line)))
                (self._folder / f"daemon-{report.starts}.log").write_text("".join(daemon.log))

    def in_peace(self, seconds: float) -> None:
        """Let it run outside the group until all that it has kept is told and closed, or so many seconds are over."""
        end_s = time.monotonic() + seconds
        with RunningDaemon(*self._words, home=self._folder, more=self._variables) as daemon:
            while time.monotonic() < end_s:
                _TICK.wait(2.0)
                opened, closed = _told(self._heard)
                if opened == closed and _kept(self._folder) <= opened and _listens(daemon):
                    break
            daemon.stop()

    def _eat(self) -> None:
        """Let another program of the board take memory while an alert is open."""
        if self._report.board.eats_mb and self._hog is None and _told(self._heard)[0]:
            code = "import sys, time; held = bytearray(int(sys.argv[1]) << 20); time.sleep(20)"
            words = [*self._group.prefix, sys.executable, "-c", code, str(self._report.board.eats_mb)]
            self._hog = subprocess.Popen(words)
        elif self._hog is not None:
            self._hog.poll()


def _told(heard: Subscriber) -> tuple[set[str], set[str]]:
    """Alerts whose opening, and whose end, has arrived."""
    alerts = heard.of("/alert")
    opened, closed = ({a["event_id"] for a in alerts if a["kind"] == kind} for kind in ("open", "close"))
    return opened, closed


def _kept(folder: Path) -> set[str]:
    """Alerts that the daemon has on its disk."""
    lines = ask("alerts", "list", "--json", home=folder).stdout.splitlines()
    return {json.loads(line)["event_id"] for line in lines}


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


def _count(report: BoardReport, heard: Subscriber, kept: set[str]) -> None:
    opened, closed = _told(heard)
    report.opened, report.closed = len(opened), len(closed)
    report.unclosed, report.lost = len(opened - closed), len(kept - opened)


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
