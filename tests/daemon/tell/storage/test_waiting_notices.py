"""What people must be told lies on disk: after a kill, beside other machines' of another process, on a disk that fails."""

from __future__ import annotations

from pathlib import Path

from asd_daemon.tell.storage.alert_pictures import AlertPictures
from asd_daemon.tell.storage.machine_traces import remove_traces, rename_traces, traced_machines
from asd_daemon.tell.storage.waiting_notices import WaitingNotices

PLACE = ("fan", "notice", "1")


def kept(folder: Path, *machines: str) -> WaitingNotices:
    return WaitingNotices(folder / "notices.sqlite", machines)


def test_items_are_there_after_a_kill_and_gone_when_deleted(tmp_path: Path) -> None:
    before = kept(tmp_path, "fan")
    assert not (tmp_path / "notices.sqlite").exists(), "no file where nothing is told"
    before.put(PLACE, {"to": ["1"]})
    before.save()
    after = kept(tmp_path, "fan")
    assert after.of_kind("notice") == {PLACE: {"to": ["1"]}}
    after.delete(PLACE)
    after.save()
    assert kept(tmp_path, "fan").of_kind("notice") == {}
    assert (tmp_path / "notices.sqlite").stat().st_mode & 0o777 == 0o600


def test_machines_of_another_process_are_left_alone(tmp_path: Path) -> None:
    fan, pump = kept(tmp_path, "fan"), kept(tmp_path, "pump")
    fan.put(PLACE, 1)
    fan.save()
    pump.put(("pump", "notice", "1"), 2)
    pump.save()
    assert list(kept(tmp_path, "pump").of_kind("notice").values()) == [2]
    pump.let_go(["pump"])
    assert pump.of_kind("notice") == {}
    pump.take_up(["fan"])
    assert list(pump.of_kind("notice").values()) == [1]


def test_machines_that_come_while_the_disk_fails_bring_their_items_when_it_is_back(tmp_path: Path) -> None:
    pump = kept(tmp_path / "state", "pump")
    pump.put(("pump", "notice", "1"), 2)
    pump.close()
    fan = kept(tmp_path / "state", "fan")
    (tmp_path / "state").rename(tmp_path / "gone")
    (tmp_path / "state").write_text("")
    fan._close_database()
    fan.put(PLACE, 1)
    fan.save()
    fan.take_up(["pump"])
    assert list(fan.of_kind("notice").values()) == [1]
    (tmp_path / "state").unlink()
    (tmp_path / "gone").rename(tmp_path / "state")
    fan.save()
    assert list(fan.of_kind("notice").values()) == [1, 2]


def test_file_that_is_no_database_any_more_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "notices.sqlite").write_bytes(b"no database" * 1000)
    items = kept(tmp_path, "fan")
    items.put(PLACE, 1)
    items.save()
    assert items.write_error is None
    assert list(kept(tmp_path, "fan").of_kind("notice").values()) == [1]

    assert any(f.read_bytes().startswith(b"no database") for f in tmp_path.iterdir() if f.is_file())


def test_disk_that_comes_back_gets_all_that_was_held_in_memory(tmp_path: Path) -> None:
    blocked = tmp_path / "state"
    blocked.write_text("a file where the folder should be")
    items = WaitingNotices(blocked / "notices.sqlite", ("fan",))
    items.put(PLACE, 1)
    items.save()
    assert items.write_error is not None
    blocked.unlink()
    items.save()
    assert items.write_error is None
    assert list(kept(blocked, "fan").of_kind("notice").values()) == [1]


def test_what_waits_follows_a_machine_to_its_new_name_and_ends_with_it(tmp_path: Path) -> None:
    items, pictures = kept(tmp_path, "fan"), AlertPictures(tmp_path / "pictures")
    items.put(PLACE, 1)
    items.close()
    pictures.put("fan", "e1", b"png")
    rename_traces(tmp_path, "fan", "mill")
    assert list(kept(tmp_path, "mill").of_kind("notice")) == [("mill", "notice", "1")]
    assert pictures.get("mill", "e1") == b"png"
    remove_traces(tmp_path, "mill")
    assert traced_machines(tmp_path) == set()
    assert pictures.get("mill", "e1") is None


def test_pictures_are_few_and_private_and_names_lead_nowhere_else(tmp_path: Path) -> None:
    pictures = AlertPictures(tmp_path / "pictures")
    for number in range(40):
        pictures.put("fan", f"e{number}", b"png")
    files = list((tmp_path / "pictures" / "fan").iterdir())
    assert len(files) == 30
    assert {f.stat().st_mode & 0o777 for f in files} == {0o600}
    pictures.put("fan", "../../x", b"png")
    assert not (tmp_path / "x.png").exists()
    assert pictures.get("fan", "../../x") is None
    memory = AlertPictures(None)
    for number in range(6):
        memory.put("fan", f"e{number}", b"png")
    assert [memory.get("fan", f"e{n}") for n in range(6)] == [None, None, b"png", b"png", b"png", b"png"]
