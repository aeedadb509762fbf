"""Clusters of three brokers, each node in a namespace of its own, with the configuration of deploy/fleet/brokers."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil

from rig.broker import PASSWORD
from rig.namespaces import Plant
from rig.other_brokers import USER, nats, rabbitmq
from rig.waiting import PATIENT_S, wait_until

BROKERS = Path(__file__).parents[2] / "deploy" / "fleet" / "brokers"
PORT = 1883
NODES = ("broker-1", "broker-2", "broker-3")


class Cluster:
    """`with NatsCluster(folder, plant) as cluster:`; its nodes can be killed and started again with what they have on disk."""

    def __init__(self, folder: Path, plant: Plant) -> None:
        self.folder, self.plant = folder, plant
        self._processes: dict[str, list[subprocess.Popen[bytes]]] = {node: [] for node in plant.nodes}

    def __enter__(self) -> Self:
        try:
            for node in self.plant.nodes:
                (self.folder / node).mkdir(parents=True)
                self.start(node)
            wait_until(self.is_whole, f"the cluster is whole (see {self.folder}/*/out)")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for node in self.plant.nodes:
            self.kill(node)

    def start(self, node: str) -> None:
        """Start a node; it joins the others by itself."""
        raise NotImplementedError

    def is_whole(self) -> bool:
        """Whether every node is up and knows the others."""
        raise NotImplementedError

    def kill(self, node: str) -> None:
        """End a node as a crash does."""
        for process in reversed(self._processes[node]):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENT_S)
        self._processes[node] = []

    def memory_mb(self, node: str) -> float:
        """Resident memory of all of its processes."""
        found = 0.0
        for process in self._processes[node]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one = psutil.Process(process.pid)
                for each in (one, *one.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        found += each.memory_info().rss / 1e6
        return round(found, 1)

    def _run(self, node: str, words: Sequence[str], environment: Mapping[str, str]) -> None:
        with (self.folder / node / "out").open("ab") as out:
            process = subprocess.Popen(
                [*self.plant.at(self.plant.place(node)), *words],
                stdout=out,
                stderr=out,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self._processes[node].append(process)

    def _ask(self, node: str, *words: str, environment: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            [*self.plant.at(self.plant.place(node)), *words],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **(environment or {})},
            timeout=PATIENT_S,
        )
        return done.stdout


class NatsCluster(Cluster):
    """NATS with JetStream."""

    def start(self, node: str) -> None:
        """Start a node."""
        program, store = nats(), self.folder / node / "store"
        assert program is not None, "nats-server is not installed"
        known = {"MQTT_USER": USER, "MQTT_PASSWORD": PASSWORD, "NATS_NODE": node, "NATS_STORE": str(store)}
        self._run(node, [program, "-c", str(BROKERS / "nats.conf")], known)

    def is_whole(self) -> bool:
        """Whether JetStream has a leader, which every node tells in its log."""
        logs = {node: (self.folder / node / "out").read_text() for node in self.plant.nodes}
        return any("metadata leader" in log for log in logs.values()) and all(
            "Server is ready" in log for log in logs.values()
        )


class RabbitMqCluster(Cluster):
    """RabbitMQ with its MQTT plugin."""

    def start(self, node: str) -> None:
        """Start a node, and the program that tells Erlang nodes each other's ports."""
        program, names = rabbitmq(), shutil.which("epmd")
        assert program is not None, "rabbitmq-server is not installed"
        assert names is not None, "epmd is not installed"
        home = self.folder / node
        (home / "conf.d").mkdir(exist_ok=True)
        (home / "conf.d" / "user.conf").write_text(f"default_user = {USER}\ndefault_pass = {PASSWORD}\n")
        cookie = home / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text("plant")
            cookie.chmod(0o600)
        self._run(node, [names], {})
        self._run(node, [program], self._environment(node))

    def is_whole(self) -> bool:
        """Whether the first node sees the others, with MQTT on."""
        for node in self.plant.nodes:
            listening = self._ask(node, "ss", "-Hltn", f"sport = :{PORT}")
            if not listening.strip():
                return False
        control = str(Path(str(rabbitmq())).parent / "rabbitmqctl")
        words = [
            control,
            "--node",
            f"rabbit@{self.plant.nodes[0]}",
            "--silent",
            "eval",
            "length(rabbit_nodes:all_running()).",
        ]
        return self._ask(
            self.plant.nodes[0], *words, environment=self._environment(self.plant.nodes[0])
        ).strip() == str(len(self.plant.nodes))

    def _environment(self, node: str) -> dict[str, str]:
        home = self.folder / node
        return {
            "HOME": str(home),
            "RABBITMQ_NODENAME": f"rabbit@{node}",
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home),
            "RABBITMQ_CONFIG_FILE": str(BROKERS / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(home / "conf.d"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(BROKERS / "rabbitmq-plugins"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +S 2:2 -start_epmd false",
        }
