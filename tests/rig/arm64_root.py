"""A small Debian for arm64 whose programs run here under qemu-user, with the edge and its libraries as wheels for arm64.

Made by debootstrap; nothing is compiled and pip does not run in it. Wants root, and a kernel that starts arm64 programs by qemu
(binfmt_misc with the flag F, as Debian's qemu-user-static registers it).
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SUITE, PYTHON = "bookworm", "3.11"
PACKAGES = ("python3", "libportaudio2", "mosquitto", "openssl")
PACKAGES_OF_TESTS = ("aiosmtpd", "pytest", "pytest-timeout", "hypothesis", "onnx", "psutil")
BINFMT = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
_LIBRARIES, _SOURCES = "opt/edge", "src"
# qemu-user shows this computer's own, by which onnxruntime crashes as soon as it finds /sys too
_CPUINFO = "".join(
    f"processor\t: {number}\nBogoMIPS\t: 38.40\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
    "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd03\nCPU revision\t: 4\n\n"
    for number in range(os.cpu_count() or 1)
)
_ENTER = """
mount --rbind /sys "$1/sys" && mount --rbind /dev "$1/dev" && mount --bind "$1/etc/cpuinfo" "$1/proc/cpuinfo" || exit 125
root=$1; shift
chroot "$root" /usr/bin/env -i "$@"
exit $?
"""  # not exec: a process with the number 1 is not ended by a crash, it hangs


def missing() -> str | None:
    """What keeps such a Debian from running here; None when nothing does."""
    if os.geteuid() != 0:
        return "a Debian of its own wants root"
    for program in ("debootstrap", "unshare", "chroot"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if platform.machine() == "aarch64":
        return None
    try:
        registered = BINFMT.read_text().splitlines()
    except OSError:
        return "arm64 programs can't be started: qemu-user-static is not installed, or binfmt_misc not mounted"
    flags = next((line.removeprefix("flags:").strip() for line in registered if line.startswith("flags:")), "")
    if "enabled" not in registered or "F" not in flags:
        return f"arm64 programs can't be started in another root: {BINFMT} is not enabled with the flag F"
    return None


class Arm64Root:
    """The folder in which it lies; what is there is used again."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(self) -> None:
        """Install Debian, the libraries and the sources, whichever are not there."""
        if not (self.root / "usr/bin/python3").exists():
            command = ["debootstrap", "--arch=arm64", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE]
            subprocess.run([*command, str(self.root)], check=True, stdout=subprocess.DEVNULL)
        if not (self.root / _LIBRARIES).is_dir():
            self._install_libraries()
        self._copy_sources()
        for folder in (_LIBRARIES, f"{_SOURCES}/daemon"):
            self._compile(self.root / folder)
        (self.root / "etc/cpuinfo").write_text(_CPUINFO)

    def run(
        self, *words: str, processor: str = "cortex-a53", more: Mapping[str, str] | None = None, timeout_s: float = 7200
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it, in the folder of the sources; its output is text.

        Args:
            words: the program and its arguments.
            processor: which one qemu imitates.
            more: further variables of its environment.
            timeout_s: after so long it is killed.

        Raises:
            subprocess.TimeoutExpired: it took longer.
        """
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PYTHONPATH": f"/{_SOURCES}/daemon:/{_LIBRARIES}",
            "OMP_NUM_THREADS": "1",
            "QEMU_CPU": processor,
            **(more or {}),
        }
        inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={self.root}/proc"]
        variables = [f"{name}={value}" for name, value in environment.items()]
        program = ["/bin/sh", "-c", 'cd "/$0" && exec "$@"', _SOURCES, *words]
        return subprocess.run(
            [*inside, "sh", "-c", _ENTER, "sh", str(self.root), *variables, *program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def _install_libraries(self) -> None:
        pip = [sys.executable, "-m", "pip", "--quiet"]
        platforms = [f"--platform={kind}_aarch64" for kind in ("manylinux_2_28", "manylinux_2_17", "manylinux2014")]
        fitting = ["--only-binary=:all:", "--python-version", PYTHON, *platforms, "--no-compile"]
        constraints = ["--constraint", str(REPOSITORY / "constraints.txt")]
        with tempfile.TemporaryDirectory() as wheels:
            subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", wheels, str(REPOSITORY)], check=True)
            (own,) = Path(wheels).glob("*.whl")
            target = ["--target", str(self.root / _LIBRARIES), *constraints, *fitting]
            subprocess.run([*pip, "install", *target, f"{own}[notify]", *PACKAGES_OF_TESTS], check=True)

    def _compile(self, folder: Path) -> None:
        """Compile its modules by this computer's Python, where that is the same: the imitated one would take minutes."""
        if f"{sys.version_info[0]}.{sys.version_info[1]}" == PYTHON:
            words = ["-m", "compileall", "-q", "-s", str(self.root), "-p", "/", str(folder)]
            subprocess.run([sys.executable, *words], check=False, stdout=subprocess.DEVNULL)

    def _copy_sources(self) -> None:
        """What git knows of this tree, as it is now."""
        sources = self.root / _SOURCES
        shutil.rmtree(sources, ignore_errors=True)
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, check=True, capture_output=True, text=True)
        for name in listed.stdout.split("\0"):
            if name and (REPOSITORY / name).is_file():
                (sources / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, sources / name)
