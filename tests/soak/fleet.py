"""`python -m soak.fleet`: one view of several boxes, with the real broker, exporters, Prometheus and Alertmanager of deploy/fleet.

Three boxes publish; what Prometheus is told arrives where it is kept for years, every expression of the dashboard must find something,
and when one box is killed its name must reach whoever Alertmanager tells. Waiting times of the rules are shortened, nothing else is
changed.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.parse
import urllib.request
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rig.broker import HOST, Broker, free_port
from rig.daemon import RunningDaemon
from rig.time_series import VictoriaMetrics
from rig.waiting import wait_until

FLEET = Path(__file__).parents[2] / "deploy" / "fleet"
KINDS = ("state", "score", "availability", "about")
METRIC = re.compile(r"\basd_fleet_\w+")
BOXES = {"hall-a": "fan", "hall-b": "gearbox", "hall-c": "slider"}


class Receiver:
    """Whoever Alertmanager tells."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        told = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # as http.server wants it
                told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Silent."""

        self.server = ThreadingHTTPServer((HOST, 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Let nobody in any more."""
        self.server.shutdown()
        self.server.server_close()

    @property
    def words(self) -> set[tuple[str, str]]:
        """Alert and box."""
        alerts = [alert for told in self.told for alert in told["alerts"] if alert["status"] == "firing"]
        return {(alert["labels"]["alertname"], alert["labels"].get("node", "")) for alert in alerts}


def configure(folder: Path, broker: int, ports: dict[str, int], receiver: int) -> None:
    """The files of deploy/fleet, for this machine."""
    for kind in KINDS:
        text = (FLEET / "exporters" / f"{kind}.yaml").read_text()
        (folder / f"{kind}.yaml").write_text(text.replace("tcp://broker:1883", f"tcp://{HOST}:{broker}"))
    rules = (FLEET / "rules.yaml").read_text()
    (folder / "rules.yaml").write_text(re.sub(r"for: \w+", "for: 2s", rules))
    text = (FLEET / "prometheus.yaml").read_text().replace("15s", "1s")
    for name, port in ports.items():
        text = re.sub(rf'"{name}:\d+"', f'"{HOST}:{port}"', text)
    years = f"http://{HOST}:{ports['years']}/" if "years" in ports else ""
    text = re.sub(r"http://victoria-metrics:\d+/", years, text) if years else re.sub(r"remote_write: .*", "", text)
    (folder / "prometheus.yaml").write_text(text)
    text = (FLEET / "alertmanager.yaml").read_text().replace("group_wait: 30s", "group_wait: 1s")
    (folder / "alertmanager.yaml").write_text(text.replace("host.docker.internal:9095", f"{HOST}:{receiver}"))


def main() -> int:
    """Everything in turn; 1 where something does not hold."""
    receiver = Receiver()
    with tempfile.TemporaryDirectory(prefix="asd-fleet-") as name, ExitStack() as stack:
        folder = Path(name)
        ports = {kind: free_port() for kind in (*KINDS, "prometheus", "alertmanager")}
        years = None if VictoriaMetrics.missing() else stack.enter_context(VictoriaMetrics(folder / "years"))
        if years is not None:
            ports["years"] = years.port
        broker = stack.enter_context(Broker(folder / "broker"))
        configure(folder, broker.port, ports, receiver.server.server_port)
        log = stack.enter_context((folder / "log").open("w"))

        def start(*words: object) -> None:
            process = subprocess.Popen([str(word) for word in words], stdout=log, stderr=log, cwd=folder)
            stack.callback(process.wait)
            stack.callback(process.terminate)

        daemons = {
            box: stack.enter_context(box_of(folder, box, machine, broker.port)) for box, machine in BOXES.items()
        }
        for kind in KINDS:
            start(
                "prometheus-mqtt-exporter",
                "-config",
                f"{kind}.yaml",
                "-listen-address",
                HOST,
                "-listen-port",
                ports[kind],
            )
        start(
            "prometheus-alertmanager",
            "--config.file=alertmanager.yaml",
            "--storage.path=alertmanager",
            f"--web.listen-address={HOST}:{ports['alertmanager']}",
            "--cluster.listen-address=",
        )
        start(
            "prometheus",
            "--config.file=prometheus.yaml",
            "--storage.tsdb.path=metrics",
            f"--web.listen-address={HOST}:{ports['prometheus']}",
        )
        wait_until(lambda: len(asked(ports["prometheus"], "asd_fleet_score")) == len(BOXES), "every box is known")
        check_dashboard(ports["prometheus"])
        if years is not None:
            wait_until(lambda: len(asked(years.port, "asd_fleet_score")) == len(BOXES), "they are kept for years")
            say("VictoriaMetrics has what Prometheus was told")
        daemons["hall-b"].process.send_signal(signal.SIGKILL)
        wait_until(lambda: ("BoxGone", "hall-b") in receiver.words, "somebody is told of the box that is gone")
        gone = {node for alert, node in receiver.words if alert == "BoxGone"}
        assert gone == {"hall-b"}, gone
        say(f"told: {sorted(receiver.words)}")
    receiver.close()
    return 0


def box_of(folder: Path, box: str, machine: str, port: int) -> RunningDaemon:
    """A box that listens to one simulated machine."""
    home = folder / box
    home.mkdir()
    content = {
        "node": box,
        "machines": {machine: {"source": {"simulate": f"{machine}?speed=5"}}},
        "mqtt": {"host": HOST, "port": port},
    }
    (home / "c.json").write_text(json.dumps(content))
    return RunningDaemon("run", "--config", home / "c.json", home=home)


def asked(port: int, expression: str) -> list[Any]:
    """What Prometheus finds for an expression; nothing while it is not there yet."""
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/api/v1/query?{query}", timeout=5) as answer:
            return list(json.load(answer)["data"]["result"])
    except OSError:
        return []


def check_dashboard(port: int) -> None:
    """Every expression of the dashboard finds something, but for what there is only in trouble."""
    dashboard = json.loads((FLEET / "grafana" / "dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    usual = [e for e in expressions if not e.startswith("ALERTS") and "drift" not in e]
    for expression in usual:
        wanted = expression.replace("$node", ".*").replace("$machine", ".*")
        wait_until(lambda wanted=wanted: bool(asked(port, wanted)), f"{wanted} finds something")  # type: ignore[misc]
    say(f"{len(usual)} of {len(expressions)} expressions of the dashboard find something, the others in trouble only")


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
