"""Who is connected to the daemon's local socket: lines of JSON in both directions, from one thread, that waits for nobody.

Owns the socket's file and the rule that who reads too slowly, or writes what is no line of JSON, is cut off.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from asd_daemon.private_files import make_private_folder

_LOG = logging.getLogger(__name__)
_MOST_CLIENTS = 8
_MOST_UNREAD_BYTES = 2_000_000
_MOST_REQUEST_BYTES = 65_536
_MOST_FILES = 1


@dataclass
class LiveClient:
    """One that is connected."""

    connection: socket.socket
    unsent: bytearray = field(default_factory=bytearray)
    request: bytearray = field(default_factory=bytearray)
    sound: frozenset[str] = frozenset()
    """Machines of which it wants levels and spectrograms."""
    listen: frozenset[str] = frozenset()
    """Machines of which it wants the sound itself."""
    advice: frozenset[str] = frozenset()
    """Machines, or sources that are tried, of which it wants to know how well the microphone is placed."""
    scores_seen: int = 0
    file: BinaryIO | None = None
    """What was handed over last, and nobody has taken yet."""


class LiveClients:
    """All of them.

    Args:
        file: where the socket lies.

    Raises:
        OSError: it can't be made.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._server = _bind(file)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._clients: dict[int, LiveClient] = {}

    @property
    def all(self) -> dict[int, LiveClient]:
        """Those that are connected, by number."""
        return dict(self._clients)

    def poll(self, timeout_s: float) -> Iterator[tuple[int, dict[str, Any]]]:
        """What they say, by number of the client; waits for so long where nobody says anything."""
        for key, events in self._selector.select(timeout_s):
            if key.fileobj is self._server:
                self._accept()
                continue
            if events & selectors.EVENT_WRITE and key.fd in self._clients:
                self._send(key.fd)
            if events & selectors.EVENT_READ and key.fd in self._clients:
                for wish in self._read(key.fd):
                    yield key.fd, wish

    def say(self, what: dict[str, Any], numbers: Collection[int]) -> None:
        """Tell some of them, as soon as they read."""
        line = json.dumps(what, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        for number in list(numbers):
            if number in self._clients:
                self._clients[number].unsent += line
                self._send(number)

    def take_file(self, number: int) -> BinaryIO | None:
        """The file that a client has handed over, which is the caller's to close from now on."""
        client = self._clients.get(number)
        if client is None:
            return None
        file, client.file = client.file, None
        return file

    def close(self) -> None:
        """Let go of all, and remove the socket."""
        for number in list(self._clients):
            self._drop(number)
        self._server.close()
        self._selector.close()
        with contextlib.suppress(OSError):
            self._file.unlink()

    def _accept(self) -> None:
        connection, _ = self._server.accept()
        if len(self._clients) >= _MOST_CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        self._clients[connection.fileno()] = LiveClient(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def _read(self, number: int) -> list[dict[str, Any]]:
        client = self._clients[number]
        try:
            got, files, _, _ = socket.recv_fds(client.connection, 4096, _MOST_FILES)
        except BlockingIOError:
            return []
        except OSError:
            got, files = b"", []
        for file in files:  # the last one counts
            self._close_file(client)
            client.file = os.fdopen(file, "rb")
        client.request += got
        if not got or len(client.request) > _MOST_REQUEST_BYTES:
            self._drop(number)
            return []
        *lines, rest = client.request.split(b"\n")
        client.request = bytearray(rest)
        try:
            wishes = [json.loads(line) for line in lines]
        except ValueError:
            wishes = [None]
        if not all(isinstance(wish, dict) for wish in wishes):
            self._drop(number)
            return []
        return wishes

    def _send(self, number: int) -> None:
        client = self._clients[number]
        try:
            sent = client.connection.send(client.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(number)
            return
        del client.unsent[:sent]
        if len(client.unsent) > _MOST_UNREAD_BYTES:
            _LOG.info("a reader of %s is too slow and is cut off", self._file)
            self._drop(number)
            return
        self._selector.modify(client.connection, selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0))

    def _drop(self, number: int) -> None:
        client = self._clients.pop(number)
        self._close_file(client)
        self._selector.unregister(client.connection)
        client.connection.close()

    @staticmethod
    def _close_file(client: LiveClient) -> None:
        if client.file is not None:
            client.file.close()
            client.file = None


def _bind(file: Path) -> socket.socket:
    """A listening socket; the path may be longer than a socket's address."""
    make_private_folder(file.parent)
    for left in file.parent.glob("live-*.sock"):
        if not Path(f"/proc/{left.stem.removeprefix('live-')}").exists():
            left.unlink(missing_ok=True)
    file.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    folder = os.open(file.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        server.bind(f"/proc/self/fd/{folder}/{file.name}")
        file.chmod(0o600)
        server.listen(_MOST_CLIENTS)
        server.setblocking(False)
    except BaseException:
        server.close()
        raise
    finally:
        os.close(folder)
    return server
