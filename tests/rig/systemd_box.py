"""A small Debian of its own with systemd as its first process, in a container: units, users and packages as a box has them.

Made by debootstrap, run by systemd-nspawn; both are Debian packages (`deploy/system-packages.sh box`) and want root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rig.waiting import wait_until

SUITE = "bookworm"
PYTHON = "3.11"  # of that Debian
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3-venv", "libportaudio2", "mosquitto", "mosquitto-clients")
REPOSITORY = Path(__file__).parents[2]
_STOP_S = 90.0


def missing() -> str | None:
    """What keeps such a box from running here; None when nothing does."""
    for program in ("debootstrap", "systemd-nspawn", "nsenter"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return None if os.geteuid() == 0 else "a container with systemd wants root"


def make_root(folder: Path, packages: Sequence[str] = PACKAGES) -> None:
    """Install Debian into an empty folder."""
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", SUITE, str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def make_wheels(folder: Path, extras: str = "web") -> None:
    """Collect asd-edge and all that it needs as wheels for that Debian's Python."""
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(REPOSITORY)], check=True)
    (own,) = folder.glob("asd_edge-*.whl")
    constraints = ["--constraint", str(REPOSITORY / "constraints.txt")]
    fitting = ["--only-binary=:all:", "--python-version", PYTHON, "--dest", str(folder)]
    subprocess.run([*pip, "download", *constraints, *fitting, f"{own}[{extras}]"], check=True)


class SystemdBox:
    """`with SystemdBox(root) as box:`; the box is shut down at the end, its files stay.

    Args:
        root: a Debian that `make_root` made.
        binds: folders of this machine that the box sees, read only, in /mnt.
    """

    def __init__(self, root: Path, binds: Sequence[Path] = ()) -> None:
        self.root = root
        self._binds = [f"--bind-ro={path}:/mnt/{path.name}" for path in binds]
        self._container: subprocess.Popen[bytes] | None = None
        self._first_process = 0

    def __enter__(self) -> Self:
        staging = Path("/run/systemd/nspawn")
        staging.mkdir(parents=True, exist_ok=True)
        if not os.path.ismount(staging) and not os.path.ismount("/run"):  # it refuses a disk there
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(staging)], check=True)
        command = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "-D", str(self.root)]
        self._container = subprocess.Popen(
            [*command, *self._binds], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._has_started, "the box has started")
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._container is not None
        if self._first_process:
            self.run("systemctl", "poweroff", check=False)
        try:
            self._container.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._container.kill()
            self._container.wait()

    def run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the box, as root; its output is text."""
        inside = ["nsenter", "--target", str(self._first_process), "--mount", "--uts", "--ipc", "--net", "--pid"]
        done = subprocess.run(
            [*inside, "--root", "--wdns=/", *map(str, words)], capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(map(str, words))}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def journal(self, unit: str) -> str:
        """What a unit has said."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}").stdout

    def _has_started(self) -> bool:
        assert self._container is not None
        assert self._container.poll() is None, "the container has ended"
        children = Path(f"/proc/{self._container.pid}/task/{self._container.pid}/children").read_text().split()
        if not children:
            return False
        self._first_process = int(children[0])
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in {"running", "degraded"}
