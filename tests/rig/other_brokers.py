"""Brokers that are not mosquitto: RabbitMQ, NATS and amqtt, each private, on free ports of loopback, gone at the end.

All three speak MQTT 3.1.1 only (RabbitMQ up to 3.12). RabbitMQ takes 10 s and more to come up.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from rig.broker import HOST, PASSWORD, answers, free_port
from rig.waiting import PATIENT_S, wait_until

USER = "asd"
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


def rabbitmq() -> str | None:
    """The program, where it is installed: not the wrapper, which wants to be another user."""
    found = sorted(Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server"))
    return str(found[-1]) if found and shutil.which("epmd", path=_PATH) else None


def nats() -> str | None:
    """The program, where it is installed."""
    return shutil.which("nats-server", path=_PATH)


class OtherBroker:
    """`with Nats(folder) as broker:`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._start()
            self._wait_for(self.port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENT_S)

    def _start(self) -> None:
        raise NotImplementedError

    def _run(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        with (self.folder / "out").open("ab") as out:
            process = subprocess.Popen(
                words, stdout=out, stderr=out, env={**os.environ, **(environment or {})}, start_new_session=True
            )
        self._processes.append(process)

    def _wait_for(self, port: int) -> None:
        wait_until(lambda: answers(port), f"{type(self).__name__} is up (see {self.folder / 'out'})")


class Nats(OtherBroker):
    """NATS with JetStream; the user may not publish on `denied`."""

    def __init__(self, folder: Path, denied: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self._denied = denied

    def _start(self) -> None:
        content = {
            "listen": f"{HOST}:{free_port()}",
            "server_name": "rig",
            "jetstream": {"store_dir": str(self.folder / "store"), "max_mem": 67_108_864, "max_file": 67_108_864},
            "mqtt": {"listen": f"{HOST}:{self.port}"},
            "authorization": {
                "users": [
                    {
                        "user": USER,
                        "password": PASSWORD,
                        "permissions": {"publish": {"deny": [topic.replace("/", ".") for topic in self._denied]}},
                    }
                ]
            },
        }
        (self.folder / "nats.conf").write_text(json.dumps(content))
        program = nats()
        assert program is not None, "nats-server is not installed"
        self._run([program, "-c", str(self.folder / "nats.conf")])


class Amqtt(OtherBroker):
    """The broker of the library amqtt, which takes everybody."""

    def _start(self) -> None:
        content = {
            "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{self.port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
        (self.folder / "amqtt.yaml").write_text(json.dumps(content))  # which is YAML
        self._run([sys.executable, "-m", "amqtt.scripts.broker_script", "-c", str(self.folder / "amqtt.yaml")])


class RabbitMq(OtherBroker):
    """RabbitMQ with its MQTT plugin; the user may publish on topics that `may_write`, a regular expression, fits."""

    def __init__(self, folder: Path, may_write: str = ".*") -> None:
        super().__init__(folder)
        self._may_write = may_write

    def _start(self) -> None:
        program, names = rabbitmq(), free_port()
        assert program is not None, "rabbitmq-server is not installed"
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        definitions = {
            "users": [{"name": USER, "password": PASSWORD, "tags": ""}],
            "vhosts": [{"name": "/"}],
            "permissions": [{"user": USER, "vhost": "/", **everything}],
            "topic_permissions": [
                {"user": USER, "vhost": "/", "exchange": "amq.topic", "write": self._may_write, "read": ".*"}
            ],
        }
        (self.folder / "definitions.json").write_text(json.dumps(definitions))
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp = none\nmqtt.listeners.tcp.1 = {HOST}:{self.port}\nmqtt.allow_anonymous = false\n"
            f"definitions.import_backend = local_filesystem\ndefinitions.local.path = {self.folder}/definitions.json\n"
        )
        (self.folder / "plugins").write_text("[rabbitmq_mqtt].\n")
        self._run([str(shutil.which("epmd", path=_PATH)), "-port", str(names), "-address", HOST])
        self._wait_for(names)
        self._run(
            [program],
            {
                "HOME": str(self.folder),
                "RABBITMQ_NODENAME": f"rig{self.port}@localhost",
                "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
                "RABBITMQ_LOG_BASE": str(self.folder),
                "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
                "RABBITMQ_DIST_PORT": str(free_port()),
                "RABBITMQ_PID_FILE": str(self.folder / "pid"),
                "ERL_EPMD_PORT": str(names),
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none -start_epmd false",
            },
        )
