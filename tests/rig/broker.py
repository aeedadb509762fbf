"""A private mosquitto on a free port of loopback, and a subscriber that remembers what it received."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from rig.waiting import PATIENT_S, wait_until

HOST = "127.0.0.1"
PASSWORD = "s3cret"


def mosquitto() -> str | None:
    """The program, where it is installed."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as s:
        s.bind((HOST, 0))
        port = s.getsockname()[1]
        assert isinstance(port, int)
        return port


class Broker:
    """`with Broker(folder) as broker:`; it can be killed, frozen and started again on the same port.

    Args:
        folder: for its files.
        password: whether the one user, `asd`, needs the password.
        tls: whether it speaks TLS with a certificate of the authority in `ca_file`.
        mutual: whether it asks for a certificate of ours too.
        rights: lines of an access list, such as `topic write asd/#`; None lets everybody do everything.
        more: further lines of its configuration.
    """

    def __init__(
        self,
        folder: Path,
        *,
        password: bool = False,
        tls: bool = False,
        mutual: bool = False,
        rights: Sequence[str] | None = None,
        more: Sequence[str] = (),
    ) -> None:
        self.folder, self.port = folder, free_port()
        self.ca_file = folder / "ca.crt"
        self._password, self._tls, self._mutual = password, tls or mutual, mutual
        self._rights, self._more = rights, more
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f"listener {self.port} {HOST}",
            "persistence false",
            f"log_dest file {self.folder}/mosquitto.log",
            "user root",
            *self._more,
        ]
        if self._rights is not None:
            lines.append(f"acl_file {self.folder}/rights")
            self._write_rights(self._rights)
        if self._password:
            passwords = self.folder / "passwords"
            passwords.touch(mode=0o600)
            subprocess.run(["mosquitto_passwd", "-b", str(passwords), "asd", PASSWORD], check=True, capture_output=True)
            lines += ["allow_anonymous false", f"password_file {passwords}"]
        else:
            lines.append("allow_anonymous true")
        if self._tls:
            write_certificates(self.folder)
            lines += [
                f"{key}file {self.folder}/{name}" for key, name in (("cert", "server.crt"), ("key", "server.key"))
            ]
        if self._mutual:
            lines += [f"cafile {self.ca_file}", "require_certificate true"]
        (self.folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        self.up()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end(signal.SIGKILL)

    def up(self) -> None:
        """Start it and wait until it takes connections."""
        program = mosquitto()
        assert program is not None, "mosquitto is not installed"
        command = [program, "-c", str(self.folder / "mosquitto.conf")]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: answers(self.port), f"mosquitto is up (see {self.folder}/mosquitto.log)")

    def allow(self, rights: Sequence[str]) -> None:
        """Change the access list of a running broker."""
        assert self._process is not None
        self._write_rights(rights)
        self._process.send_signal(signal.SIGHUP)

    def _write_rights(self, rights: Sequence[str]) -> None:
        (self.folder / "rights").write_text("\n".join(rights) + "\n")

    def kill(self) -> None:
        """End it as a crash does; it forgets everything."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it without ending it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENT_S)
            self._process = None


_EXTENSIONS = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost,IP:127.0.0.1
[client]
basicConstraints = CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[old_authority]
basicConstraints = CA:TRUE
[old_server]
subjectAltName = DNS:localhost,IP:127.0.0.1
[old_client]
basicConstraints = CA:FALSE
"""


def write_certificates(folder: Path, *, strict: bool = True) -> None:
    """An authority (ca.crt), a certificate for loopback (server.crt, server.key) and one for a client (client.crt, client.key).

    Args:
        folder: where they are written.
        strict: with all that RFC 5280 wants; else as many a private authority was made years ago.
    """

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    (folder / "extensions").write_text(_EXTENSIONS)
    authority = ["-config", "extensions", "-extensions", "authority" if strict else "old_authority"]
    openssl(
        "req", "-x509", *new_key, *authority, "-days", "2", "-subj", "/CN=rig", "-keyout", "ca.key", "-out", "ca.crt"
    )
    for name, subject in (("server", "/CN=localhost"), ("client", "/CN=line-3")):
        openssl("req", *new_key, "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signing = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions"]
        signing += ["-extensions", name if strict else f"old_{name}"]
        openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.crt")


@dataclass(frozen=True)
class Received:
    """One message, in the order of arrival."""

    topic: str
    payload: Any
    """Parsed JSON, or the plain text where it is none, or the bytes where they are none either."""
    retained: bool


class Subscriber:
    """Hears everything below a topic; `wait_for` is how a test waits."""

    def __init__(self, port: int, topic: str = "#", **connection: Any) -> None:
        self._arrived = threading.Condition()
        self.messages: list[Received] = []
        self._port, self._topic, self._connection = port, topic, connection
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe(self._topic, qos=1)
        self._client.on_subscribe = self._on_subscribe
        self.subscriptions = 0
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)

    def __enter__(self) -> Self:
        if "password" in self._connection:
            self._client.username_pw_set("asd", self._connection["password"])
        if "ca_file" in self._connection:
            self._client.tls_set(str(self._connection["ca_file"]))
        self._client.connect(HOST, self._port, keepalive=60)
        self._client.loop_start()
        assert self._subscribed.wait(PATIENT_S), "the subscriber was not accepted"
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def wait_for(self, fits: Callable[[Received], bool], timeout_s: float = PATIENT_S) -> Received:
        """The first message that fits, now or when it comes."""
        with self._arrived:
            self._arrived.wait_for(lambda: any(map(fits, self.messages)), timeout_s)
            found = next(filter(fits, self.messages), None)
        assert found is not None, f"nothing fits within {timeout_s} s; received: {self.messages}"
        return found

    def say(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish something, and wait until the broker has it."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(PATIENT_S)

    def of(self, topic_end: str) -> list[Any]:
        """The payloads so far whose topic ends so."""
        with self._arrived:
            return [m.payload for m in self.messages if m.topic.endswith(topic_end)]

    def _on_subscribe(self, *_: Any) -> None:
        self.subscriptions += 1
        self._subscribed.set()

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        payload: Any = message.payload
        with contextlib.suppress(ValueError):  # a picture is none of it
            payload = message.payload.decode()
            payload = json.loads(payload)
        with self._arrived:
            self.messages.append(Received(message.topic, payload, message.retain))
            self._arrived.notify_all()
