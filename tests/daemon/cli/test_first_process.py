"""The first process of a container hears SIGTERM from the start, though the kernel does nothing by default there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rig.daemon import daemon_environment
from rig.waiting import PATIENT_S

_UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
_PROGRAM = [sys.executable, "-c", "from asd_daemon.cli.program import main; main()"]


def may_unshare() -> bool:
    try:
        return subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False, timeout=PATIENT_S).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not may_unshare(), reason="this user may not make a PID namespace")
def test_first_process_ends_on_sigterm_before_run_has_begun(tmp_path: Path) -> None:
    configuration = tmp_path / "asd.yaml"
    os.mkfifo(configuration)  # reading it lasts until somebody writes
    words = [*_UNSHARE, *_PROGRAM, "run", "--machine", "fan", "--config", str(configuration)]
    outer = subprocess.Popen(words, env=daemon_environment(tmp_path), stderr=subprocess.PIPE, text=True)
    try:
        with configuration.open("w"):  # waits until the program has begun to read
            (first,) = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
            os.kill(int(first), signal.SIGTERM)
            _, told = outer.communicate(timeout=PATIENT_S)
    finally:
        outer.kill()
        outer.wait(PATIENT_S)
    assert told == "stopped: by SIGTERM\n"
    assert outer.returncode == 128 + signal.SIGTERM
