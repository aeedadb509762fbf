"""The state folder is its owner's alone, also what lay there before."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from asd_daemon.private_files import make_private_folder, tighten, write_private
from asd_daemon.run.stores import Stores
from asd_daemon.settings.keep import KeepSettings
from rig.waiting import PATIENT_S


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_and_file_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    make_private_folder(tmp_path / "a" / "b")
    write_private(tmp_path / "a" / "b" / "note.json", "{}")
    assert [mode(tmp_path / p) for p in ("a", "a/b", "a/b/note.json")] == [0o700, 0o700, 0o600]
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["note.json"]


def test_stores_tighten_what_lay_there_before_and_nothing_that_is_not_theirs(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for name in (
        "clips/fan/a.flac",
        "enrolled/fan/enrolled.json",
        "alerts.sqlite.broken-x",
        "bundles/current",
        "x.txt",
    ):
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text("")
        (state / name).chmod(0o644)
    state.chmod(0o755)
    (state / "clips" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "outside").write_text("")
    (tmp_path / "outside").chmod(0o644)
    stores = Stores(state, KeepSettings(), ["fan"])
    stores.start()
    stores.close(PATIENT_S)
    assert mode(state) == 0o700
    private = ("clips", "clips/fan", "clips/fan/a.flac", "enrolled/fan/enrolled.json", "alerts.sqlite.broken-x")
    assert {mode(state / name) & 0o077 for name in (*private, "alerts.sqlite")} == {0}
    assert [mode(state / "bundles" / "current"), mode(state / "x.txt"), mode(tmp_path / "outside")] == [0o644] * 3


def test_folder_that_others_share_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, home = tmp_path / "tmp", tmp_path / "home"
    for folder, bits in ((shared, 0o1777), (home, 0o755)):
        folder.mkdir()
        folder.chmod(bits)
        (folder / "alerts.sqlite").write_text("")
        (folder / "alerts.sqlite").chmod(0o644)
    monkeypatch.setenv("HOME", str(home))
    for folder, bits in ((shared, 0o1777), (home, 0o755)):
        assert tighten(folder, ["*.sqlite"]) == 1
        assert (mode(folder), mode(folder / "alerts.sqlite")) == (bits, 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root")
def test_what_root_writes_belongs_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    write_private(tmp_path / "note.json", "{}")
    make_private_folder(tmp_path / "a" / "b")
    assert {(tmp_path / p).stat().st_uid for p in ("note.json", "a", "a/b")} == {65534}
