"""Start asd-edge as an add-on: the options of Home Assistant become its configuration; daemon and page run until one of them ends.

Needs the libraries of asd-edge, which the image has. Options lie in /data/options.json, the broker is asked of the supervisor.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from asd_daemon.errors import AsdError, SettingsError
from asd_daemon.private_files import write_private
from asd_daemon.web.sessions import set_password

SUPERVISOR = os.environ.get("SUPERVISOR_URL", "http://supervisor")
PORT = int(os.environ.get("ADDON_PORT", "8470"))
PATIENCE_S = 20.0


def main(data: Path) -> int:
    """Run until a signal or until daemon or page ends; the exit code of which ended first."""
    try:
        options = json.loads((data / "options.json").read_text(encoding="utf-8"))
        write_configuration(data, options)
    except (OSError, ValueError, AsdError) as e:
        print(f"asd-edge: {e}", file=sys.stderr)
        return 2
    started = [subprocess.Popen(["asd-daemon", *words]) for words in (["run", "--wait-for-device"], ["web"])]

    def stop(_number: int, _frame: object) -> None:
        for process in started:
            process.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    ended, _ = os.wait()
    first = next(process for process in started if process.pid == ended)
    for process in started:
        if process is not first:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
    return first.wait()


def write_configuration(data: Path, options: dict[str, Any]) -> None:
    """asd-daemon.yaml and the files of passwords beside it, anew at every start; what was learned and chosen is not in them.

    Raises:
        SettingsError: an option is missing or wrong; names it.
        OSError: a file can't be written.
    """
    logins = data / "web-passwords"
    try:
        set_password(logins, "operator", options.get("password") or "")
    except SettingsError as e:
        raise SettingsError(f"option password: {e}") from e
    configuration: dict[str, Any] = {
        "node": options.get("node") or "home-assistant",
        "machines": {},  # they are learned at the page
        "web": {"host": "0.0.0.0", "port": PORT, "password_file": str(logins)},  # of the container
    }
    broker = _broker(options)
    if broker is not None:
        password = broker.pop("password", None)
        configuration["mqtt"] = {**broker, "commands": options.get("commands", True)}
        if password:
            file = data / "mqtt-password"
            write_private(file, f"{password}\n")
            configuration["mqtt"]["password_file"] = str(file)
    else:
        print("asd-edge: Home Assistant offers no broker; alerts stay on the page", file=sys.stderr)
    write_private(data / "asd-daemon.yaml", yaml.safe_dump(configuration, sort_keys=False))


def _broker(options: dict[str, Any]) -> dict[str, Any] | None:
    """The broker of the options, else the one of Home Assistant; None where there is none."""
    if options.get("mqtt_host"):
        found = {name: options.get(f"mqtt_{name}") for name in ("host", "port", "username", "password")}
        return {name: value for name, value in found.items() if value}
    request = urllib.request.Request(
        f"{SUPERVISOR}/services/mqtt", headers={"Authorization": f"Bearer {os.environ.get('SUPERVISOR_TOKEN', '')}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            offered = json.load(answer)["data"]
    except (urllib.error.URLError, TimeoutError, ValueError, KeyError):
        return None
    known = {name: offered.get(name) for name in ("host", "port", "username", "password")}
    if offered.get("ssl"):
        known["tls"] = True
    return {name: value for name, value in known.items() if value}


if __name__ == "__main__":
    sys.exit(main(Path(os.environ.get("ADDON_DATA", "/data"))))
