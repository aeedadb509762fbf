"""The daemon as a real process, and its words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from rig.waiting import PATIENT_S

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-c", "from asd_daemon.cli.program import main; main()"]


def daemon_environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment that touches nothing of the user's; the package is found without being installed."""
    quiet = {k: v for k, v in os.environ.items() if not k.startswith(("ASD_", "NOTIFY_", "XDG_"))}
    return {
        **quiet,
        "HOME": str(home),
        "ASD_STATE_DIR": str(home / "state"),
        "ASD_CONFIG": "",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "daemon"), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        **(more or {}),
    }


def ask(
    *words: object, home: Path, more: Mapping[str, str] | None = None, program: Sequence[str] = PROGRAM
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*program, *map(str, words)],
        env=daemon_environment(home, more),
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENT_S,
    )


class RunningDaemon:
    """`with RunningDaemon("run", …, home=folder) as daemon:`; what is left of it is killed at the end."""

    def __init__(
        self,
        *words: object,
        home: Path,
        more: Mapping[str, str] | None = None,
        reads: bool = True,
        before: Sequence[str] = (),
        program: Sequence[str] = PROGRAM,
    ) -> None:
        """`before` are words of a program that becomes the daemon, which is `program`."""
        self._command, self._reads = [*before, *program, *map(str, words)], reads
        self._environment = daemon_environment(home, more)
        self.lines: list[str] = []
        self.log: list[str] = []

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        pipes = [(self.log, self.process.stderr)]
        if self._reads:
            pipes.append((self.lines, self.process.stdout))
        else:
            self.process.stdout.close()
        self._readers = [threading.Thread(target=keep.extend, args=(pipe,), daemon=True) for keep, pipe in pipes]
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def stop(self) -> int:
        """Ask it to stop as systemd does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_s: float = PATIENT_S) -> int:
        """Wait for its end and for its last words; its exit code."""
        code = self.process.wait(timeout_s)
        for reader in self._readers:
            reader.join(timeout_s)
        return code
