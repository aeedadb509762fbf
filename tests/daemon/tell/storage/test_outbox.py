"""Alerts on disk: order, durability, bounds, and disks that are full, read-only, broken or late."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from asd_daemon.judge.alarm.alarm import AlertKind
from asd_daemon.tell.storage.outbox import Outbox
from rig.disk import fill, small_disk

MACHINES = ["fan"]


def put(outbox: Outbox, number: int, kind: AlertKind = AlertKind.OPEN, memory: bytes | None = None) -> None:
    outbox.put("fan", "t", str(number).encode(), kind=kind, event_id=f"event-{number}", memory=memory)


def contents(outbox: Outbox) -> list[int]:
    """What waits, taken out in order."""
    found = []
    while (alert := outbox.next(0.0)) is not None:
        found.append(int(alert.payload))
        outbox.delivered(alert.key)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "alerts.sqlite"


def test_put_when_the_process_dies_at_once_is_still_there_in_order(file: Path) -> None:
    outbox = Outbox(file, MACHINES)
    for number in range(5):
        put(outbox, number, memory=b"m%d" % number)
    first = outbox.next(0.0)
    assert first is not None
    outbox.delivered(first.key)
    again = Outbox(file, MACHINES)  # the first one was never closed
    assert again.memory("fan") == b"m4"
    assert contents(again) == [1, 2, 3, 4]
    assert len(Outbox(file, MACHINES)) == 0


def test_put_alert_and_memory_are_one_transaction(file: Path) -> None:
    outbox = Outbox(file, MACHINES)
    put(outbox, 1, memory=b"open")
    with sqlite3.connect(file) as database:
        database.execute("create trigger fails before insert on memory begin select raise(abort, 'no'); end")
    database.close()
    put(outbox, 2, memory=b"closed")
    assert outbox.write_error is not None
    late = Outbox(file, MACHINES)
    assert (late.memory("fan"), len(late)) == (b"open", 1)


def test_messages_of_other_machines_are_left_to_their_daemon(file: Path) -> None:
    Outbox(file, ["lathe"]).put("lathe", "t", b"1", kind=AlertKind.OPEN, event_id="l")
    fan = Outbox(file, ["fan"])
    put(fan, 2)
    assert contents(fan) == [2]
    assert contents(Outbox(file, ["fan", "lathe"])) == [1]


def put_of(outbox: Outbox, machine: str, number: int) -> None:
    outbox.put(machine, "t", str(number).encode(), kind=AlertKind.OPEN, event_id=f"{machine}-{number}")


def test_messages_of_two_processes_that_have_the_same_places_are_all_sent_by_one_that_hears_both(file: Path) -> None:
    for machine, numbers in (("fan", (1, 2)), ("lathe", (11, 12, 13))):
        alone = Outbox(file, [machine])
        for number in numbers:
            put_of(alone, machine, number)
    both = contents(Outbox(file, ["fan", "lathe"]))
    assert [n for n in both if n < 10] == [1, 2], "each machine's in order"
    assert [n for n in both if n > 10] == [11, 12, 13]
    assert contents(Outbox(file, ["fan", "lathe"])) == [], "and none again"


def test_machine_that_is_taken_up_later_brings_what_waits_and_is_let_go_with_it(file: Path) -> None:
    other = Outbox(file, ["lathe"])
    put_of(other, "lathe", 11)
    other.remember("lathe", b"knows")
    fan = Outbox(file, ["fan"])
    put_of(fan, "fan", 1)
    fan.take_up(["lathe"])
    assert fan.memory("lathe") == b"knows"
    assert len(fan) == 2
    put_of(fan, "lathe", 12)
    fan.let_go(["lathe"])
    assert (len(fan), fan.memory("lathe")) == (1, None)
    assert contents(Outbox(file, ["lathe"])) == [11, 12]
    assert contents(fan) == [1]


def test_full_box_gives_up_the_oldest_update_first_and_counts(file: Path) -> None:
    outbox = Outbox(file, MACHINES, limit=3)
    for number, kind in enumerate(
        (AlertKind.OPEN, AlertKind.UPDATE, AlertKind.UPDATE, AlertKind.CLOSE, AlertKind.OPEN)
    ):
        put(outbox, number, kind)
    assert outbox.dropped == 2
    put(outbox, 5)
    assert outbox.dropped == 3
    assert contents(Outbox(file, MACHINES)) == [3, 4, 5]


def test_file_that_is_no_database_is_set_aside_and_alerts_go_on(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"this was a database once" * 100)
    outbox = Outbox(file, MACHINES, now_s=lambda: 0.0)
    put(outbox, 1)
    assert outbox.write_error is None
    assert len(list(file.parent.glob(f"{file.name}.broken-*Z"))) == 1
    assert (file.parent / "alerts.sqlite.broken-19700101T000000Z").read_bytes().startswith(b"this was")
    assert contents(Outbox(file, MACHINES)) == [1]


def test_file_that_breaks_while_in_use_is_set_aside_and_nothing_that_waits_is_lost(file: Path) -> None:
    outbox = Outbox(file, MACHINES)
    for number in range(3):
        put(outbox, number, memory=b"m")
    outbox._close_database()  # as if the connection had been lost with the page cache
    file.write_bytes(os.urandom(8192))
    put(outbox, 3)
    assert len(list(file.parent.glob(f"{file.name}.broken-*Z"))) == 1
    again = Outbox(file, MACHINES)
    assert again.memory("fan") == b"m"
    assert contents(again) == [0, 1, 2, 3]


def test_database_of_a_later_version_is_left_alone(file: Path) -> None:
    Outbox(file, MACHINES).close()
    with sqlite3.connect(file) as database:
        database.execute("pragma user_version=99")
    database.close()
    outbox = Outbox(file, MACHINES)
    put(outbox, 1)
    assert outbox.write_error is not None
    assert "later version (99)" in outbox.write_error
    assert contents(outbox) == [1]


def test_folder_that_cannot_be_made_keeps_alerts_in_memory_until_it_can(tmp_path: Path) -> None:
    blocked = tmp_path / "state"
    blocked.write_text("a file where the folder should be")
    outbox = Outbox(blocked / "alerts.sqlite", MACHINES)
    put(outbox, 1)
    assert outbox.write_error is not None
    assert not outbox.is_durable
    blocked.unlink()
    outbox.retry_writing()
    assert outbox.write_error is None
    assert contents(Outbox(blocked / "alerts.sqlite", MACHINES)) == [1]


def test_what_an_earlier_run_left_comes_first_when_the_disk_is_late(file: Path) -> None:
    before = Outbox(file, MACHINES)
    put(before, 1)
    put(before, 2)
    before.close()
    hidden = file.parent.with_name("hidden")
    file.parent.rename(hidden)
    file.parent.write_text("in the way")
    late = Outbox(file, MACHINES)
    put(late, 3)
    file.parent.unlink()
    hidden.rename(file.parent)
    put(late, 4)
    assert late.write_error is None
    assert contents(Outbox(file, MACHINES)) == [1, 2, 3, 4]


def test_full_disk_keeps_alerts_in_memory_and_writes_them_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 512) as disk:
        outbox = Outbox(disk / "alerts.sqlite", MACHINES)
        put(outbox, 0)
        fill(disk / "filler")
        numbers = list(range(1, 100))
        for number in numbers:
            put(outbox, number)
        assert outbox.write_error is not None
        assert len(outbox) == 100
        (disk / "filler").unlink()
        outbox.retry_writing()
        assert outbox.write_error is None
        assert contents(Outbox(disk / "alerts.sqlite", MACHINES)) == [0, *numbers]


def test_machine_that_is_let_go_while_the_disk_is_full_holds_up_no_other(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 512) as disk:
        outbox = Outbox(disk / "alerts.sqlite", ["fan", "lathe"])
        put(outbox, 0)
        fill(disk / "filler")
        outbox.remember("lathe", b"knows" * 1000)
        assert outbox.write_error is not None
        outbox.let_go(["lathe"])
        (disk / "filler").unlink()
        put(outbox, 1, memory=b"open")
        assert outbox.write_error is None
        again = Outbox(disk / "alerts.sqlite", ["fan", "lathe"])
        assert (again.memory("fan"), again.memory("lathe"), contents(again)) == (b"open", None, [0, 1])


def test_memory_that_did_not_change_is_not_written_again(file: Path) -> None:
    outbox = Outbox(file, MACHINES)
    outbox.remember("fan", b"a")
    before = file.with_name("alerts.sqlite-wal").stat().st_size
    outbox.remember("fan", b"a")
    assert file.with_name("alerts.sqlite-wal").stat().st_size == before


def test_box_without_a_file_keeps_everything_in_memory() -> None:
    outbox = Outbox(machines=MACHINES)
    put(outbox, 1, memory=b"m")
    assert not outbox.is_durable
    assert outbox.write_error is None
    assert outbox.waits_for("fan")
    assert contents(outbox) == [1]
    assert outbox.wait_empty(0)
