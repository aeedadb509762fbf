"""`python -m soak.package [FILE.deb]`: the Debian package in a small Debian of its own, from installation to purge (wants root).

Installed, it waits for a machine; one is learned, heard and fails, which makes an alert; removal leaves what was learned, purge leaves
nothing. Then version 0.1 is installed, learns a machine that fails, and is upgraded: what it learned is judged, the alert that is open and
waits for its broker arrives and closes, the configuration stays as it was changed. Without a FILE the package is built first.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from rig import earlier_version
from rig.broker import HOST, Broker, Subscriber
from rig.gate import Gate
from rig.systemd_box import REPOSITORY, SystemdBox, make_root, missing
from rig.waiting import wait_until

UNIT, PAGE = "asd-daemon", "asd-daemon-web"
STATE = "/var/lib/asd-daemon/all"
CONFIGURATION = "/etc/asd-daemon/asd-daemon.yaml"
EARLIER = "0.0.1"
HEALTHY = "fan?seed=4&speed=10"
FAILING = f"{HEALTHY}&fail=rubbing&fail_after=0"
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

    def learn(self) -> None:
        """Learn the machine, as root."""
        learn = ["--machine", "press", "--source", "simulate:fan?seed=4&speed=100", "--minutes", "8"]
        self.box.run("env", f"ASD_STATE_DIR={STATE}", "asd-daemon", "enroll", *learn)

    def listen_to(self, source: str, broker: int | None = None) -> None:
        """Configure one machine, and a broker's port, and restart."""
        content = {
            "node": "box",
            "machines": {"press": {"source": {"simulate": source}, "alarm": {"close_after": 2, "cool_down_s": 0}}},
            **({"mqtt": {"host": HOST, "port": broker}} if broker is not None else {}),
        }
        (self.box.root / CONFIGURATION[1:]).write_text(f"# changed by hand\n{json.dumps(content)}\n")
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

    @property
    def folder(self) -> Path:
        """The state folder, from outside."""
        return self.box.root / "var/lib/private/asd-daemon/all"

    def clips(self) -> list[Path]:
        """Sound that was kept."""
        return list(self.folder.glob("clips/press/*.flac"))

    def waiting(self) -> list[str]:
        """Kinds of the alerts that wait for the broker, in order; as another process reads them."""
        if not (self.folder / "alerts.sqlite").exists():
            return []
        with closing(sqlite3.connect(self.folder / "alerts.sqlite")) as database:
            tables = {name for (name,) in database.execute("select name from sqlite_master")}
            if "waiting" not in tables:
                return []
            return [kind for (kind,) in database.execute("select kind from waiting order by key")]

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


def prove_installation(box: SystemdBox, package: str) -> None:
    """Installed, learned, failing, removed, installed again, purged."""
    packaged, before = Packaged(box), Packaged(box).files()
    box.run("dpkg", "-i", package)
    wait_until(lambda: packaged.active(UNIT) and packaged.active(PAGE), "both units run after the installation")
    wait_until(lambda: bool(packaged.statuses()), "the daemon waits for a machine")
    say("installed: both units run, nothing is configured, the daemon waits")
    packaged.learn()
    packaged.listen_to(f"{HEALTHY}&fail=rubbing&fail_after=60")
    wait_until(lambda: bool(packaged.alerts()), "it fails")
    say(f"failing: {packaged.alerts()[0]['text']}")
    box.run("dpkg", "-r", "asd-edge")
    assert not packaged.active(UNIT)
    assert (box.root / "var/lib/private/asd-daemon/all/enrolled/press").is_dir(), "what was learned stays"
    box.run("dpkg", "-i", package)
    wait_until(lambda: packaged.scored("press") > 3, "it is judged when it is installed again")
    say("removed and installed again: the learned machine is judged")
    purge(packaged, before)


def prove_upgrade(box: SystemdBox, earlier: str, later: str, broker: Gate) -> None:
    """An earlier version learns a machine that then fails while no broker is there; the later one takes over all of it.

    Args:
        box: where.
        earlier: the earlier package.
        later: the later one.
        broker: the door to the broker; shut.
    """
    packaged, before = Packaged(box), Packaged(box).files()
    box.run("dpkg", "-i", earlier)
    say(box.run("asd-daemon", "--version").stdout.strip())
    packaged.learn()
    packaged.listen_to(FAILING, broker.port)  # from its first window, so that it goes on failing after each restart
    wait_until(lambda: "open" in packaged.waiting(), "the earlier version opens an alert")
    wait_until(lambda: bool(packaged.clips()), "and writes its sound")
    configuration = (box.root / CONFIGURATION[1:]).read_text()
    done = box.run("dpkg", "-i", "--force-confdef", later)
    say(done.stdout.strip().splitlines()[-1])
    wait_until(lambda: packaged.active(UNIT) and packaged.active(PAGE), "both units run after the upgrade")
    wait_until(lambda: packaged.scored("press") > 3, "what was learned is judged after the upgrade")
    assert (box.root / CONFIGURATION[1:]).read_text() == configuration, "a configuration that was changed by hand stays"
    assert packaged.waiting()[0] == "open", "the alert still waits"
    (alert,) = packaged.alerts()
    assert alert["closed_at"] is None, "it is open"
    say(f"upgraded: configuration kept, judged, alert {alert['event_id'][:8]} is open and waits for the broker")
    with Subscriber(broker.behind_port) as heard:
        broker.open()
        told = heard.wait_for(lambda m: m.topic == "asd/box/press/alert" and m.payload["kind"] == "open").payload
        assert (told["event_id"], told["clip"]) == (alert["event_id"], alert["clip"])
        packaged.listen_to(HEALTHY, broker.port)
        closed = heard.wait_for(lambda m: m.topic == "asd/box/press/alert" and m.payload["kind"] == "close").payload
        assert (closed["event_id"], closed["clip"]) == (alert["event_id"], alert["clip"])
        assert (packaged.folder / closed["clip"]).stat().st_size > 0, "with its sound"
        say("the broker came: the alert arrived under its name, and closed under it when the machine was well again")
        packaged.listen_to(FAILING, broker.port)
        again = heard.wait_for(
            lambda m: m.topic == "asd/box/press/alert" and m.payload["event_id"] != alert["event_id"]
        ).payload
        say(f"it failed again: {again['kind']}, score {again['peak_score']:.3g} of {again['threshold']:.3g}")
    purge(packaged, before)


def purge(packaged: Packaged, before: set[str]) -> None:
    """Take the package away with all that it has made; nothing may be left but what was there before."""
    packaged.box.run("dpkg", "-P", "asd-edge")
    left = sorted(path for path in packaged.files() - before if not path.startswith("/etc/systemd/system/multi-user"))
    assert left == [], f"purge leaves {left[:10]}"
    say("purged: nothing is left")


def earlier_package(later: Path, folder: Path) -> Path:
    """Version 0.1 where the history reaches back to it, else the later package under an earlier version, which is said."""
    if (why := earlier_version.missing()) is not None:
        say(f"the upgrade is from this version under another number: {why}")
        return with_version(later, EARLIER, folder)
    with tempfile.TemporaryDirectory() as name:
        return earlier_version.build_package(earlier_version.earlier_source(Path(name)), folder)


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
        earlier = earlier_package(later, packages)
        make_root(root, ("systemd", "systemd-sysv", "dbus", "python3", "libportaudio2"))
        with SystemdBox(root, [packages]) as box, Broker(folder / "broker") as broker, Gate(broker.port) as door:
            try:
                prove_installation(box, f"/mnt/packages/{later.name}")
                prove_upgrade(box, f"/mnt/packages/{earlier.name}", f"/mnt/packages/{later.name}", door)
            except AssertionError:
                say(box.run("journalctl", "--no-pager", "--lines=80", "--unit=asd-daemon*", check=False).stdout)
                raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
