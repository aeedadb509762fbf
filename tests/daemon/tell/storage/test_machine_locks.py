"""One daemon a machine on this box."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from asd_daemon.errors import CannotStartError
from asd_daemon.tell.storage.machine_locks import MachineLocks, is_heard
from rig.daemon import ask, daemon_environment
from rig.waiting import PATIENT_S


def test_second_daemon_of_a_machine_is_refused_in_one_line(tmp_path: Path) -> None:
    first = MachineLocks(tmp_path, ["fan", "lathe"])
    with pytest.raises(CannotStartError, match=r"machine lathe is heard by another daemon .*\(process \d+\)"):
        MachineLocks(tmp_path, ["press", "lathe"])
    assert not is_heard(tmp_path, "press"), "what was taken before the refusal is let go"
    assert is_heard(tmp_path, "fan")
    other = MachineLocks(tmp_path, ["press"])
    other.close()
    first.close()
    assert not is_heard(tmp_path, "fan")
    MachineLocks(tmp_path, ["fan", "lathe"]).close()


def test_lock_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from asd_daemon.tell.storage.machine_locks import MachineLocks;"
        f"locks = MachineLocks(pathlib.Path({str(tmp_path)!r}), ['fan']); print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=daemon_environment(tmp_path),
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert is_heard(tmp_path, "fan")
        child.kill()
        child.wait(PATIENT_S)
    assert not is_heard(tmp_path, "fan")


def test_state_folder_that_cannot_be_made_costs_the_lock_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "state"
    blocked.write_text("a file where the folder should be")
    MachineLocks(blocked, ["fan"]).close()
    assert "a second daemon would not be noticed" in caplog.text


def test_run_beside_a_running_daemon_ends_with_exit_3_and_says_why(tmp_path: Path) -> None:
    locks = MachineLocks(tmp_path / "state", ["fan"])
    done = ask("run", "--machine", "fan", "--source", "simulate:fan", "--no-mqtt", home=tmp_path)
    locks.close()
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "machine fan is heard by another daemon on this box already" in done.stderr
