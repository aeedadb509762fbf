"""Build a Debian package of the edge: `python deploy/debian/build.py [--arch arm64] [--python 3.13] [--out dist]`.

What pip would install lies in /opt/asd-edge, as wheels of the wanted architecture; no compiler and no emulator is needed, so a box with an
amd64 processor builds for arm64 too. Needs dpkg-deb, which every Debian has.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from asd_daemon.cli.program import cli
from asd_daemon.cli.service_installation import whole_unit

REPOSITORY = Path(__file__).parents[2]
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
HOME = Path("opt/asd-edge")
EXTRAS = "web,notify"
SCRIPTS = ("postinst", "prerm", "postrm")
COMMAND = """#!/opt/asd-edge/bin/python3
import sys
from {module} import {name}
sys.exit({name}())
"""
CONFIGURATION = """# asd-daemon: what this box listens to. Every key with its meaning: asd-daemon sample-config
# A machine is learned at the page, http://127.0.0.1:8470/ (from elsewhere: ssh -L 8470:127.0.0.1:8470 this-box), or named here:
#machines:
#  fan:
#    source: {device: default}
# Whom to tell:
#mqtt: {host: broker.local}
machines: {}
"""
COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: asd-edge

Files: *
Copyright: the asd-edge authors
License: Apache-2.0
 See /usr/share/common-licenses/Apache-2.0. Libraries below /opt/asd-edge have licences of their own, in their dist-info folders.
"""


def build(arch: str, python: str, version: str, out: Path) -> Path:
    """Make the package.

    Args:
        arch: Debian's name of the architecture.
        python: minor version of that Debian's python3: 3.11 in bookworm, 3.13 in trixie.
        version: of the package.
        out: the folder that it is written into.

    Returns:
        Its file.

    Raises:
        subprocess.CalledProcessError: pip or dpkg-deb fails, and has said why.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="asd-deb-") as name:
        root = Path(name)
        root.chmod(0o755)
        install_python(root, arch, python)
        write_system_files(root)
        write_documents(root)
        write_control(root, arch, python, version)
        return pack(root, out / f"asd-edge_{version}_{arch}.deb", "xz")


def pack(root: Path, file: Path, compression: str) -> Path:
    """Make a package of a tree that is complete; gives its file."""
    for path in root.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    command = ["dpkg-deb", "--root-owner-group", f"-Z{compression}", "--build", str(root), str(file)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return file


def install_python(root: Path, arch: str, python: str, source: Path = REPOSITORY, extras: str = EXTRAS) -> None:
    """What a virtual environment of that Debian would hold, with /usr/bin/python3 as its interpreter.

    Args:
        root: of the package.
        arch: Debian's name of the architecture.
        python: minor version of that Debian's python3.
        source: the tree of the program that goes in.
        extras: of the program; none where it is empty.
    """
    home, pip = root / HOME, [sys.executable, "-m", "pip", "--quiet"]
    packages = home / "lib" / f"python{python}" / "site-packages"
    platforms = [
        f"--platform={kind}_{MACHINES[arch]}" for kind in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
    ]
    with tempfile.TemporaryDirectory() as wheels:
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", wheels, str(source)], check=True)
        (own,) = Path(wheels).glob("*.whl")
        constraints = ["--constraint", str(source / "constraints.txt")]
        fitting = ["--only-binary=:all:", "--python-version", python, *platforms, "--no-compile"]
        wanted = f"{own}[{extras}]" if extras else str(own)
        subprocess.run([*pip, "install", "--target", str(packages), *constraints, *fitting, wanted], check=True)
    shutil.rmtree(packages / "bin", ignore_errors=True)  # scripts with this machine's interpreter
    for unused in ("asd_trainer", "asd_export", "asd_edge"):
        shutil.rmtree(packages / unused, ignore_errors=True)
    programs = home / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to("/usr/bin/python3")
    (own_metadata,) = packages.glob("asd_edge-*.dist-info")
    entries = metadata.Distribution.at(own_metadata).entry_points
    (entry,) = entries.select(group="console_scripts", name="asd-daemon")
    (programs / "asd-daemon").write_text(COMMAND.format(module=entry.module, name=entry.attr))
    (programs / "asd-daemon").chmod(0o755)
    (home / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\n")
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/asd-daemon").symlink_to("/opt/asd-edge/bin/asd-daemon")


def write_system_files(root: Path, source: Path = REPOSITORY, configuration: str = CONFIGURATION) -> None:
    """Units and udev rules of a tree, and a first configuration."""
    deploy = source / "deploy"
    units, rules, settings = root / "lib/systemd/system", root / "lib/udev/rules.d", root / "etc/asd-daemon"
    for folder in (units, rules, settings):
        folder.mkdir(parents=True)
    for file in deploy.glob("asd-daemon*.service"):
        shutil.copy(file, units)
    (units / "asd-daemon.service").write_text(whole_unit((units / "asd-daemon@.service").read_text()))
    shutil.copy(deploy / "90-asd-daemon.rules", rules)
    (settings / "asd-daemon.yaml").write_text(configuration)


def write_documents(root: Path) -> None:
    """Manual pages, completion, change log, licence."""
    from click_man.core import write_man_pages

    manual, documents = root / "usr/share/man/man1", root / "usr/share/doc/asd-edge"
    completions = root / "usr/share/bash-completion/completions"
    for folder in (manual, documents, completions):
        folder.mkdir(parents=True)
    write_man_pages("asd-daemon", cli, version=metadata.version("asd-edge"), target_dir=str(manual))
    for page in manual.iterdir():
        page.with_name(f"{page.name}.gz").write_bytes(gzip.compress(page.read_bytes(), mtime=0))
        page.unlink()
    asked = {**os.environ, "_ASD_DAEMON_COMPLETE": "bash_source"}
    words = [sys.executable, "-c", "from asd_daemon.cli.program import cli; cli(prog_name='asd-daemon')"]
    said = subprocess.run(words, env=asked, check=True, capture_output=True)
    (completions / "asd-daemon").write_bytes(said.stdout)
    (documents / "copyright").write_text(COPYRIGHT)
    changes = (REPOSITORY / "CHANGELOG.md").read_bytes()
    (documents / "changelog.gz").write_bytes(gzip.compress(changes, mtime=0))


def write_control(root: Path, arch: str, python: str, version: str) -> None:
    """What dpkg wants to know, and what it runs."""
    control = root / "DEBIAN"
    control.mkdir()
    size_kb = sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink()) // 1024
    major, minor = python.split(".")
    lines = {
        "Package": "asd-edge",
        "Version": version,
        "Architecture": arch,
        "Maintainer": "the asd-edge authors <asd-edge@localhost>",
        "Installed-Size": str(size_kb),
        "Depends": f"python3 (>= {python}), python3 (<< {major}.{int(minor) + 1}), libportaudio2, init-system-helpers",
        "Recommends": "libasound2-plugins",
        "Suggests": "mosquitto",
        "Section": "sound",
        "Priority": "optional",
        "Description": "hears when a machine goes wrong\n"
        " Listens to a machine through a microphone, learns its normal sound on the box and\n"
        " publishes alerts over MQTT, to people and on a page. Needs no recording of a fault.",
    }
    (control / "control").write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    (control / "conffiles").write_text("/etc/asd-daemon/asd-daemon.yaml\n")
    for name in SCRIPTS:
        shutil.copy(Path(__file__).with_name(name), control / name)
        (control / name).chmod(0o755)


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description="Build a Debian package of the edge.")
    parser.add_argument("--arch", choices=sorted(MACHINES), default="amd64")
    parser.add_argument(
        "--python", default="3.11", help="minor version of the Debian's python3 (3.11: bookworm, 3.13: trixie)"
    )
    parser.add_argument("--version", default=metadata.version("asd-edge"))
    parser.add_argument("--out", type=Path, default=Path("dist"))
    wanted = parser.parse_args()
    sys.stdout.write(f"{build(wanted.arch, wanted.python, wanted.version, wanted.out)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
