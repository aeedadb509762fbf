"""What systemd is told: ready, a status line, stopping; and the watchdog, fed while every machine makes progress."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping

from asd_daemon.redaction import redact

_LOG = logging.getLogger(__name__)


class SystemdNotifier:
    """Talks to systemd: datagrams to $NOTIFY_SOCKET (sd_notify(3)). Without the variable it does nothing."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero byte of an abstract socket
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._lock = threading.Lock()
        self._awaited: set[str] = set()
        self._progressed: set[str] = set()
        self._failed = False

    def ready(self, status: str) -> None:
        """Starting is over."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is being read anew; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Stopping begins."""
        self._send("STOPPING=1")

    def expect(self, machine: str) -> None:
        """From now on the watchdog is fed only when this machine has made progress too."""
        with self._lock:
            self._awaited.add(machine)

    def forget(self, machine: str) -> None:
        """Progress of this machine is not awaited any more."""
        with self._lock:
            self._awaited.discard(machine)

    def progressed(self, machine: str) -> None:
        """A machine's window went all the way; the watchdog is fed when that is true of every machine since the last time."""
        with self._lock:
            self._progressed.add(machine)
            complete = self._progressed >= self._awaited
            if complete:
                self._progressed.clear()
        if complete:
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.settimeout(1.0)
                out.sendto(redact(message).encode(), self._address)
        except OSError as e:
            if not self._failed:
                _LOG.warning("systemd can't be told (NOTIFY_SOCKET %r): %s", self._address, e.strerror or e)
            self._failed = True
