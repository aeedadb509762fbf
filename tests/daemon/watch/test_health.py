"""Counters, the word to systemd, and the log's limits."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from asd_daemon.watch.counters import Counters, Counts
from asd_daemon.watch.log import JsonFormatter, RepeatLimit, TextFormatter
from asd_daemon.watch.systemd import SystemdNotifier
from rig.waiting import PATIENT_S


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """What systemd listens on, and the address in NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        address = str(tmp_path / "notify") if request.param == "file" else f"@asd-test-{os.getpid()}"
        ear.bind("\0" + address[1:] if address.startswith("@") else address)
        ear.settimeout(PATIENT_S)
        yield ear, address


def said(ear: socket.socket) -> str:
    return ear.recv(4096).decode()


def test_notifier_says_ready_status_stopping(systemd: tuple[socket.socket, str]) -> None:
    ear, address = systemd
    notifier = SystemdNotifier({"NOTIFY_SOCKET": address})
    notifier.ready("fan normal")
    notifier.status("fan alert")
    notifier.stopping()
    assert [said(ear) for _ in range(3)] == ["READY=1\nSTATUS=fan normal", "STATUS=fan alert", "STOPPING=1"]


def test_watchdog_is_fed_only_when_every_machine_has_made_progress(systemd: tuple[socket.socket, str]) -> None:
    ear, address = systemd
    notifier = SystemdNotifier({"NOTIFY_SOCKET": address})
    for machine in ("fan", "lathe"):
        notifier.expect(machine)
    notifier.progressed("fan")
    notifier.progressed("fan")
    notifier.status("mark")
    notifier.progressed("lathe")
    assert [said(ear), said(ear)] == ["STATUS=mark", "WATCHDOG=1"]
    notifier.forget("lathe")
    notifier.progressed("fan")
    assert said(ear) == "WATCHDOG=1"


def test_notifier_without_systemd_does_nothing() -> None:
    SystemdNotifier({}).ready("fine")


def test_notifier_whose_socket_is_gone_complains_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notifier = SystemdNotifier({"NOTIFY_SOCKET": str(tmp_path / "none")})
    notifier.ready("a")
    notifier.status("b")
    assert len(caplog.records) == 1


def test_counters_from_many_threads_lose_nothing() -> None:
    counters = Counters()

    def work() -> None:
        for _ in range(500):
            counters.add(heard=1, gap_samples=3)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.now == Counts(heard=4000, gap_samples=12_000)
    assert counters.now + Counts(heard=1, opened=2) == Counts(heard=4001, gap_samples=12_000, opened=2)


def record(message: str, *arguments: object, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("asd", level, "file", 1, message, arguments, None)


def test_repeat_limit_lets_a_few_through_and_then_counts() -> None:
    now = [0.0]
    limit = RepeatLimit(most=2, period_s=60, clock=lambda: now[0])
    assert [limit.filter(record("lost %s", n)) for n in range(5)] == [True, True, False, False, False]
    assert limit.filter(record("something else"))
    now[0] = 61
    after = record("lost %s", 9)
    assert limit.filter(after)
    assert after.getMessage() == "lost 9 (and 3 more like it before)"


def test_repeats_of_one_machine_do_not_hide_what_is_said_of_another() -> None:
    limit = RepeatLimit(most=2, period_s=60, clock=lambda: 0.0)
    assert [limit.filter(record("%s: lost %d", "fan", n)) for n in range(4)] == [True, True, False, False]
    assert limit.filter(record("%s: lost %d", "pump", 1))


def test_repeats_of_ever_new_things_take_no_more_memory_than_some() -> None:
    now = iter(range(10_000))
    limit = RepeatLimit(most=2, period_s=1e9, clock=lambda: float(next(now)))
    assert all(limit.filter(record("%s: broken", f"file {n}")) for n in range(5000))
    assert len(limit._seen) <= 1000


def test_forms_of_the_log_are_one_line_with_utc_time() -> None:
    line = record("%s: lost", "fan")
    line.created = 0.5
    assert TextFormatter().format(line) == "1970-01-01T00:00:00.500Z warning: fan: lost"
    assert json.loads(JsonFormatter().format(line)) == {
        "at": "1970-01-01T00:00:00.500Z",
        "level": "warning",
        "message": "fan: lost",
        "logger": "asd",
        "thread": "MainThread",
        "subject": "fan",
        "template": "%s: lost",
    }
