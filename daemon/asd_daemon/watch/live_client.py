"""Giving a running daemon of this box a command over its local socket, and waiting for what came of it."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from asd_daemon.errors import CannotStartError
from asd_daemon.tell.commands import Answer

_CONNECT_S = 5.0
ANSWER_S = 30.0


def running_daemons(folder: Path) -> Iterator[LiveClient]:
    """Each daemon whose socket lies in a status folder and answers, connected until the next one is asked for.

    Raises:
        CannotStartError: a socket is not ours to use.
    """
    for file in sorted(folder.glob("live-*.sock")):
        try:
            client = LiveClient(file)
        except PermissionError as e:
            raise CannotStartError(f"{file}: is not ours to use; try sudo") from e
        except (OSError, ValueError):  # left behind by a daemon that is gone
            continue
        with client:
            yield client


class LiveClient:
    """Connected to one daemon.

    Args:
        file: its socket.

    Raises:
        OSError: nobody is there.
        ValueError: it says no line of JSON.
    """

    def __init__(self, file: Path) -> None:
        self._connection = socket.socket(socket.AF_UNIX)
        try:
            self._connection.settimeout(_CONNECT_S)
            folder = os.open(file.parent, os.O_PATH | os.O_DIRECTORY)  # a path may be longer than a socket's address
            try:
                self._connection.connect(f"/proc/self/fd/{folder}/{file.name}")
            finally:
                os.close(folder)
            self._lines = self._connection.makefile("r", encoding="utf-8")
            self.machines: Mapping[str, Any] = self._next("machines")["machines"]
            """What it says of each machine that it hears."""
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> LiveClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._connection.close()

    def command(self, machine: str | None, wish: Mapping[str, object], file: BinaryIO | None = None) -> Answer:
        """Give it a command as docs/mqtt.md has it; what came of it.

        Args:
            machine: whose; None: of all of the daemon.
            wish: the command.
            file: what is handed over with it, open at its beginning.

        Raises:
            CannotStartError: it does not answer.
        """
        asked = secrets.token_hex(8)
        line = json.dumps({"machine": machine, "command": {**wish, "id": asked}}) + "\n"
        until_s = time.monotonic() + ANSWER_S
        try:
            if file is None:
                self._connection.sendall(line.encode())
            else:
                socket.send_fds(self._connection, [line.encode()], [file.fileno()])
            while time.monotonic() < until_s:
                said = self._next("answer")
                if said["id"] == asked:
                    return Answer(bool(said["ok"]), str(said["text"]))
        except (OSError, ValueError) as e:
            raise CannotStartError(f"the daemon has not answered: {e}") from e
        raise CannotStartError(f"the daemon has not answered within {ANSWER_S:g} s")

    def _next(self, kind: str) -> dict[str, Any]:
        """The next thing of a kind that it says.

        Raises:
            OSError: it says nothing.
            ValueError: it says no JSON, or has gone.
        """
        while line := self._lines.readline():
            said = json.loads(line)
            if said["kind"] == kind:
                return dict(said)
        raise ValueError("it has gone")
