"""How much memory there is, and what is said where it is too little to listen."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from asd_daemon.run.free_memory import MB, free_ram_bytes, taken_bytes, too_little_memory
from rig.daemon import ask


def test_free_memory_is_the_least_of_the_machine_and_its_control_groups(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    (proc / "self" / "cgroup").write_text("0::/box/inner\n")
    assert free_ram_bytes(proc, groups) == 8000 * 1024
    for folder, limit in (("box", "6000000"), ("box/inner", "max")):
        (groups / folder).mkdir(parents=True)
        (groups / folder / "memory.max").write_text(limit)
        (groups / folder / "memory.current").write_text("5000000")
        (groups / folder / "memory.stat").write_text("anon 1\ninactive_file 1000000\n")
    assert free_ram_bytes(proc, groups) == 2_000_000
    (proc / "self" / "cgroup").write_text("4:memory:/old\n")
    (groups / "memory" / "old").mkdir(parents=True)
    for name, number in (("limit_in_bytes", 700), ("usage_in_bytes", 300)):
        (groups / "memory" / "old" / f"memory.{name}").write_text(str(number))
    (groups / "memory" / "old" / "memory.stat").write_text("total_inactive_file 50\n")
    assert free_ram_bytes(proc, groups) == 450


def test_where_nothing_is_said_of_memory_there_is_no_limit(tmp_path: Path) -> None:
    assert free_ram_bytes(tmp_path, tmp_path) == float("inf")


def test_what_is_taken_is_what_is_held_and_no_file_that_is_shared(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(30 * MB))
    before = taken_bytes()
    # Pages of its own: the allocator may have some left over from earlier tests
    held = mmap.mmap(-1, 20 * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, len(held), mmap.PAGESIZE):
        held[page] = 1
    after = taken_bytes()
    mapped = np.memmap(file, np.uint8, "r")
    assert mapped.sum() == 0
    assert after - before == pytest.approx(20 * MB, abs=5 * MB)
    assert taken_bytes() - after == pytest.approx(0, abs=5 * MB)


def test_too_little_memory_is_said_with_what_it_takes() -> None:
    assert too_little_memory(1, 100 * MB) is None
    assert too_little_memory(2, 125 * MB) is None
    words = too_little_memory(2, 110 * MB)
    assert words is not None
    assert "110 MB" in words
    assert "2 microphones takes about 125 MB" in words


def test_daemon_with_much_memory_says_nothing_of_it(tmp_path: Path) -> None:
    done = ask("run", "--machine", "fan", "--source", "simulate:fan?seconds=10&speed=max", "--no-mqtt", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "MB of memory" not in done.stderr
