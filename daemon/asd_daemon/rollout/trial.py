"""A new bundle beside the present one: a process of its own judges the same windows, as they are heard; nothing of it is told as an alert.

Windows go to the process through a pipe, from a thread that takes them from a short queue: when the process is slow they are dropped and
counted, and no judging thread waits. No sound is written to disk. Owns the queue, the process and what is counted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.alarm.alarm import Alarm
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.judge.scoring.bounded_self_test import FROM_OUTSIDE
from asd_daemon.judge.scoring.verdict import Verdict
from asd_daemon.rollout.fetcher import child_environment
from asd_daemon.rollout.returning import ALERT_COUNTS_AGAIN, JudgedMachine
from asd_daemon.rollout.rollout_state import MachineTrial, TrialRecord

_LOG = logging.getLogger(__name__)
_MOST_WAITING = 8  # of 0.6 MB each
F32 = NDArray[np.float32]


@dataclass(frozen=True)
class TriedWindow:
    """A window that the present bundle has judged."""

    machine: str
    at: datetime
    waveform: F32
    is_above: bool


Job = Callable[[Path, Path, Sequence[JudgedMachine]], dict[str, Any]]
"""What the process is told first: the candidate's folder, the key and the machines → JSON."""


class Trial:
    """One at a time; `hear` from the judging threads, the rest from the rollout's.

    Args:
        module: the process's, run by `python -m`.
        job: what it is told first.
        rule: when a machine's alert opens.
    """

    def __init__(self, module: str, job: Job, rule: Callable[[str], AlarmRule]) -> None:
        self._module, self._job, self._rule = module, job, rule
        self._names: frozenset[str] = frozenset()
        self._waiting: queue.Queue[TriedWindow | None] = queue.Queue(_MOST_WAITING)
        self._said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._alarms: dict[str, Alarm] = {}
        self._quiet: set[str] = set()  # machines of which the new one has no alert open
        self._process: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []
        self._dropped = 0
        self.trouble = ""
        """Why the process ended last, in words."""

    @property
    def is_running(self) -> bool:
        """Whether a process judges."""
        return self._process is not None

    def hear(self, machine: str, waveform: F32, verdict: Verdict) -> None:
        """A window, and what the present bundle says of it; never waits."""
        if machine not in self._names or verdict.is_off:
            return
        try:
            self._waiting.put_nowait(TriedWindow(machine, datetime.now(UTC), waveform, verdict.anomalous))
        except queue.Full:
            self._dropped += 1

    def start(self, folder: Path, key: Path, machines: Sequence[JudgedMachine]) -> None:
        """Begin, or go on after the process ended.

        Args:
            folder: of the new bundle.
            key: the public key that must have signed it.
            machines: those that are judged by the bundle.
        """
        self.stop()
        self._waiting, self._said = queue.Queue(_MOST_WAITING), queue.SimpleQueue()
        self._alarms = {machine.name: Alarm(self._rule(machine.name)) for machine in machines}
        self._quiet = set(self._alarms)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                env=child_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        except OSError as e:
            self._said.put({"error": f"its process can't be started: {e.strerror or e}"})
            return
        self._process = process
        first = json.dumps(self._job(folder, key, machines)).encode() + b"\n"
        work = ((self._write, (process, self._waiting, first)), (self._read, (process, self._said)))
        self._threads = [threading.Thread(target=do, args=args, name="trial", daemon=True) for do, args in work]
        for thread in self._threads:
            thread.start()
        self._names = frozenset(self._alarms)

    def collect(self, record: TrialRecord) -> None:
        """Count what was said since."""
        record.dropped, self._dropped = record.dropped + self._dropped, 0
        while not self._said.empty():
            said = self._said.get()
            if "error" in said:
                self.trouble = said["error"]
                if said.get("killed"):
                    record.kills += 1
                else:
                    record.failures += 1
                self.stop()
                return
            machine = record.machines.setdefault(said["machine"], MachineTrial())
            at = datetime.fromisoformat(said["at"])
            machine.windows += 1
            machine.cpu_s += said["cpu_s"]
            machine.old_above += said["old_above"]
            machine.new_above += said["score"] > said["threshold"]
            record.peak_mb = max(record.peak_mb, said["peak_mb"])
            alarm = self._alarms[said["machine"]]
            alarm.update(said["score"], said["threshold"], at)
            is_new = (
                not machine.opened or at - machine.opened[-1] >= ALERT_COUNTS_AGAIN or said["machine"] in self._quiet
            )
            if alarm.open_alert is None:
                self._quiet.add(said["machine"])
            elif is_new:
                machine.opened.append(at)
                self._quiet.discard(said["machine"])

    def stop(self) -> None:
        """End the process, if there is one."""
        self._names = frozenset()
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with contextlib.suppress(queue.Full):  # else its thread finds the pipe closed
            self._waiting.put_nowait(None)
        process.wait()

    @staticmethod
    def _write(process: subprocess.Popen[bytes], waiting: queue.Queue[TriedWindow | None], first: bytes) -> None:
        assert process.stdin is not None  # noqa: S101  # a pipe
        try:
            with process.stdin as pipe:
                pipe.write(first)
                pipe.flush()
                while (window := waiting.get()) is not None:
                    head = {
                        "machine": window.machine,
                        "at": window.at.isoformat(),
                        "old_above": window.is_above,
                        "shape": window.waveform.shape,
                    }
                    pipe.write(json.dumps(head).encode() + b"\n")
                    pipe.write(np.ascontiguousarray(window.waveform, np.float32).tobytes())
                    pipe.flush()
        except (BrokenPipeError, ValueError):  # it has ended, which the other thread tells
            pass

    def _read(self, process: subprocess.Popen[bytes], said: queue.SimpleQueue[dict[str, Any]]) -> None:
        assert process.stdout is not None  # noqa: S101  # a pipe
        failed = False
        with process.stdout as pipe:
            for line in pipe:
                words = json.loads(line)
                failed = failed or "error" in words
                said.put(words)
        code = process.wait()
        if self._process is process and not failed:
            if -code in FROM_OUTSIDE:
                how = f"its process was ended by signal {signal.Signals(-code).name}"
                said.put({"error": f"{how}, for want of memory probably", "killed": True})
            else:
                said.put({"error": f"its process ended with code {code}"})
