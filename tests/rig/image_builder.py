"""The container image without a registry: built by buildah from a Debian that debootstrap makes, run by systemd-nspawn.

Images lie in a folder of their own (driver vfs), steps are done by chroot, so that no container engine has to run. Wants root.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from rig.systemd_box import REPOSITORY, make_root
from rig.waiting import PATIENT_S, wait_until

BASE = "localhost/debian-python:bookworm"
IMAGE = "localhost/asd-edge:soak"
_PACKAGES = ("python3", "python3-pip", "ca-certificates")
_AUTHORITIES = Path("etc/ssl/certs/ca-certificates.crt")


def missing() -> str | None:
    """What keeps an image from being built and run here; None when nothing does."""
    for program in ("buildah", "debootstrap", "systemd-nspawn", "nsenter"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return None if os.geteuid() == 0 else "a root file system wants root"


class ImageBuilder:
    """Builds images in a folder.

    Args:
        store: where images lie; a base that is there already is taken.
    """

    def __init__(self, store: Path) -> None:
        self._store = store

    def run(self, *words: object) -> str:
        """What a command of buildah says.

        Raises:
            subprocess.CalledProcessError: it fails, and has said why.
        """
        places = [
            "--root",
            str(self._store / "images"),
            "--runroot",
            str(self._store / "run"),
            "--storage-driver",
            "vfs",
        ]
        done = subprocess.run(
            ["buildah", *places, *map(str, words)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout.strip()

    def make_base(self, folder: Path) -> None:
        """A Debian with Python and pip, as `BASE`, unless there is one; it trusts whom this machine trusts."""
        if any(BASE in (image["names"] or ()) for image in json.loads(self.run("images", "--json") or "[]")):
            return
        make_root(folder, _PACKAGES)
        shutil.copy(Path("/") / _AUTHORITIES, folder / _AUTHORITIES)
        for mark in folder.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            mark.unlink()  # an image of Python has none
        shutil.rmtree(folder / "var/cache/apt/archives", ignore_errors=True)
        container = self.run("from", "scratch")
        self.run("add", "--quiet", container, folder, "/")
        self.run("config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
        self.run("commit", "--quiet", "--rm", container, BASE)

    def build(self) -> dict[str, Any]:
        """Build deploy/Containerfile as `IMAGE`; what the image says of itself, as Docker's format has it."""
        words = ["--format", "docker", "--isolation", "chroot", "--build-arg", f"BASE={BASE}", "--tag", IMAGE]
        self.run("build", *words, "--file", "deploy/Containerfile", ".")
        config: dict[str, Any] = json.loads(self.run("inspect", "--type", "image", IMAGE))["Docker"]["config"]
        return config

    def bytes_of(self, image: str) -> int:
        """Its size, of all layers together."""
        manifest = json.loads(json.loads(self.run("inspect", "--type", "image", image))["Manifest"])
        return sum(int(layer["size"]) for layer in manifest["layers"])

    def mount(self) -> tuple[str, Path]:
        """A container of `IMAGE`, and where its root lies."""
        container = self.run("from", IMAGE)
        return container, Path(self.run("mount", container))


class RunningImage:
    """`with RunningImage(root, config, …) as running:`; the root can't be written, no right is left, the network is this machine's.

    Args:
        root: of the image.
        config: what the image says of itself.
        command: in place of its own.
        volumes: folders of this machine by their places inside; those that end in `:ro` can't be written.
    """

    def __init__(
        self, root: Path, config: Mapping[str, Any], command: list[str], volumes: Mapping[str, Path], log: Path
    ) -> None:
        self._user, self._log = str(config["User"]), log
        words = [
            "systemd-nspawn",
            "--quiet",
            "--register=no",
            "--keep-unit",
            "--as-pid2",
            "--read-only",
            "--tmpfs=/tmp",
        ]
        words += ["--directory", str(root), "--no-new-privileges=yes"]
        words += [f"--setenv={one}" for one in config["Env"]]
        for place, folder in volumes.items():
            inside, _, how = place.partition(":")
            (root / inside.lstrip("/")).mkdir(parents=True, exist_ok=True)  # as engines do
            words.append(f"--bind{'-ro' if how == 'ro' else ''}={folder}:{inside}")
        rights = ["setpriv", f"--reuid={self._user}", f"--regid={self._user}", "--init-groups", "--bounding-set=-all"]
        self._command = [*words, "--", *rights, *config["Entrypoint"], *command]

    def __enter__(self) -> Self:
        staging = Path("/run/systemd/nspawn")
        staging.mkdir(parents=True, exist_ok=True)
        if not os.path.ismount(staging) and not os.path.ismount("/run"):  # it refuses a disk there
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(staging)], check=True)
        with self._log.open("wb") as log:
            self._container = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.pid = 0
        wait_until(self._has_started, "the program of the image runs")
        return self

    def __exit__(self, *exc: object) -> None:
        if self._container.poll() is None:
            self._container.terminate()
            self._container.wait(PATIENT_S)

    def _has_started(self) -> bool:
        assert self._container.poll() is None, self._log.read_text()
        self.pid = next((pid for pid in _descendants(self._container.pid) if _says(pid, "asd-daemon")), 0)
        return self.pid != 0

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command beside it, as its user."""
        inside = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--uts", "--ipc", "--root", "--wdns=/"]
        rights = ["--setuid", self._user, "--setgid", self._user, "env", "-i", *self._environment()]
        return subprocess.run([*inside, *rights, *words], capture_output=True, text=True, check=False)

    def _environment(self) -> list[str]:
        return [one for one in Path(f"/proc/{self.pid}/environ").read_text().split("\0") if one]

    def status(self) -> dict[str, str]:
        """Lines of its /proc/PID/status."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def stop(self) -> int:
        """End it as an engine does; the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self._container.wait(PATIENT_S)


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [found for child in children for found in (child, *_descendants(child))]


def _says(pid: int, word: str) -> bool:
    try:
        return word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1]
    except (OSError, IndexError):
        return False
