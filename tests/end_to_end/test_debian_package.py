"""What the Debian package consists of besides the libraries; `make soak` installs, upgrades and purges it in a Debian of its own."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from asd_daemon.settings.file import load_settings
from rig.earlier_version import debian_builder

pytestmark = [
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed"),
    pytest.mark.filterwarnings("ignore:'click.utils.make_default_short_help':DeprecationWarning"),  # of click-man
]


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    return debian_builder()


@pytest.fixture(scope="module")
def tree(builder: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    builder.write_system_files(root)
    builder.write_documents(root)
    builder.write_control(root, "arm64", "3.11", "1.2.3")
    return root


def test_package_is_one_that_dpkg_takes(tree: Path, tmp_path: Path) -> None:
    file = tmp_path / "asd-edge.deb"
    words = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(file)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    told = subprocess.run(["dpkg-deb", "--field", str(file)], check=True, capture_output=True, text=True).stdout
    assert "Architecture: arm64" in told
    assert "Depends: python3 (>= 3.11), python3 (<< 3.12), libportaudio2" in told
    listed = subprocess.run(["dpkg-deb", "--contents", str(file)], check=True, capture_output=True, text=True).stdout
    for name in ("asd-daemon@.service", "asd-daemon.service", "asd-daemon-web.service", "90-asd-daemon.rules"):
        assert name in listed
    assert "./etc/asd-daemon/asd-daemon.yaml" in listed


def test_first_configuration_is_a_right_one_that_waits_for_a_machine(tree: Path) -> None:
    assert load_settings(tree / "etc/asd-daemon/asd-daemon.yaml").machines == {}


def test_what_dpkg_runs_is_shell_that_stops_at_the_first_error(tree: Path) -> None:
    for script in ("postinst", "prerm", "postrm"):
        text = (tree / "DEBIAN" / script).read_text()
        assert text.startswith("#!/bin/sh\n")
        assert "\nset -e\n" in text
        subprocess.run(["sh", "-n", str(tree / "DEBIAN" / script)], check=True)


def test_every_command_has_a_manual_page_and_can_be_completed(tree: Path) -> None:
    pages = {page.name for page in (tree / "usr/share/man/man1").iterdir()}
    assert {"asd-daemon.1.gz", "asd-daemon-run.1.gz", "asd-daemon-machines-export.1.gz"} <= pages
    assert b"Listen, judge and publish" in gzip.decompress(
        (tree / "usr/share/man/man1/asd-daemon-run.1.gz").read_bytes()
    )
    assert "complete" in (tree / "usr/share/bash-completion/completions/asd-daemon").read_text()
