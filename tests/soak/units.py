"""`python -m soak.units`: the units under a real systemd, in a small Debian of its own (a container; wants root).

Installed as a user would, two machines listen; then the configuration is changed and reloaded, again and again; a daemon is killed; the
page is asked and restarted, a webhook is told. What must hold: a reload costs no window and keeps the process, what needs a restart is said
in the journal, what was killed listens again, the page answers, and an address that root alone may read gets its message.
"""

from __future__ import annotations

import json
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from rig.people import HOST, Webhook
from rig.systemd_box import SystemdBox, make_root, make_wheels, missing
from rig.waiting import wait_until

CONFIGURATION = "/etc/asd-daemon/asd-daemon.yaml"
PROGRAM = "/opt/asd-edge/bin/asd-daemon"
FAN, GEARBOX = "asd-daemon@fan", "asd-daemon@gearbox"
RELOADS = 20


class Installed:
    """asd-edge in a box, with simulated machines."""

    def __init__(self, box: SystemdBox) -> None:
        self.box = box
        box.run("python3", "-m", "venv", "/opt/asd-edge")
        pip = ["/opt/asd-edge/bin/pip", "install", "--quiet", "--no-index", "--find-links", "/mnt/wheels"]
        box.run(*pip, "asd-edge[web,notify]")
        self.machines: dict[str, dict[str, Any]] = {
            name: {"source": {"simulate": f"{name}?speed=4"}} for name in ("fan", "gearbox")
        }
        self.write()
        words = [word for name in self.machines for word in ("--machine", name)]
        say(box.run(PROGRAM, "service", "install", *words).stdout)
        box.run("systemctl", "daemon-reload")

    def write(self, **top: Any) -> None:
        """Write the configuration as it is now."""
        file = self.box.root / CONFIGURATION[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"mqtt": {"host": "127.0.0.1"}, "machines": self.machines, **top}))

    def status(self, machine: str) -> dict[str, Any] | None:
        """What the daemon of a machine says of it; None before it says anything."""
        told = self.box.run(PROGRAM, "status", "--json", check=False).stdout
        try:
            found = [one["machines"][machine] for one in json.loads(told) if machine in one["machines"]]
        except json.JSONDecodeError:
            return None
        return found[0] if found else None

    def scored(self, machine: str) -> int:
        """Windows that were judged since the start."""
        status = self.status(machine)
        return 0 if status is None else int(status["counts"]["scored"])

    def show(self, unit: str, key: str) -> str:
        """One property of a unit."""
        return self.box.run("systemctl", "show", "--value", f"--property={key}", unit).stdout.strip()


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Everything in turn; 1 where something does not hold."""
    if (why := missing()) is not None:
        say(f"skipped: {why}")
        return 0
    with tempfile.TemporaryDirectory(prefix="asd-units-") as folder:
        root, wheels = Path(folder) / "root", Path(folder) / "wheels"
        say("Debian and wheels …")
        make_root(root)
        make_wheels(wheels, "web,notify")
        with SystemdBox(root, [wheels]) as box:
            try:
                prove(Installed(box))
            except AssertionError:
                say(box.run("journalctl", "--no-pager", "--lines=60", check=False).stdout)
                raise
    return 0


def prove(installed: Installed) -> None:
    """All that must hold of units."""
    box = installed.box
    box.run("systemctl", "enable", "--now", "mosquitto", FAN, GEARBOX, "asd-daemon-web")
    for machine in installed.machines:
        wait_until(lambda machine=machine: installed.scored(machine) > 2, f"{machine} is judged")  # type: ignore[misc]
    reloads(installed)
    killed(installed)
    page(installed)
    people(installed)
    stopped(installed)


def reloads(installed: Installed) -> None:
    """`systemctl reload` takes a change on and costs no window."""
    process = installed.show(FAN, "MainPID")
    for number in range(RELOADS):
        installed.machines["fan"]["alarm"] = {"threshold": 5.0 + number}
        installed.write()
        installed.box.run("systemctl", "reload", FAN)
        wanted = 5.0 + number
        wait_until(lambda wanted=wanted: threshold(installed, "fan") == wanted, f"threshold {wanted}")  # type: ignore[misc]
    counts = (installed.status("fan") or {})["counts"]
    lost = {what: counts[what] for what in ("dropped", "gaps")}
    assert not any(lost.values()), f"windows lost over {RELOADS} reloads: {lost}"
    assert installed.show(FAN, "MainPID") == process, "a reload is no restart"
    installed.write(mqtt={"host": "elsewhere"})
    installed.box.run("systemctl", "reload", FAN)
    wait_until(lambda: "restart" in installed.box.journal(FAN), "what needs a restart is said")
    (installed.box.root / CONFIGURATION[1:]).write_text("machines: [")
    installed.box.run("systemctl", "reload", FAN)
    wait_until(lambda: "is no YAML" in installed.box.journal(FAN), "a broken configuration is named")
    heard = installed.scored("fan")
    wait_until(lambda: installed.scored("fan") > heard, "it listens on")
    installed.write()
    say(f"{RELOADS} reloads: {counts['scored']} windows judged, none lost, the same process")


def threshold(installed: Installed, machine: str) -> float | None:
    """The limit in force."""
    status = installed.status(machine) or {}
    value = status.get("threshold")
    return None if value is None else float(value)


def killed(installed: Installed) -> None:
    """What was killed listens again by itself."""
    installed.box.run("systemctl", "kill", "--signal=KILL", GEARBOX)
    wait_until(lambda: installed.show(GEARBOX, "NRestarts") == "1", "it is started again")
    wait_until(lambda: installed.show(GEARBOX, "ActiveState") == "active", "it is ready again")
    before = installed.scored("gearbox")
    wait_until(lambda: installed.scored("gearbox") > before, "it listens again")
    say("killed: listens again")


def page(installed: Installed) -> None:
    """The page runs under its unit, sees the machines of other users and answers after a restart."""
    for _ in range(2):
        wait_until(lambda: all(name in fetched("/") for name in installed.machines), "the page shows the machines")
        restarted = installed.show("asd-daemon-web", "MainPID")
        installed.box.run("systemctl", "restart", "asd-daemon-web")
        assert installed.show("asd-daemon-web", "MainPID") != restarted
    wait_until(lambda: "listening" in fetched("/").lower(), "the page answers after a restart")
    process = installed.box.run("cat", f"/proc/{installed.show('asd-daemon-web', 'MainPID')}/status").stdout
    (memory,) = (line.split()[1] for line in process.splitlines() if line.startswith("VmRSS"))
    say(f"page: answers, also after a restart; {int(memory) / 1024:.0f} MB")


def people(installed: Installed) -> None:
    """Somebody is told by the unit's own user, with an address that root alone may read."""
    with Webhook() as hook:
        urls = installed.box.root / "etc/asd-daemon/notify-urls"
        urls.write_text(f"ops = json://box:hunter2@{HOST}:{hook.port}\n")
        urls.chmod(0o600)
        installed.machines["fan"] = {"source": {"simulate": "fan?speed=10&fail=rubbing&fail_after=60"}}
        installed.write(notify={"urls_credential": "notify-urls", "storm_s": 0})
        installed.box.run(
            PROGRAM, "service", "install", *(w for name in installed.machines for w in ("--machine", name))
        )
        installed.box.run("systemctl", "daemon-reload")
        installed.box.run("systemctl", "restart", FAN)
        (told,) = hook.wait_for(1)[:1]
    assert told["title"] == "fan: sounds wrong"
    assert told["attachments"], "with its picture"
    assert "hunter2" not in installed.box.journal(FAN)
    say("people: told by the unit, with a picture")


def fetched(path: str) -> str:
    """What the page answers; the box shares this machine's network."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:8470{path}", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def stopped(installed: Installed) -> None:
    """A stop is clean, and taking the service away leaves the configuration."""
    installed.box.run("systemctl", "stop", FAN)
    assert installed.show(FAN, "Result") == "success"
    installed.box.run("systemctl", "disable", "--now", GEARBOX, "asd-daemon-web")
    installed.box.run(PROGRAM, "service", "uninstall")
    assert (installed.box.root / CONFIGURATION[1:]).exists()
    say("stopped cleanly, units gone, configuration kept")


if __name__ == "__main__":
    sys.exit(main())
