"""Version 0.1 of this program, as the history of the repository has it: what an upgrade begins with."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path
from types import ModuleType

from rig.systemd_box import PYTHON

REPOSITORY = Path(__file__).parents[2]
VERSION = "0.1.0"
COMMIT = "113fb377679c9cb869dddba472e70948fd6f504e"
ARCHITECTURE = "amd64"
CONFIGURATION = "# What this box listens to; every key: asd-daemon sample-config\nmachines: {}\n"
"""Another first configuration than today's, so that dpkg has to decide about one that was changed by hand."""
PROGRAM = [sys.executable, "-c", "from asd_daemon.cli import main; main()"]
"""Finds the package by PYTHONPATH: `more={"PYTHONPATH": SOURCE / "daemon"}`."""


def missing() -> str | None:
    """Why there is no earlier version here; None where there is."""
    if shutil.which("git") is None:
        return "git is not installed"
    words = ["git", "cat-file", "-e", f"{COMMIT}^{{commit}}"]
    known = subprocess.run(words, cwd=REPOSITORY, capture_output=True, check=False).returncode == 0
    return None if known else f"this clone's history does not reach back to version {VERSION} ({COMMIT[:7]})"


def earlier_source(folder: Path) -> Path:
    """Its tree, in an empty folder."""
    packed = subprocess.run(["git", "archive", COMMIT], cwd=REPOSITORY, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as tree:
        tree.extractall(folder, filter="data")
    return folder


def build_package(source: Path, out: Path) -> Path:
    """A Debian package of it for the box of `rig.systemd_box`, made by today's recipe of its own tree, without manual pages."""
    builder = debian_builder()
    with tempfile.TemporaryDirectory(dir=out) as name:
        root = Path(name)
        root.chmod(0o755)
        builder.install_python(root, ARCHITECTURE, PYTHON, source, extras="")
        builder.write_system_files(root, source, CONFIGURATION)
        builder.write_control(root, ARCHITECTURE, PYTHON, VERSION)
        return Path(builder.pack(root, out / f"asd-edge_{VERSION}.deb", "none"))


def debian_builder() -> ModuleType:
    """`deploy/debian/build.py`."""
    spec = importlib.util.spec_from_file_location("debian_build", REPOSITORY / "deploy" / "debian" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
