"""Counters, the word to systemd, and the log's limits."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from asd_daemon.watch.counters import Counters, Counts
from asd_daemon.watch.log import (
    JournalFormatter,
    JsonFormatter,
    MachineNamed,
    RepeatLimit,
    TextFormatter,
    is_the_journal,
    speak_of,
)
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


def record(message: str, *arguments: object, level: int = logging.WARNING, name: str = "asd") -> logging.LogRecord:
    return logging.LogRecord(name, level, "file", 1, message, arguments, None)


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


SOURCE = "asd_daemon.hear.sources.microphone"


def named(machine: str, line: logging.LogRecord) -> logging.LogRecord:
    """The line as a thread that speaks of a machine logs it."""

    def work() -> None:
        speak_of(machine)
        MachineNamed().filter(line)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return line


def test_line_of_a_source_says_of_which_machine_it_is_and_is_counted_for_it() -> None:
    limit = RepeatLimit(most=2, period_s=60, clock=lambda: 0.0)
    lines = [named(machine, record("%s: sound is back after %.1f s", "mic", 2.0, name=SOURCE)) for machine in "aaab"]
    assert [limit.filter(line) for line in lines] == [True, True, False, True]
    assert lines[0].getMessage() == "a: mic: sound is back after 2.0 s"
    assert json.loads(JsonFormatter().format(lines[3]))["subject"] == "b"


def test_line_that_names_its_machine_or_is_of_none_stays_as_it_is() -> None:
    assert named("fan", record("%s: lost", "fan", name=SOURCE)).getMessage() == "fan: lost"
    assert named("fan", record("usual level 100 %", name=SOURCE)).getMessage() == "fan: usual level 100 %"
    of_none = record("%s: lost", "mic", name=SOURCE)
    MachineNamed().filter(of_none)
    assert of_none.getMessage() == "mic: lost"
    assert named("fan", record("listening to fan, mill")).getMessage() == "listening to fan, mill", "of all of them"


@pytest.mark.parametrize(
    ("level", "said"),
    [
        (logging.DEBUG, "<7>debug: lost"),
        (logging.INFO, "<6>lost"),
        (logging.WARNING, "<4>warning: lost"),
        (logging.ERROR, "<3>error: lost"),
        (logging.CRITICAL, "<2>critical: lost"),
    ],
)
def test_line_for_the_journal_begins_with_its_priority(level: int, said: str) -> None:
    assert JournalFormatter(TextFormatter(with_time=False)).format(record("lost", level=level)) == said


def test_every_line_of_a_traceback_has_the_priority() -> None:
    line = record("broke", level=logging.ERROR)
    try:
        raise ValueError("why")
    except ValueError:
        line.exc_info = sys.exc_info()
    told = JournalFormatter(TextFormatter(with_time=False)).format(line).splitlines()
    assert len(told) > 3
    assert all(one.startswith("<3>") for one in told)


def test_journal_is_known_by_the_file_that_systemd_names(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "other").open("w") as other:
        found = os.fstat(stream.fileno())
        environment = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_the_journal(stream.fileno(), environment)
        assert not is_the_journal(other.fileno(), environment), "the log goes elsewhere"
        assert not is_the_journal(stream.fileno(), {})
