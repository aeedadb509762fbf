"""What the long proofs of small boards rest on: a control group that holds, a report that finds what is wrong, the tests of the edge."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rig import control_group
from rig.arm64_root import REPOSITORY
from rig.control_group import ControlGroup
from soak.arm64 import edge_tests, scores
from soak.board_report import BOARDS, BoardReport
from soak.week import Sample, WeekReport

MB = 2**20
_HOURS = 72
_ALERT = {"event_id": "a", "at": "2026-11-27T00:00:00Z"}


@pytest.mark.skipif(control_group.missing() is not None, reason=str(control_group.missing()))
def test_control_group_ends_a_process_that_takes_more_than_it_has_and_counts_it() -> None:
    taking = "import sys; held = bytearray(int(sys.argv[1]) << 20); print(len(held))"
    with ControlGroup("asd-test", 60 * MB, 0.5) as group:
        words = [*group.prefix, sys.executable, "-c", taking]
        modest = subprocess.run([*words, "20"], check=True, capture_output=True, text=True)
        assert modest.stdout == f"{20 * MB}\n"
        assert 20 < group.peak_mb < 60
        assert group.killed == 0
        assert subprocess.run([*words, "100"], check=False, capture_output=True).returncode == -9
        assert group.killed == 1
        assert group.anonymous_mb < 1


def test_control_group_of_version_2_is_told_memory_no_swap_and_a_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory\n")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert control_group.missing(tmp_path) is None
    group = ControlGroup("asd-test", 512 * MB, 0.08, groups=tmp_path)
    group.__enter__()
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +cpu"
    told = {file.name: file.read_text() for file in folder.iterdir()}
    assert told == {"memory.max": str(512 * MB), "memory.swap.max": "0", "cpu.max": "8000 100000"}
    (folder / "memory.peak").write_text(f"{100 * MB}\n")
    (folder / "memory.stat").write_text(f"anon {30 * MB}\nfile 1\n")
    (folder / "memory.events").write_text("low 0\noom 2\noom_kill 1\n")
    assert (group.peak_mb, group.anonymous_mb, group.killed) == (100, 30, 1)
    (tmp_path / "cgroup.controllers").write_text("cpuset\n")
    assert control_group.missing(tmp_path) is not None


@pytest.fixture
def week() -> WeekReport:
    """Three days in which all is as it must be."""
    samples = [Sample(hour * 360, 100 + hour % 3, 17, 6, 5.0) for hour in range(1, _HOURS + 1)]
    messages = [{**_ALERT, "kind": kind} for kind in ("open", "update", "close")]
    return WeekReport(3, 1, _HOURS * 360, _HOURS * 360, 0, 0, 1, messages, samples, 600, 400)


def test_week_that_is_well_has_no_fault(week: WeekReport) -> None:
    assert week.faults() == []
    assert abs(week.slope()[0]) < 0.1


def test_week_in_which_memory_grows_is_found(week: WeekReport) -> None:
    growing = [replace(s, mb=s.mb + s.windows / 8640 * 0.5) for s in week.samples]  # half a megabyte a day
    slope, low, high = replace(week, samples=growing).slope()
    assert low <= slope <= high
    assert slope == pytest.approx(0.5, abs=0.1)
    assert replace(week, samples=growing).faults() == [f"memory grows by {slope * 7:.2f} MB a week"]


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"said": 2}, "2 alerts opened, 1 arrived"),
        ({"messages": [{**_ALERT, "kind": "open"}]}, "1 alerts never closed, 0 never opened"),
        ({"faults_planned": 2}, "the machine broke 2 times, 1 alerts"),
        ({"dropped": 1}, "windows are unaccounted for"),
    ],
)
def test_week_in_which_something_is_lost_is_found(week: WeekReport, changed: dict[str, object], fault: str) -> None:
    assert fault in replace(week, **changed).faults()  # type: ignore[arg-type]


@pytest.mark.parametrize("what", ["descriptors", "threads"])
def test_week_in_which_something_leaks_is_found(week: WeekReport, what: str) -> None:
    leaking = [replace(s, **{what: s.windows // 360}) for s in week.samples]
    assert any(fault.startswith(f"{what} went from") for fault in replace(week, samples=leaking).faults())


def test_board_on_which_a_process_was_killed_is_a_fault_only_where_it_must_hold() -> None:
    holds, ends = BOARDS[0], next(board for board in BOARDS if not board.keeps)
    well = BoardReport(holds, starts=1, opened=1, closed=1)
    assert well.faults() == []
    assert replace(well, killed=1, starts=2).faults() == ["1 processes killed, started 2 times"]
    assert replace(well, opened=0).faults() == ["0 alerts, 0 windows dropped"]
    assert BoardReport(ends, starts=5, killed=5).faults() == ["nothing was killed while an alert was open"]
    assert BoardReport(ends, starts=2, killed=1, opened=1, closed=1).faults() == []
    assert BoardReport(ends, starts=2, killed=1, opened=1, lost=1).faults() == ["0 alerts never closed, 1 lost"]


def test_tests_of_the_edge_are_there_and_scores_are_found_among_other_lines() -> None:
    assert len(edge_tests()) > 5
    assert all((REPOSITORY / path).exists() for path in edge_tests())
    said = (
        'Error in cpuinfo: …\n{"path": "/x/fan.flac", "score": 1.5, "threshold": 2}\n{"path": "y.flac", "score": 3}\n'
    )
    assert scores(said) == {"fan.flac": 1.5, "y.flac": 3.0}
