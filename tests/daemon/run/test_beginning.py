"""The start of the daemon: microphones record before all else is loaded, and what is not needed to listen is not loaded at all."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rig.daemon import ask, daemon_environment
from rig.waiting import wait_until

HEAVY = ("numpy", "soxr", "soundfile", "onnxruntime", "cryptography", "paho", "sqlite3", "http", "prometheus_client")
FIRST = f"""
import json, os, sys
begun = []
def look(event, of):
    if event == 'subprocess.Popen' and 'asd_daemon.hear.sources.recorder' in of[1]:
        begun.append(sorted({{*{HEAVY!r}, 'asd_daemon.judge.bundle.bundle', 'asd_daemon.run.assembly'}} & set(sys.modules)))
    elif event == 'open' and str(of[0]).endswith('manifest.json'):
        os.write(1, json.dumps(begun).encode())
        os._exit(0)
sys.addaudithook(look)
from asd_daemon.cli.program import main
main()
"""


def asked(code: str, *words: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A process of that code, with words of the program."""
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, env=daemon_environment(home), capture_output=True, text=True, check=True)


def test_recording_begins_before_a_library_is_loaded_and_the_bundle_is_opened(tmp_path: Path) -> None:
    words = ("run", "--machine", "fan", "--source", "device:none", "--wait-for-device", "--no-mqtt")
    done = asked(FIRST, *words, home=tmp_path)
    assert json.loads(done.stdout.splitlines()[-1]) == [[]], done.stderr


LISTENS = """
import json, sys
from asd_daemon.cli.program import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)))
"""
NOT_NEEDED = (
    *(
        "onnxruntime",
        "soxr",
        "hnswlib",
        "cryptography",
        "paho",
        "ssl",
        "http",
        "asyncio",
        "prometheus_client",
        "structlog",
    ),
    *(
        "apprise",
        "starlette",
        "asd_daemon.web",
        "asd_daemon.rollout",
        "asd_daemon.tell.mqtt",
        "asd_daemon.watch.metrics",
    ),
    *("asd_daemon.watch.dead_man_ping", "asd_daemon.learn.machine_archive", "asd_daemon.run.inspection"),
)


def test_daemon_that_judges_by_views_and_publishes_nothing_loads_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    source = "simulate:fan?seconds=10&speed=max"
    words = ("run", "--machine", "fan", "--source", source, "--no-mqtt", "--events", "json")
    done = asked(LISTENS, *words, home=tmp_path)
    *events, loaded = map(json.loads, done.stdout.splitlines())
    assert [event["topic"] for event in events].count("score") == 1
    below = tuple(f"{name}." for name in NOT_NEEDED)
    assert [name for name in loaded if name in NOT_NEEDED or name.startswith(below)] == []


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("machines: {fan: {source: {device: none, channels: 1}}}", 2, "channels"),
        ("machines: {fan: {source: {device: none, channel: 0.5}}}", 2, "channel"),
        (
            "machines: {fan: {source: {device: none}}}\nmqtt: {host: h, username: u, password_file: /none}",
            2,
            "mqtt.password_file",
        ),
        ("machines: {fan: {source: {device: none}}}\nbundle: /none", 3, "/none"),
    ],
)
def test_what_is_wrong_is_refused_as_ever_and_leaves_no_recorder(
    tmp_path: Path, content: str, code: int, words: str
) -> None:
    (tmp_path / "c.yaml").write_text(content + "\n")
    done = ask("run", "--config", tmp_path / "c.yaml", "--wait-for-device", home=tmp_path)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "listening" not in done.stderr
    wait_until(lambda: not recorders(tmp_path / "state"), "no recorder is left")


def recorders(state: Path) -> list[psutil.Process]:
    """Those that a daemon with this state folder has started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("ASD_STATE_DIR") == str(state) and "asd_daemon.hear" in " ".join(
                process.cmdline()
            ):
                found.append(process)
    return found
