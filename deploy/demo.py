"""`make demo`: a simulated fan that begins to fail and is repaired, as an MQTT subscriber hears of it.

Starts a private mosquitto on a free port of loopback, subscribes, runs `asd-daemon run` as a user would, and prints what arrives, in the
lines of `asd-daemon watch`. Ends with 0 only if the alert opened and closed. Needs what the edge needs, and mosquitto.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from asd_daemon.watch.live_view import LiveView

HOST = "127.0.0.1"
NODE, MACHINE = "demo", "fan"
FAILS_AFTER_S, REPAIRED_AFTER_S, ENDS_AFTER_S = 60, 130, 260
LIMIT_S = 110.0


@dataclass(frozen=True)
class Message:
    """One MQTT message."""

    topic: str
    payload: str


@dataclass(frozen=True)
class LogLine:
    """One line of the daemon's log."""

    text: str


Item = Message | LogLine


def fail(reason: str) -> int:
    """Say what is wrong in one line."""
    print(f"error: {reason}", file=sys.stderr)
    return 3


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as s:
        s.bind((HOST, 0))
        return int(s.getsockname()[1])


def start_broker(program: str, folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A mosquitto that takes connections."""
    configuration = folder / "mosquitto.conf"
    configuration.write_text(f"listener {port} {HOST}\nallow_anonymous true\npersistence false\n")
    broker = subprocess.Popen([program, "-c", str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection((HOST, port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return broker
    broker.kill()
    raise RuntimeError("mosquitto does not take connections")


def subscribe(port: int, inbox: queue.SimpleQueue[Item]) -> paho.Client:
    """A subscriber to everything, whose messages go into the inbox."""
    ready = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="demo-subscriber")
    client.on_connect = lambda c, *_: c.subscribe("asd/#", qos=1)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _c, _d, m: inbox.put(Message(m.topic, m.payload.decode(errors="replace")))
    client.connect(HOST, port)
    client.loop_start()
    if not ready.wait(10):
        raise RuntimeError("mosquitto does not accept a subscriber")
    return client


def start_daemon(
    folder: Path, port: int, speed: float, bundle: Path | None, inbox: queue.SimpleQueue[Item]
) -> subprocess.Popen[str]:
    """`asd-daemon run` on a simulated fan, its log into the inbox too."""
    source = (
        f"simulate:{MACHINE}?fail=rubbing&fail_after={FAILS_AFTER_S}&repair_after={REPAIRED_AFTER_S}"
        f"&seconds={ENDS_AFTER_S}&speed={speed:g}"
    )
    # No configuration of this box shall have a say
    configuration = folder / "asd-daemon.yaml"
    configuration.write_text(f"node: {NODE}\nmqtt: {{host: {HOST}, port: {port}}}\n")
    words = ["run", "--machine", MACHINE, "--config", str(configuration), "--source", source, "--log", "json"]
    words += ["--bundle", str(bundle)] if bundle else []
    print(f"$ asd-daemon run --machine {MACHINE} --broker {HOST}:{port} --source '{source}'\n")
    command = [sys.executable, "-c", "from asd_daemon.cli.program import main; main()", *words]
    state = {
        **os.environ,
        "ASD_STATE_DIR": str(folder / "state"),
    }  # nothing of this stays, and nothing of an earlier run counts
    daemon = subprocess.Popen(command, env=state, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def read(log: IO[str]) -> None:
        for line in log:
            inbox.put(LogLine(line.rstrip()))

    if daemon.stderr is not None:
        threading.Thread(target=read, args=(daemon.stderr,), daemon=True).start()
    return daemon


def start_page(folder: Path) -> subprocess.Popen[bytes]:
    """`asd-daemon web` on the demo's state, while it lasts."""
    port = free_port()
    print(f"Look at it meanwhile: http://{HOST}:{port}/   (`make demo-web` leaves such a page running)\n", flush=True)
    command = [sys.executable, "-c", "from asd_daemon.cli.program import main; main()", "web", "--port", str(port)]
    environment = {**os.environ, "ASD_STATE_DIR": str(folder / "state"), "ASD_CONFIG": str(folder / "asd-daemon.yaml")}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def show(item: Item, view: LiveView) -> str | None:
    """Print an item; the kind of alert it is, if it is one."""
    if isinstance(item, LogLine):
        try:
            lines = view.note(f"   daemon: {json.loads(item.text)['message']}")
        except ValueError:
            lines = view.note(f"   daemon: {item.text}")
        kind = None
    else:
        what = item.topic.rsplit("/", 1)[-1]
        if what in ("availability", "picture"):
            words = item.payload if what == "availability" else "(a picture of its sound beside a normal one)"
            lines, kind = view.note(f"   {item.topic} {words}"), None
        else:
            content = json.loads(item.payload)
            lines, kind = view.lines(what, content), str(content["kind"]) if what == "alert" else None
    for line in lines:
        print(line, flush=True)
    return kind


def watch(daemon: subprocess.Popen[str], inbox: queue.SimpleQueue[Item]) -> list[str]:
    """Print all that comes until the daemon has ended, or too much time has passed; the kinds of alerts seen."""
    view = LiveView(shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    seen: list[str] = []
    deadline_s = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline_s:
        try:
            kind = show(inbox.get(timeout=0.3), view)
        except queue.Empty:
            if daemon.poll() is not None:
                break
            continue
        if kind is not None:
            seen.append(kind)
    return seen


def end(process: subprocess.Popen[Any] | None) -> None:
    """Stop a process, politely at first."""
    if process is not None and process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def main() -> int:
    """Run the demo; its exit code."""
    parser = argparse.ArgumentParser(
        description="A simulated fan that fails and is repaired, seen by an MQTT subscriber."
    )
    parser.add_argument("--speed", type=float, default=10.0, help="how many times faster than real time (default 10)")
    parser.add_argument("--bundle", type=Path, help="another bundle than the program's own")
    given = parser.parse_args()
    speed = given.speed
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        return fail("mosquitto is not installed: run deploy/system-packages.sh broker")
    print(
        f"A simulated fan: healthy, rubbing from {FAILS_AFTER_S} s on, repaired at {REPAIRED_AFTER_S} s of its own time.\n"
        f"The simulator runs {speed:g} times faster than real time; a microphone would take {ENDS_AFTER_S} s for this.\n"
    )
    broker = daemon = subscriber = page = None
    inbox: queue.SimpleQueue[Item] = queue.SimpleQueue()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="asd-demo-") as folder:
        try:
            broker = start_broker(program, Path(folder), port)
            subscriber = subscribe(port, inbox)
            daemon = start_daemon(Path(folder), port, speed, given.bundle, inbox)
            page = start_page(Path(folder))
            seen = watch(daemon, inbox)
        except RuntimeError as e:
            return fail(str(e))
        finally:
            end(daemon)
            end(page)
            if subscriber is not None:
                subscriber.disconnect()
                subscriber.loop_stop()
            end(broker)
    opened_and_closed = [kind for kind in seen if kind != "update"] == ["open", "close"]
    print(
        f"\n{'The alert opened and closed.' if opened_and_closed else f'Expected one alert to open and close, saw: {seen}'}"
    )
    return 0 if opened_and_closed and daemon.returncode == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
