"""Fetching against a local server that imitates the archive: what is asked for, what survives its faults, what is refused."""

from __future__ import annotations

import errno
import io
import json
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from asd_daemon.errors import DataSetError, FetchError, UsageError
from asd_trainer.cli.program import main
from asd_trainer.data.archive import Archive
from asd_trainer.data.fetch import PARTS, RECORDS, Plan, Step, fetch, machine_files, plan
from rig.archive import ArchiveServer, Cut, Excess, Fault, Garble, Refuse, WrongRange, running_archive, zip_of

FAN = "dev_fan.zip"
NOW_S = 1_750_000_000.0


def noise(seed: int, size: int = 2000) -> bytes:
    """Bytes that no packing shrinks, so that a zip has a middle to be cut in."""
    return np.random.default_rng(seed).bytes(size)


FILES = {
    "fan/train/section_00_source_train_normal_0000_m-n_W.wav": noise(1),
    "fan/test/section_00_target_test_anomaly_0000_m-n_X.wav": noise(2),
    "fan/attributes_00.csv": b"file_name,d1p,d1v\n" * 20,
}


class Clock:
    """Sleeps in no time and remembers for how long."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def now(self) -> float:
        return NOW_S + sum(self.slept)


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    with running_archive() as state:
        state.publish(
            RECORDS[2025]["dev"], {FAN: zip_of(FILES), "dev_valve.zip": zip_of({"valve/train/a.wav": noise(3)})}
        )
        yield state


@pytest.fixture
def clock() -> Clock:
    return Clock()


def plan_fan(server: ArchiveServer, clock: Clock, to: Path, attempts: int = 4) -> Plan:
    return plan(2025, ["dev"], ["fan"], to, Archive(server.url, attempts, 5.0, clock.sleep, clock.now))


def raw(to: Path) -> Path:
    return to / "dcase2025t2" / "dev_data" / "raw"


def recordings(to: Path) -> dict[str, bytes]:
    return {str(p.relative_to(raw(to))): p.read_bytes() for p in raw(to).rglob("*") if p.is_file()}


# --- what is asked for


def test_plan_of_a_part_tells_files_size_and_licence_and_fetches_nothing(
    server: ArchiveServer, clock: Clock, tmp_path: Path
) -> None:
    server.publish(
        RECORDS[2025]["dev"], {FAN: zip_of(FILES), "README.md": b"about"}, licence="cc-by-nc-sa-4.0", title="Dev 2025"
    )
    what = plan(2025, ["dev"], [], tmp_path / "data", base_url=server.url)
    assert [(f.part, f.machine, f.remote.key) for f in what.files] == [("dev", "fan", FAN)]
    assert what.size_bytes == what.missing_bytes == len(zip_of(FILES))
    assert (what.licences, what.titles) == (("cc-by-nc-sa-4.0",), ("Dev 2025",))
    assert not (tmp_path / "data").exists()
    assert not server.asked(FAN)


def test_plan_of_all_parts_puts_additional_training_beside_the_evaluation_test_data(
    server: ArchiveServer, tmp_path: Path
) -> None:
    server.publish(RECORDS[2025]["train"], {"eval_data_ToyPet_train.zip": zip_of({"ToyPet/train/a.wav": noise(1)})})
    server.publish(
        RECORDS[2025]["eval"], {"eval_data_ToyPet_test.zip": zip_of({"ToyPet/test/section_00_0000.wav": noise(2)})}
    )
    fetch(plan(2025, [], ["ToyPet"], tmp_path, base_url=server.url))
    pet = tmp_path / "dcase2025t2" / "eval_data" / "raw" / "ToyPet"
    assert sorted(str(p.relative_to(pet)) for p in pet.rglob("*.wav")) == ["test/section_00_0000.wav", "train/a.wav"]


@pytest.mark.parametrize(
    ("part", "keys", "expected"),
    [
        (
            "dev",
            ["dev_data_ToyCar.zip", "dev_data_fan.zip"],
            {"ToyCar": "dev_data_ToyCar.zip", "fan": "dev_data_fan.zip"},
        ),
        (
            "dev",
            ["dev_ToyCar.zip", "dev_ToyCar_r2.zip", "dev_fan.zip"],
            {"ToyCar": "dev_ToyCar_r2.zip", "fan": "dev_fan.zip"},
        ),
        ("train", ["eval_data_train_pump.zip"], {"pump": "eval_data_train_pump.zip"}),
        (
            "train",
            ["eval_data_3DPrinter_train_r2.zip", "eval_data_3DPrinter_train.zip"],
            {"3DPrinter": "eval_data_3DPrinter_train_r2.zip"},
        ),
        ("eval", ["eval_data_test_pump.zip", "eval_data_train_pump.zip"], {"pump": "eval_data_test_pump.zip"}),
        (
            "eval",
            ["eval_data_AutoTrash_test.zip", "../eval_data_x_test.zip", "notes.pdf"],
            {"AutoTrash": "eval_data_AutoTrash_test.zip"},
        ),
    ],
)
def test_machine_files_of_every_years_names_are_found_by_machine(
    part: str, keys: list[str], expected: dict[str, str]
) -> None:
    with running_archive() as state:
        state.publish(1, dict.fromkeys(keys, b"zip"))
        files = Archive(state.url).record(1).files
    named = machine_files(next(p for p in PARTS if p == part), files)
    assert {machine: file.key for machine, file in named.items()} == expected


@pytest.mark.parametrize(
    ("year", "parts", "machines", "message"),
    [
        (2019, [], [], "no data set of 2019; known years: 2020 to 2026"),
        (2025, ["deev"], [], "--part deev: must be one of dev, train, eval"),
        (2025, ["dev"], ["ToyPet"], "--machine ToyPet: not in these parts of 2025; there are fan, valve"),
    ],
)
def test_plan_of_what_does_not_exist_is_refused(
    server: ArchiveServer, tmp_path: Path, year: int, parts: list[str], machines: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(year, parts, machines, tmp_path, base_url=server.url)


def test_plan_of_an_answer_that_is_no_record_names_what_is_wrong(server: ArchiveServer, tmp_path: Path) -> None:
    server.records[RECORDS[2025]["dev"]] = {
        "metadata": {"title": "x"},
        "files": [{"key": FAN, "checksum": "sha1:00", "size": 1}],
    }
    with pytest.raises(FetchError, match=r"records/15097779: the answer is no record .*sha1:00"):
        plan(2025, ["dev"], [], tmp_path, base_url=server.url)
    with pytest.raises(FetchError, match="records/15392814: the archive answers 404"):
        plan(2025, ["train"], [], tmp_path, base_url=server.url)


def test_record_over_https_with_a_file_elsewhere_over_http_is_not_followed(
    server: ArchiveServer, tmp_path: Path
) -> None:
    file = replace(Archive(server.url).record(RECORDS[2025]["dev"]).files[0])
    with pytest.raises(FetchError, match="only https"):
        Archive("https://archive.example").download(file, tmp_path / FAN, lambda _: None)


# --- what survives


def test_fetch_unpacks_every_recording_reports_progress_and_keeps_no_zip(
    server: ArchiveServer, clock: Clock, tmp_path: Path
) -> None:
    steps: list[Step] = []
    what = plan_fan(server, clock, tmp_path)
    fetch(what, steps.append)
    assert recordings(tmp_path) == FILES
    assert not list(tmp_path.rglob("*.zip"))
    assert not list(tmp_path.rglob("*.part"))
    for action, total in (("download", len(zip_of(FILES))), ("unpack", sum(map(len, FILES.values())))):
        done = [s.done_bytes for s in steps if s.action == action]
        assert done == sorted(done)
        assert done[-1] == total == next(s.total_bytes for s in steps if s.action == action)
    mark = json.loads(what.files[0].mark.read_text())
    assert (mark["md5"], mark["licence"], len(mark["files"])) == (what.files[0].remote.md5, "cc-by-4.0", len(FILES))


def test_fetch_again_asks_for_no_file(server: ArchiveServer, clock: Clock, tmp_path: Path) -> None:
    fetch(plan_fan(server, clock, tmp_path))
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    again = plan_fan(server, clock, tmp_path)
    fetch(again)
    assert again.missing == ()
    assert again.missing_bytes == 0
    assert len(server.asked(FAN)) == 1
    assert times == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}


def test_fetch_after_a_recording_was_lost_brings_it_back_and_leaves_the_others(
    server: ArchiveServer, clock: Clock, tmp_path: Path
) -> None:
    fetch(plan_fan(server, clock, tmp_path))
    lost, *rest = (raw(tmp_path) / name for name in FILES)
    times = [p.stat().st_mtime_ns for p in rest]
    lost.unlink()
    fetch(plan_fan(server, clock, tmp_path))
    assert recordings(tmp_path) == FILES
    assert times == [p.stat().st_mtime_ns for p in rest]


def test_fetch_of_a_file_that_the_archive_replaced_refuses_to_overwrite_the_old_recordings(
    server: ArchiveServer, clock: Clock, tmp_path: Path
) -> None:
    fetch(plan_fan(server, clock, tmp_path))
    name = "fan/attributes_00.csv"
    server.publish(RECORDS[2025]["dev"], {FAN: zip_of({**FILES, name: b"new"})})
    with pytest.raises(
        DataSetError,
        match=r"attributes_00.csv: exists and differs from the one in dev_fan.zip; nothing was overwritten",
    ):
        fetch(plan_fan(server, clock, tmp_path))
    assert recordings(tmp_path) == FILES
    (raw(tmp_path) / name).unlink()
    fetch(plan_fan(server, clock, tmp_path))
    assert recordings(tmp_path)[name] == b"new"
    assert len(server.asked(FAN)) == 2, (
        "the zip that was refused for its place is still here and must not be fetched a third time"
    )


def test_fetch_over_a_cut_connection_goes_on_where_it_broke(
    server: ArchiveServer, clock: Clock, tmp_path: Path
) -> None:
    server.fail(FAN, Cut(1000), Cut(500), Cut(0), Cut(700))
    fetch(plan_fan(server, clock, tmp_path))
    assert recordings(tmp_path) == FILES
    assert [r.range for r in server.asked(FAN)] == [None, "bytes=1000-", "bytes=1500-", "bytes=1500-", "bytes=2200-"]
    assert clock.slept == [1, 1, 2, 1], "waits double only while nothing arrives"


def test_fetch_killed_half_way_goes_on_in_the_next_call(server: ArchiveServer, clock: Clock, tmp_path: Path) -> None:
    server.fail(FAN, Cut(1234), *[Refuse(500)] * 4)
    with pytest.raises(FetchError, match=r"dev_fan.zip/content: the archive answers 500 .*4 times in a row"):
        fetch(plan_fan(server, clock, tmp_path))
    assert recordings(tmp_path) == {}
    fetch(plan_fan(server, clock, tmp_path))
    assert recordings(tmp_path) == FILES
    assert server.asked(FAN)[-1].range == "bytes=1234-"


def test_fetch_of_a_changed_file_does_not_continue_the_old_one(
    server: ArchiveServer, clock: Clock, tmp_path: Path
) -> None:
    server.fail(FAN, Cut(1234), *[Refuse(500)] * 4)
    with pytest.raises(FetchError):
        fetch(plan_fan(server, clock, tmp_path))
    changed = {name: body + b"!" for name, body in FILES.items()}
    server.publish(RECORDS[2025]["dev"], {FAN: zip_of(changed)})
    fetch(plan_fan(server, clock, tmp_path))
    assert recordings(tmp_path) == changed
    assert server.asked(FAN)[-1].range is None


def test_fetch_from_a_server_without_ranges_starts_again_and_ends_right(
    server: ArchiveServer, clock: Clock, tmp_path: Path
) -> None:
    server.ranges = False
    server.fail(FAN, Cut(1000))
    fetch(plan_fan(server, clock, tmp_path))
    assert recordings(tmp_path) == FILES
    assert [r.range for r in server.asked(FAN)] == [None, "bytes=1000-"]


@pytest.mark.parametrize("faults", [(Cut(1000), WrongRange()), (Excess(),), (Garble(),), (Cut(900), Garble())])
def test_fetch_of_wrong_bytes_once_starts_again_and_ends_right(
    server: ArchiveServer, clock: Clock, tmp_path: Path, faults: tuple[Fault, ...]
) -> None:
    server.fail(FAN, *faults)
    fetch(plan_fan(server, clock, tmp_path))
    assert recordings(tmp_path) == FILES
    assert server.asked(FAN)[-1].range is None


def test_fetch_with_a_wrong_checksum_gives_up_after_the_second_time_and_leaves_nothing(
    server: ArchiveServer, clock: Clock, tmp_path: Path
) -> None:
    server.fail(FAN, Garble(), Garble(), Garble())
    what = plan_fan(server, clock, tmp_path)
    with pytest.raises(
        FetchError,
        match=rf"arrived broken twice: its md5 is [0-9a-f]{{32}}, the archive states {what.files[0].remote.md5}",
    ):
        fetch(what)
    assert len(server.asked(FAN)) == 2
    assert recordings(tmp_path) == {}
    assert not list(tmp_path.rglob("*.part"))


def test_fetch_from_a_server_that_always_sends_too_much_ends(
    server: ArchiveServer, clock: Clock, tmp_path: Path
) -> None:
    server.fail(FAN, *[Excess()] * 10)
    with pytest.raises(FetchError, match=r"its record says \d+, 4 times in a row"):
        fetch(plan_fan(server, clock, tmp_path))


@pytest.mark.parametrize(
    ("refusal", "slept"),
    [
        (Refuse(429, {"Retry-After": "17"}), [17.0]),
        (Refuse(503, {"Retry-After": formatdate(NOW_S + 42, usegmt=True)}), [42.0]),
        (Refuse(429, {"X-RateLimit-Reset": str(int(NOW_S) + 30)}), [30.0]),
        (Refuse(429, {"Retry-After": formatdate(NOW_S - 99, usegmt=True)}), [0.0]),
        (Refuse(503, {"Retry-After": "soon"}), [1.0]),
        (Refuse(502), [1.0]),
    ],
)
def test_fetch_from_a_busy_archive_waits_as_long_as_it_is_told(
    server: ArchiveServer, clock: Clock, tmp_path: Path, refusal: Refuse, slept: list[float]
) -> None:
    server.fail(FAN, refusal)
    server.fail(str(RECORDS[2025]["dev"]), refusal)
    fetch(plan_fan(server, clock, tmp_path))
    assert recordings(tmp_path) == FILES
    assert clock.slept[:1] == slept
    assert len(clock.slept) == 2, "once for the record, once for the file"


def test_fetch_told_to_wait_for_hours_says_so_instead(server: ArchiveServer, clock: Clock, tmp_path: Path) -> None:
    server.fail(FAN, Refuse(429, {"Retry-After": "7200"}))
    with pytest.raises(FetchError, match=r"429 Too Many Requests and asks to wait 120 minutes; call again then"):
        fetch(plan_fan(server, clock, tmp_path))
    assert clock.slept == []


def test_fetch_of_a_file_that_is_gone_is_not_tried_again(server: ArchiveServer, clock: Clock, tmp_path: Path) -> None:
    server.fail(FAN, Refuse(410))
    with pytest.raises(FetchError, match="dev_fan.zip/content: the archive answers 410"):
        fetch(plan_fan(server, clock, tmp_path))
    assert len(server.asked(FAN)) == 1


def test_plan_without_a_network_names_the_address(clock: Clock, tmp_path: Path) -> None:
    with running_archive() as gone:
        url = gone.url
    with pytest.raises(FetchError, match=rf"{url}/api/records/15097779: can't be reached: .*, 3 times in a row"):
        plan(2025, ["dev"], [], tmp_path, Archive(url, 3, 5.0, clock.sleep, clock.now))
    assert clock.slept == [1, 2]


def test_fetch_beside_another_fetch_is_refused(server: ArchiveServer, clock: Clock, tmp_path: Path) -> None:
    what = plan_fan(server, clock, tmp_path)
    refusals: list[str] = []

    def second(step: Step) -> None:
        if step.action == "unpack" and not refusals:
            with pytest.raises(DataSetError) as refusal:
                fetch(what)
            refusals.append(str(refusal.value))

    fetch(what, second)
    assert "another fetch is at work here" in refusals[0]
    assert recordings(tmp_path) == FILES


def test_fetch_to_a_place_that_can_not_be_written_names_it(server: ArchiveServer, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DataSetError, match=r"data: can't be written: .*File exists"):
        fetch(plan_fan(server, clock, tmp_path / "data"))


def test_fetch_on_a_disk_that_fills_up_is_not_tried_again_and_says_so(
    server: ArchiveServer, clock: Clock, tmp_path: Path
) -> None:
    def full(step: Step) -> None:
        if step.done_bytes > 0:
            raise OSError(errno.ENOSPC, "No space left on device", FAN)

    with pytest.raises(DataSetError, match="can't be written: dev_fan.zip No space left on device"):
        fetch(plan_fan(server, clock, tmp_path), full)
    assert len(server.asked(FAN)) == 1


def test_plan_over_a_cut_connection_asks_again(server: ArchiveServer, clock: Clock, tmp_path: Path) -> None:
    server.fail(str(RECORDS[2025]["dev"]), Cut(100), Cut(0))
    assert [f.machine for f in plan_fan(server, clock, tmp_path).files] == ["fan"]
    assert clock.slept == [1, 2]


def test_fetch_of_more_than_the_disk_holds_is_refused_before_it_starts(
    server: ArchiveServer, clock: Clock, tmp_path: Path
) -> None:
    what = plan_fan(server, clock, tmp_path)
    huge = replace(what.files[0], remote=replace(what.files[0].remote, size_bytes=10**17))
    with pytest.raises(DataSetError, match=r"needs about 250000000.0 GB, [0-9.]+ GB are free"):
        fetch(replace(what, files=(huge,)))
    assert not server.asked(FAN)


# --- what is refused in a zip


def special(name: str, mode: int, body: bytes = b"/etc/passwd") -> bytes:
    info = zipfile.ZipInfo(name)
    info.create_system = 3  # Unix
    info.external_attr = (mode | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("fan/train/good.wav", b"sound")
        zipped.writestr(info, body)
    return buffer.getvalue()


def encrypted() -> bytes:
    body = bytearray(zip_of({"fan/train/a.wav": noise(1)}))
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        body[body.index(header) + flags] |= 1
    return bytes(body)


def twice() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("fan/train/a.wav", b"one")
        with pytest.warns(UserWarning, match="Duplicate"):
            zipped.writestr("fan/train/a.wav", b"two")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: zip_of({"fan/train/good.wav": b"ok", "../evil.wav": b"x"}),
            r"'\.\./evil\.wav' would reach outside its folder; refused",
        ),
        (lambda: zip_of({"fan/train/good.wav": b"ok", "fan/../../evil.wav": b"x"}), "would reach outside its folder"),
        (
            lambda: zip_of({"fan/train/good.wav": b"ok", "/tmp/evil.wav": b"x"}),
            "'/tmp/evil.wav' would reach outside its folder",
        ),
        (lambda: zip_of({"fan/train/good.wav": b"ok", "fan\\..\\evil.wav": b"x"}), "would reach outside its folder"),
        (lambda: zip_of({"fan/train/good.wav": b"ok", "C:/evil.wav": b"x"}), "would reach outside its folder"),
        (lambda: special("fan/train/link.wav", stat.S_IFLNK), "'fan/train/link.wav' is a link or a special file"),
        (lambda: special("fan/train/pipe.wav", stat.S_IFIFO), "is a link or a special file"),
        (
            lambda: zip_of({"fan/train/good.wav": b"ok", "pump/train/x.wav": b"x"}),
            "'pump/train/x.wav' does not belong to fan",
        ),
        (encrypted, "is encrypted"),
        (twice, "holds fan/train/a.wav twice"),
        (lambda: zip_of({"fan/train/zeros.wav": bytes(10**6)}), "claims to grow from .* more than 50 times"),
        (lambda: zip_of({}), "holds no files"),
        (lambda: b"<html>not here</html>", "is no zip archive"),
    ],
)
def test_fetch_of_an_unsafe_zip_is_refused_and_nothing_is_written(
    server: ArchiveServer, clock: Clock, tmp_path: Path, make: object, message: str
) -> None:
    assert callable(make)
    server.publish(RECORDS[2025]["dev"], {FAN: make()})
    to = tmp_path / "data"
    with pytest.raises(DataSetError, match=message):
        fetch(plan_fan(server, clock, to))
    assert list(tmp_path.rglob("*.wav")) == []
    assert plan_fan(server, clock, to).missing != ()


def test_fetch_of_a_zip_with_broken_recordings_says_so(server: ArchiveServer, clock: Clock, tmp_path: Path) -> None:
    body = bytearray(zip_of(FILES))
    body[body.index(noise(1)[:8]) if noise(1)[:8] in body else 200] ^= 0xFF
    server.publish(RECORDS[2025]["dev"], {FAN: bytes(body)})
    with pytest.raises(DataSetError, match="is no sound zip archive"):
        fetch(plan_fan(server, clock, tmp_path))
    assert plan_fan(server, clock, tmp_path).missing != ()


def test_fetch_into_a_folder_that_is_a_link_to_elsewhere_is_refused(
    server: ArchiveServer, clock: Clock, tmp_path: Path
) -> None:
    raw(tmp_path / "data").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (raw(tmp_path / "data") / "fan").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataSetError, match="leads outside"):
        fetch(plan_fan(server, clock, tmp_path / "data"))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_fetch_of_zips_with_and_without_the_machines_folder_ends_in_the_same_place(
    server: ArchiveServer, clock: Clock, tmp_path: Path
) -> None:
    wrapped = {f"dev_data/{name}": body for name, body in FILES.items()}
    bare = {name.removeprefix("fan/"): body for name, body in FILES.items()}
    for number, files in enumerate((wrapped, bare)):
        server.publish(
            RECORDS[2025]["dev"], {FAN: zip_of({**files, "__MACOSX/fan/._x": b"junk", "fan/.DS_Store": b"junk"})}
        )
        fetch(plan_fan(server, clock, tmp_path / str(number)))
        assert recordings(tmp_path / str(number)) == FILES


def test_fetch_after_a_kill_while_unpacking_leaves_no_half_recording(
    server: ArchiveServer, clock: Clock, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def kill(step: Step) -> None:
        if step.action == "unpack" and step.done_bytes > 0:
            raise Killed

    with pytest.raises(Killed):
        fetch(plan_fan(server, clock, tmp_path), kill)
    first = recordings(tmp_path)
    assert len(first) == 1
    assert first.items() <= FILES.items()
    half = raw(tmp_path) / "fan" / "test" / ".section_00_target_test_anomaly_0000_m-n_X.wav.part"
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"half")
    fetch(plan_fan(server, clock, tmp_path))
    assert recordings(tmp_path) == FILES
    assert len(server.asked(FAN)) == 1, "the zip had arrived whole"


# --- asd-train fetch


def invoke(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, ["fetch", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_command_tells_title_licence_and_size_first_and_fetches_once(server: ArchiveServer, tmp_path: Path) -> None:
    server.publish(RECORDS[2025]["dev"], {FAN: zip_of(FILES)}, licence="cc-by-nc-sa-4.0", title="Dev 2025")
    call = ("2025", "--to", tmp_path, "--part", "dev", "--machine", "fan", "--base-url", f"{server.url}/")
    first = invoke(*call)
    assert first.exit_code == 0, first.output
    assert first.stdout.splitlines()[:3] == ["Dev 2025", "licence: cc-by-nc-sa-4.0", "files:   1, 0.0 MB"]
    assert "missing: 1, 0.0 MB" in first.stdout
    root = tmp_path / "dcase2025t2"
    assert f"1 files fetched, 0 kept: {root}" in first.stdout
    assert f"next: asd-train run smoke --data {root}" in first.stdout
    assert recordings(tmp_path) == FILES
    again = invoke(*call)
    assert "missing: none" in again.stdout
    assert f"0 files fetched, 1 kept: {root}" in again.stdout
    assert len(server.asked(FAN)) == 1


def test_command_with_dry_run_fetches_nothing(server: ArchiveServer, tmp_path: Path) -> None:
    result = invoke("2025", "--to", tmp_path / "data", "--part", "dev", "--base-url", server.url, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "missing: 2" in result.stdout
    assert not (tmp_path / "data").exists()
    assert not server.asked(FAN)


def test_command_logs_its_progress(server: ArchiveServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert invoke("2025", "--to", tmp_path, "--part", "dev", "--base-url", server.url).exit_code == 0
    for zipped in (FAN, "dev_valve.zip"):
        for action in ("download", "unpack"):
            assert any(f"{action} {zipped} (MB): 1 of 1" in message for message in caplog.messages), caplog.messages


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["2019"], 2, "error: there is no data set of 2019; known years: 2020 to 2026"),
        (["2025", "--machine", "kettle", "--part", "dev"], 2, "error: --machine kettle: not in these parts of 2025"),
        (["2024", "--part", "dev"], 3, "error: http://127.0.0.1"),
    ],
)
def test_command_that_can_not_fetch_says_why_in_one_line(
    server: ArchiveServer, tmp_path: Path, arguments: list[str], exit_code: int, message: str
) -> None:
    result = invoke(*arguments, "--to", tmp_path, "--base-url", server.url)
    assert result.exit_code == exit_code
    (line,) = result.stderr.splitlines()
    assert line.startswith(message)
