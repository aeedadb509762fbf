"""A connection to a broker: who we are, whom we trust, and why it did not work, in words.

It knows no topic and no payload.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from asd_daemon.errors import BrokerError

_CONNECT_TIMEOUT_S = 5.0
_ID_CHARACTERS = 48  # of a client id that people can still read
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
    other_hosts: tuple[str, ...] = ()
    """Names of other nodes of the same cluster."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """All names."""
        return (self.host, *self.other_hosts)

    def __str__(self) -> str:
        return f"{','.join(self.hosts)}:{self.port}"


class _TidySocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho leaves that to the garbage collector, one descriptor an attempt."""

    def do_handshake(self, block: bool = False) -> None:
        """Shake hands."""
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


class _NamedContext(ssl.SSLContext):
    """Checks certificates against the name by which a node is configured, whichever of its addresses is connected to."""

    server_name: str | None = None

    def wrap_socket(self, *args: Any, **more: Any) -> ssl.SSLSocket:
        """Wrap a socket."""
        if self.server_name is not None:
            more["server_hostname"] = self.server_name
        return super().wrap_socket(*args, **more)


def client_id(node: str, machines: Sequence[str], purpose: str = "") -> str:
    """The name by which a broker knows a process: the same for the same node and machines, and never that of others.

    Args:
        node: the box's name.
        machines: those that the process hears; their order does not matter.
        purpose: what the connection is for, where it is not the usual one.
    """
    told = json.dumps([node, sorted(machines), purpose])
    digest = hashlib.sha256(told.encode()).hexdigest()[:8]
    readable = "-".join(["asd", node, *machines, *([purpose] if purpose else [])])
    return f"{readable[:_ID_CHARACTERS]}-{digest}"


def make_client(address: BrokerAddress, protocol: MQTTProtocolVersion, server_name: str | None = None) -> paho.Client:
    """A client ready to connect once, certificates checked where TLS is on.

    Args:
        address: the broker.
        protocol: the version of MQTT to speak.
        server_name: the name that its certificate must have; None: the one that is connected to.

    Raises:
        BrokerError: a certificate file that can't be used.
    """
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id=address.client_id, protocol=protocol, reconnect_on_failure=False
    )
    client.connect_timeout = _CONNECT_TIMEOUT_S
    if address.username is not None:
        client.username_pw_set(address.username, address.password)
    if address.tls:
        try:
            context = _context(address.ca_file)
            context.server_name = server_name
            if address.cert_file is not None:
                context.load_cert_chain(
                    address.cert_file, address.key_file, password=lambda: b""
                )  # else it asks the terminal
        except (OSError, ssl.SSLError) as e:
            files = ", ".join(str(f) for f in (address.ca_file, address.cert_file, address.key_file) if f)
            raise BrokerError(f"broker {address}: a certificate file can't be used ({files}): {e}") from e
        client.tls_set_context(context)
    return client


def _context(ca_file: Path | None) -> _NamedContext:
    """As Python's default, but for extensions that 3.13 misses in old private authorities and nothing needs here."""
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = _TidySocket
    if sys.version_info >= (3, 13):
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if ca_file is not None:
        context.load_verify_locations(cafile=str(ca_file))
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if sys.version_info >= (3, 13):
            context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


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
