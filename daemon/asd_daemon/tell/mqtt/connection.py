"""A connection to a broker: who we are, whom we trust, how long we wait before we try again, and why it did not work, in words.

It knows no topic and no payload.
"""

from __future__ import annotations

import random
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from asd_daemon.errors import BrokerError

_RETRY_LEAST_S, _RETRY_MOST_S = 1.0, 60.0
_CONNECT_TIMEOUT_S = 5.0
CLOSED_SILENTLY = (
    "closes the connection without an answer; is it the right port, and does it want TLS or a certificate of ours?"
)


@dataclass(frozen=True)
class BrokerAddress:
    """Where the broker is and how it knows us."""

    host: str
    port: int
    client_id: str
    tls: bool = False
    ca_file: Path | None = None
    """The authorities to trust; None for those of the system."""
    cert_file: Path | None = None
    """Our own certificate, where the broker asks for one."""
    key_file: Path | None = None
    username: str | None = None
    password: str | None = None
    keepalive_s: int = 15
    """A broker that falls silent is noticed after about one and a half times this."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class _TidySocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho leaves that to the garbage collector, one descriptor an attempt."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands."""
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def make_client(address: BrokerAddress) -> paho.Client:
    """A client ready to connect, certificates checked where TLS is on.

    Raises:
        BrokerError: a certificate file that can't be used.
    """
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=address.client_id, protocol=paho.MQTTv311)
    client.connect_timeout = _CONNECT_TIMEOUT_S
    if address.username is not None:
        client.username_pw_set(address.username, address.password)
    if address.tls:
        try:
            context = ssl.create_default_context(cafile=str(address.ca_file) if address.ca_file else None)
            context.sslsocket_class = _TidySocket
            if address.cert_file is not None:
                context.load_cert_chain(address.cert_file, address.key_file)
        except (OSError, ssl.SSLError) as e:
            files = ", ".join(str(f) for f in (address.ca_file, address.cert_file, address.key_file) if f)
            raise BrokerError(f"broker {address}: a certificate file can't be used ({files}): {e}") from e
        client.tls_set_context(context)
    return client


def why_not_connected(error: BaseException | None) -> str:
    """A failed attempt in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails: {error.reason or error}"
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if error else "no connection"


class Backoff:
    """How long to wait before the next attempt: twice as long each time up to a minute, and each time by chance.

    Boxes that lose a broker together must not all come back in the same second, again and again.
    """

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()  # noqa: S311  # no secret
        self._failures = 0

    def wait_s(self) -> float:
        """Seconds to wait after one more failure."""
        full_s = min(_RETRY_MOST_S, _RETRY_LEAST_S * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return full_s * self._chance.uniform(0.5, 1.0)

    def succeeded(self) -> None:
        """Begin anew."""
        self._failures = 0

    def apply(self, client: paho.Client) -> None:
        """Make paho wait so before its next attempt; for its callbacks of failure, which come just before the waiting."""
        wait_s = self.wait_s()
        client.reconnect_delay_set(wait_s, wait_s)  # type: ignore[arg-type]  # it only adds and compares them


def try_broker(address: BrokerAddress, timeout_s: float = _CONNECT_TIMEOUT_S) -> None:
    """Connect once and leave.

    Raises:
        BrokerError: it can't be reached, or refuses.
    """
    client = make_client(address)
    answers: list[ReasonCode] = []
    answered = threading.Event()

    def on_connect(_client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _more: Any) -> None:
        answers.append(code)
        answered.set()

    def on_disconnect(*_: Any) -> None:
        answered.set()

    client.on_connect, client.on_disconnect = on_connect, on_disconnect
    try:
        client.connect(address.host, address.port, keepalive=address.keepalive_s)
    except (OSError, ValueError) as e:
        raise BrokerError(f"broker {address} can't be reached: {why_not_connected(e)}") from e
    client.loop_start()
    try:
        if not answered.wait(timeout_s):
            raise BrokerError(f"broker {address} does not answer in {timeout_s:g} s")
    finally:
        client.disconnect()
        client.loop_stop()
    if not answers:
        raise BrokerError(f"broker {address} {CLOSED_SILENTLY}")
    if answers[0].is_failure:
        raise BrokerError(f"broker {address} refuses us: {answers[0]}; check username, password and rights")
