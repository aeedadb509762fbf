"""`asd-daemon watch`: what is read from status files and score logs, without a daemon, with two, with one that is gone; on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from asd_daemon.hear.source import SourceHealth
from asd_daemon.tell.payloads import Condition, MachineState
from asd_daemon.tell.storage.score_log import LoggedScore, ScoreLog
from asd_daemon.watch.counters import Counts
from asd_daemon.watch.live_view import LiveView
from asd_daemon.watch.report import MachineReport
from asd_daemon.watch.status import DaemonStatus, StatusFile, read_statuses, status_file
from asd_daemon.watch.watching import Watching
from rig.daemon import PROGRAM, RunningDaemon, ask, daemon_environment
from rig.waiting import PATIENT_S, wait_until

NOW = datetime.now(UTC)
NO_SYSTEM = Path("/none")


def report(
    scored: int, score: float, condition: Condition = Condition.NORMAL, event: str | None = None
) -> MachineReport:
    state = MachineState(condition, NOW, score=score, threshold=1.25, event_id=event)
    return MachineReport(state, Counts(heard=scored, scored=scored), SourceHealth())


class Daemons:
    """Status files of some daemons, as they write them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, StatusFile] = {}

    def write(self, node: str, **machines: MachineReport) -> None:
        file = self._files.get(node)
        if file is None:
            path = status_file(self.folder / "status", [node, *machines])
            file = self._files[node] = StatusFile(path, node=node, version="1", state_folder=self.folder)
        file.start(lambda: machines)

    def stop(self, node: str) -> None:
        self._files.pop(node).close()

    def read(self) -> list[DaemonStatus]:
        return read_statuses(self.folder / "status", time.monotonic(), NO_SYSTEM)


def without_time(lines: Any) -> list[str]:
    return [re.sub(r"^\d\d:\d\d:\d\d +", "", line) for line in lines]


def test_windows_alerts_and_the_end_are_seen_as_they_come(tmp_path: Path) -> None:
    daemons, watching = Daemons(tmp_path), Watching(LiveView(zone=UTC))
    daemons.write("box", fan=report(3, 0.625))
    assert without_time(watching.lines(daemons.read())) == ["box: asd-daemon 1 listens to fan", "fan  normal"]
    assert list(watching.lines(daemons.read())) == [], "a window that was there before is none"
    daemons.write("box", fan=report(4, 0.625))
    (line,) = without_time(watching.lines(daemons.read()))
    assert line.endswith("0.625 of 1.25  normal")
    daemons.write("box", fan=report(5, 2.5, Condition.ALERT, "e1"))
    told = without_time(watching.lines(daemons.read()))
    assert told[1:] == ["fan >>  ALERT, score 2.5 of 1.25", "fan  alert"]
    daemons.write("box", fan=report(6, 0.5))
    assert without_time(watching.lines(daemons.read()))[1:] == [
        "fan >>  ALERT is over, score 0.5 of 1.25",
        "fan  normal",
    ]
    daemons.stop("box")
    assert list(watching.lines(daemons.read())) == ["box: has stopped, or hears other machines now"]
    daemons.write("box", fan=report(1, 0.5))
    assert without_time(watching.lines(daemons.read()))[0] == "box: asd-daemon 1 listens to fan"


def test_two_daemons_of_two_nodes_are_told_apart(tmp_path: Path) -> None:
    daemons, watching = Daemons(tmp_path), Watching(LiveView(zone=UTC))
    daemons.write("east", fan=report(3, 0.625))
    daemons.write("west", fan=report(3, 0.625))
    told = without_time(watching.lines(daemons.read()))
    assert "east/fan  normal" in told
    assert "west/fan  normal" in told


def test_only_the_machines_that_were_asked_for_are_shown(tmp_path: Path) -> None:
    daemons, watching = Daemons(tmp_path), Watching(LiveView(zone=UTC), ["mill"])
    daemons.write("box", fan=report(3, 0.625), mill=report(3, 0.5))
    assert without_time(watching.lines(daemons.read())) == ["box: asd-daemon 1 listens to mill", "mill  normal"]


def test_scores_that_were_logged_are_shown_first_in_the_order_of_their_times(tmp_path: Path) -> None:
    daemons, watching = Daemons(tmp_path), Watching(LiveView(zone=UTC))
    log = ScoreLog(tmp_path / "scores.sqlite", every_s=1e9, days=90)
    for minutes, machine, value in ((9, "fan", 9.0), (3, "fan", 0.3), (2, "mill", 0.2), (1, "fan", 0.1)):
        log.add(LoggedScore(machine, datetime.now(UTC) - timedelta(minutes=minutes), value, 1.25, None))
    log.close()
    daemons.write("box", fan=report(3, 0.625), mill=report(3, 0.5))
    told = [re.findall(r"(\w+) +\[.*\] +([\d.]+) of", line)[0] for line in watching.past(daemons.read(), 5)]
    assert told == [("fan", "0.3"), ("mill", "0.2"), ("fan", "0.1")]


def test_watch_without_a_daemon_says_so(tmp_path: Path) -> None:
    done = ask("watch", home=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "no daemon is running here; `asd-daemon run` starts one\n"


def test_watch_on_the_file_of_a_daemon_that_is_gone_says_so(tmp_path: Path) -> None:
    daemons = Daemons(tmp_path / "state")
    daemons.write("box", fan=report(3, 0.625))
    (file,) = (tmp_path / "state" / "status").glob("*.json")
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    file.write_text(json.dumps({**json.loads(file.read_text()), "pid": gone.pid}))
    done = ask("watch", home=tmp_path)
    assert done.returncode == 1
    assert f"box: the daemon (process {gone.pid}) is gone; it did not stop in order" in done.stderr


def test_machine_that_no_daemon_hears_is_refused(tmp_path: Path) -> None:
    Daemons(tmp_path / "state").write("box", fan=report(3, 0.625))
    done = ask("watch", "--machine", "mill", home=tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: --machine 'mill': no daemon here hears it; machines: fan\n")


def test_watch_in_a_pipe_ends_with_its_reader(tmp_path: Path) -> None:
    with RunningDaemon(
        "run", "--no-mqtt", "--machine", "fan", "--source", "simulate:fan?speed=10", home=tmp_path
    ) as daemon:
        wait_until(lambda: any("listening to" in line for line in daemon.log), "it listens")
        environment = daemon_environment(tmp_path)
        with subprocess.Popen(
            [*PROGRAM, "watch"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as watch:
            assert watch.stdout is not None
            assert watch.stderr is not None
            assert "listens to fan" in watch.stdout.readline()
            watch.stdout.close()
            assert watch.wait(PATIENT_S) == 0
            assert watch.stderr.read() == ""


def test_watch_and_run_on_a_terminal_are_lines_of_its_width_and_end_cleanly_by_ctrl_c(tmp_path: Path) -> None:
    words = ["run", "--no-mqtt", "--machine", "fan", "--source", "simulate:fan?speed=10"]
    with Terminal(tmp_path, words) as run, Terminal(tmp_path, None) as watch:
        wait_until(lambda: run.text().count("normal") > 2, "run shows windows")
        watch.start(["watch"])
        wait_until(lambda: watch.text().count("normal") > 2, "watch shows windows")
        assert watch.interrupt() == 0
        assert run.interrupt() == 0
    for text in (run.text(), watch.text()):
        lines = text.replace("^C", "").splitlines()
        assert all(len(line) <= 80 for line in lines), [line for line in lines if len(line) > 80]
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text.replace("\r\n", "\n")), "no control codes"
        assert '"topic"' not in text
        assert "Traceback" not in text


class Terminal:
    """A program on a terminal of 80 columns."""

    def __init__(self, home: Path, words: list[str] | None) -> None:
        self._home, self._words, self._told = home, words, b""

    def __enter__(self) -> Terminal:
        self._ours, self._theirs = pty.openpty()
        os.set_blocking(self._ours, False)
        if self._words is not None:
            self.start(self._words)
        return self

    def start(self, words: list[str]) -> None:
        environment = {**daemon_environment(self._home), "COLUMNS": "80", "LINES": "24"}
        self.process = subprocess.Popen(
            [*PROGRAM, *words], env=environment, stdin=self._theirs, stdout=self._theirs, stderr=self._theirs
        )

    def text(self) -> str:
        try:
            while more := os.read(self._ours, 65_536):
                self._told += more
        except (BlockingIOError, OSError):
            pass
        return self._told.decode()

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENT_S)

    def __exit__(self, *_: object) -> None:
        self.text()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENT_S)
        os.close(self._ours)
        os.close(self._theirs)
