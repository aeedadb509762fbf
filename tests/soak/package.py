"""`python -m soak.package [FILE.deb]`: the Debian package in a small Debian of its own, from installation to purge (wants root).

An earlier version is installed and waits for a machine; one is learned and heard; the upgrade keeps it judged and the configuration as it
was changed; it fails, which makes an alert; removal leaves what was learned, purge leaves nothing. Without a FILE the package is built
first.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rig.systemd_box import REPOSITORY, SystemdBox, make_root, missing
from rig.waiting import wait_until

UNIT, PAGE = "asd-daemon", "asd-daemon-web"
STATE = "/var/lib/asd-daemon/all"
CONFIGURATION = "/etc/asd-daemon/asd-daemon.yaml"
EARLIER = "0.0.1"
_OF_NO_PACKAGE = (
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/mnt",
    "/var/log",
    "/var/cache",
    "/var/lib/dpkg",
    "/var/lib/systemd/random",
)


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Packaged:
    """asd-edge in a box, as its package installs it."""

    def __init__(self, box: SystemdBox) -> None:
        self.box = box

    def statuses(self) -> list[dict[str, Any]]:
        """What the running daemons say."""
        told = self.box.run("asd-daemon", "status", "--json", check=False).stdout
        try:
            return list(json.loads(told))
        except json.JSONDecodeError:
            return []

    def scored(self, machine: str) -> int:
        """Windows that were judged since the start."""
        machines = [status["machines"][machine] for status in self.statuses() if machine in status["machines"]]
        return int(machines[0]["counts"]["scored"]) if machines else 0

    def listen_to(self, source: str) -> None:
        """Configure one machine and restart."""
        content = {"machines": {"press": {"source": {"simulate": source}}}}
        (self.box.root / CONFIGURATION[1:]).write_text(json.dumps(content))
        self.box.run("systemctl", "restart", UNIT)

    def active(self, unit: str) -> bool:
        """Whether a unit runs."""
        return self.box.run("systemctl", "is-active", unit, check=False).stdout.strip() == "active"

    def alerts(self) -> list[dict[str, Any]]:
        """Those that are kept."""
        told = self.box.run(
            "env", f"ASD_STATE_DIR={STATE}", "asd-daemon", "alerts", "list", "--json", check=False
        ).stdout
        return [json.loads(line) for line in told.splitlines()]

    def files(self) -> set[str]:
        """Every file and folder that a package could have left."""
        pruned = [word for path in _OF_NO_PACKAGE for word in ("-path", path, "-prune", "-o")]
        return set(self.box.run("find", "/", *pruned, "-print").stdout.splitlines())


def with_version(package: Path, version: str, out: Path) -> Path:
    """The same package under another version."""
    with tempfile.TemporaryDirectory(dir=out) as name:
        tree = Path(name) / "tree"
        subprocess.run(["dpkg-deb", "-R", str(package), str(tree)], check=True)
        control = tree / "DEBIAN" / "control"
        lines = control.read_text().splitlines()
        control.write_text("".join(f"Version: {version}\n" if x.startswith("Version:") else f"{x}\n" for x in lines))
        file = out / f"asd-edge_{version}.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(file)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return file


def prove(box: SystemdBox, earlier: str, later: str) -> None:
    """All that must hold of the package."""
    packaged, before = Packaged(box), Packaged(box).files()
    box.run("dpkg", "-i", earlier)
    wait_until(lambda: packaged.active(UNIT) and packaged.active(PAGE), "both units run after the installation")
    wait_until(lambda: bool(packaged.statuses()), "the daemon waits for a machine")
    say("installed: both units run, nothing is configured, the daemon waits")
    learn = ["--machine", "press", "--source", "simulate:fan?seed=4&speed=100", "--minutes", "20"]
    box.run("env", f"ASD_STATE_DIR={STATE}", "asd-daemon", "enroll", *learn)
    packaged.listen_to("fan?seed=4&speed=10")
    wait_until(lambda: packaged.scored("press") > 3, "the learned machine is judged")
    done = box.run("dpkg", "-i", "--force-confdef", later)
    say(done.stdout.strip().splitlines()[-1])
    wait_until(lambda: packaged.scored("press") > 3, "it is judged after the upgrade")
    assert "press" in (box.root / CONFIGURATION[1:]).read_text(), "the changed configuration stays"
    assert packaged.alerts() == [], "a healthy machine"
    say("upgraded: configuration kept, the learned machine is judged, no alert")
    packaged.listen_to("fan?seed=4&speed=10&fail=rubbing&fail_after=60")
    wait_until(lambda: bool(packaged.alerts()), "it fails")
    say(f"failing: {packaged.alerts()[0]['text']}")
    box.run("dpkg", "-r", "asd-edge")
    assert not packaged.active(UNIT)
    assert (box.root / "var/lib/private/asd-daemon/all/enrolled/press").is_dir(), "what was learned stays"
    box.run("dpkg", "-i", later)
    wait_until(lambda: packaged.scored("press") > 3, "it is judged when it is installed again")
    say("removed and installed again: the learned machine is judged")
    box.run("dpkg", "-P", "asd-edge")
    left = sorted(path for path in packaged.files() - before if not path.startswith("/etc/systemd/system/multi-user"))
    assert left == [], f"purge leaves {left[:10]}"
    say("purged: nothing is left")


def main() -> int:
    """Everything in turn; 1 where something does not hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", nargs="?", type=Path)
    wanted = parser.parse_args()
    if (why := missing()) is not None:
        say(f"skipped: {why}")
        return 0
    with tempfile.TemporaryDirectory(prefix="asd-package-") as name:
        folder = Path(name)
        packages, root = folder / "packages", folder / "root"
        packages.mkdir()
        later = packages / "later.deb"
        if wanted.file is None:
            words = [sys.executable, "deploy/debian/build.py", "--out", str(folder)]
            built = subprocess.run(words, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.split()[-1]
            shutil.move(built, later)
        else:
            shutil.copy(wanted.file, later)
        earlier = with_version(later, EARLIER, packages)
        make_root(root, ("systemd", "systemd-sysv", "dbus", "python3", "libportaudio2"))
        with SystemdBox(root, [packages]) as box:
            try:
                prove(box, f"/mnt/packages/{earlier.name}", f"/mnt/packages/{later.name}")
            except AssertionError:
                say(box.run("journalctl", "--no-pager", "--lines=80", "--unit=asd-daemon*", check=False).stdout)
                raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
