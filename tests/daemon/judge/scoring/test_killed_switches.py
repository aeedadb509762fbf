"""A kill at any step of installing or going back: the bundle that is gone back to is the one before the current one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asd_daemon.judge.bundle.bundle import load_bundle
from asd_daemon.judge.scoring import installed_bundles as installation
from asd_daemon.judge.scoring.installed_bundles import bundle_before, install_bundle, roll_back
from rig.bundles import read_manifest, write_manifest, write_tiny_bundle

_KILLS = """
import json, os, shutil, signal, sys
from pathlib import Path
from asd_daemon.judge.scoring import installed_bundles

prepared, work, own, words = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
installed_bundles.bounded_self_test = lambda bundle, **_: 0
installed_bundles.default_bundle = lambda: own
left = -1

def hook(event, args):
    global left
    if event in ("os.rename", "os.remove", "os.symlink", "os.mkdir", "os.rmdir") and left >= 0:
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
killed = []
for step in range(200):
    root = work / str(step)
    shutil.copytree(prepared, root, symlinks=True)
    child = os.fork()
    if child == 0:
        left = step
        if words[0] == "install":
            installed_bundles.install_bundle(Path(words[1]), root)
        else:
            installed_bundles.roll_back(root)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
        break
    killed.append(str(root))
print(json.dumps(killed))
"""


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles of four versions."""
    folder = tmp_path_factory.mktemp("killed")
    first = write_tiny_bundle(folder / "tiny").path
    made = {}
    for name in ("own", "1", "2", "3"):
        made[name] = folder / name
        shutil.copytree(first, made[name])
        write_manifest(made[name], {**read_manifest(made[name]), "version": name})
    return made


@pytest.mark.parametrize(
    ("installed", "work", "back"),
    [
        ("12", "install 3", {"2": "1", "3": "2"}),
        ("1", "install 2", {"1": "own", "2": "1"}),
        ("12", "roll back", {"2": "1", "1": "2"}),
        ("1", "roll back", {"1": "own", "own": "1"}),
    ],
)
def test_after_a_kill_at_any_step_the_one_before_is_gone_back_to(
    versions: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: str,
    work: str,
    back: dict[str, str],
) -> None:
    monkeypatch.setattr(installation, "bounded_self_test", lambda bundle, **_: 0)
    monkeypatch.setattr(installation, "default_bundle", lambda: versions["own"])
    root = tmp_path / "bundles"
    for name in installed:
        install_bundle(versions[name], root)
    words = ["install", str(versions[work[-1]])] if work.startswith("install") else ["back"]
    call = [sys.executable, "-c", _KILLS, str(root), str(tmp_path / "work"), str(versions["own"]), *words]
    killed = [Path(one) for one in json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)]
    assert len(killed) > 4
    seen = set()
    for one in killed:
        current = load_bundle(one / "current").version if (one / "current").is_symlink() else "own"
        before = bundle_before(one)
        assert before is not None or current == "own"
        seen.add(current)
        assert roll_back(one).bundle.version == back[current], one
        assert before is None or before.version == back[current]
    assert seen == set(back)


def test_installed_over_the_programs_own_it_is_gone_back_to(
    versions: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "bounded_self_test", lambda bundle, **_: 0)
    monkeypatch.setattr(installation, "default_bundle", lambda: versions["own"])
    root = tmp_path / "bundles"
    install_bundle(versions["1"], root)
    roll_back(root)
    install_bundle(versions["2"], root)
    assert roll_back(root).bundle.version == "own"
