"""The add-on of Home Assistant: its options become a daemon and a page, with the broker that a supervisor offers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from rig.broker import HOST, PASSWORD, Broker, Received, Subscriber, free_port, mosquitto
from rig.daemon import ROOT, daemon_environment
from rig.waiting import PATIENT_S, wait_until

ADDON = ROOT / "deploy" / "home-assistant-addon" / "asd_edge"
TOKEN = "of-the-supervisor"


@contextmanager
def supervisor(port: int) -> Iterator[str]:
    """What Home Assistant answers an add-on that asks for its broker; gives the address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers["Authorization"] == f"Bearer {TOKEN}" and self.path == "/services/mqtt"
            offered = {"host": HOST, "port": port, "username": "asd", "password": PASSWORD, "ssl": False}
            body = json.dumps({"result": "ok", "data": {**offered, "protocol": "3.1.1"}}).encode() if known else b"{}"
            self.send_response(200 if known else 401)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer((HOST, 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def environment(data: Path, **more: str) -> dict[str, str]:
    return {
        **daemon_environment(data),
        "ADDON_DATA": str(data),
        "ASD_CONFIG": str(data / "asd-daemon.yaml"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **more,
    }


def word_of(message: Received) -> str:
    """What an availability says."""
    return str(message.payload.get("state", message.payload) if isinstance(message.payload, dict) else message.payload)


def page_answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/login", timeout=5) as answer:
            return answer.status == 200 and b"password" in answer.read().lower()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.mark.broker
@pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")
def test_addon_listens_with_the_broker_of_home_assistant_and_ends_whole(tmp_path: Path) -> None:
    data, port = tmp_path / "data", free_port()
    data.mkdir()
    (data / "options.json").write_text(json.dumps({"password": "correct horse", "node": "cellar"}))
    with Broker(tmp_path / "broker", password=True) as broker, supervisor(broker.port) as address:
        more = {"SUPERVISOR_URL": address, "SUPERVISOR_TOKEN": TOKEN, "ADDON_PORT": str(port)}
        with Subscriber(broker.port, "asd/cellar/availability", password=PASSWORD) as heard:
            addon = subprocess.Popen([sys.executable, str(ADDON / "start.py")], env=environment(data, **more))
            try:
                wait_until(
                    lambda: any(word_of(message) == "online" for message in heard.messages), "the daemon is online"
                )
                wait_until(lambda: page_answers(port), "the page answers")
                addon.terminate()
                addon.wait(PATIENT_S)
                wait_until(lambda: not page_answers(port), "the page is gone")
                wait_until(lambda: word_of(heard.messages[-1]) == "stopped", "the daemon has said goodbye")
            finally:
                addon.kill()
                addon.wait()
    written = yaml.safe_load((data / "asd-daemon.yaml").read_text())
    assert written["mqtt"]["commands"] is True
    assert PASSWORD not in (data / "asd-daemon.yaml").read_text()
    for name in ("asd-daemon.yaml", "mqtt-password", "web-passwords"):
        assert (data / name).stat().st_mode & 0o777 == 0o600


def test_addon_without_a_password_says_so_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text(json.dumps({"password": ""}))
    done = subprocess.run(
        [sys.executable, str(ADDON / "start.py")],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("asd-edge: option password: ")
    assert len(done.stderr.splitlines()) == 1


def test_addon_describes_every_option_and_bears_the_version_of_the_project() -> None:
    config = yaml.safe_load((ADDON / "config.yaml").read_text())
    words = yaml.safe_load((ADDON / "translations" / "en.yaml").read_text())
    assert words["configuration"].keys() == config["schema"].keys()
    assert config["options"].keys() <= config["schema"].keys()
    asked = set(re.findall(r'options\.get\("(\w+)"', (ADDON / "start.py").read_text()))
    assert asked | {f"mqtt_{name}" for name in ("host", "port", "username", "password")} == config["schema"].keys()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert config["version"] == version
    assert f"asd-edge:{version}" in (ADDON / "Dockerfile").read_text()
