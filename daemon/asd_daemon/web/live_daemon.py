"""One running daemon as the page's process is connected to it, and one browser that looks: what each has said and wants."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from dataclasses import dataclass, field
from typing import Any, BinaryIO

STALE_S = 4.0
"""So long without a word, and a daemon or its sound is not believed to be there any more."""
_MOST_PIECES = 64


@dataclass(eq=False)
class Watcher:
    """One browser."""

    sound: frozenset[str] = frozenset()
    listen: frozenset[str] = frozenset()
    advice: frozenset[str] = frozenset()
    pieces: asyncio.Queue[dict[str, Any]] = field(default_factory=lambda: asyncio.Queue(_MOST_PIECES))

    def offer(self, piece: dict[str, Any]) -> None:
        """Give it a piece, in the place of the oldest where it does not keep up."""
        if self.pieces.full():
            self.pieces.get_nowait()
        self.pieces.put_nowait(piece)


@dataclass
class LiveDaemon:
    """One daemon."""

    writer: asyncio.StreamWriter
    wish: bytes = b""
    machines: dict[str, dict[str, Any]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    said_s: float = 0.0
    said: asyncio.Condition = field(default_factory=asyncio.Condition)
    times_said: int = 0
    adds: bool = False
    """Whether machines can be added to it, and microphones tried."""
    _devices: list[asyncio.Future[dict[str, Any]]] = field(default_factory=list)

    async def hear_twice(self) -> None:
        """Wait until the machines' states are of after an answer, so that the next page shows what has become of it."""
        until = self.times_said + 2

        async def wait() -> None:
            async with self.said:
                await self.said.wait_for(lambda: self.times_said >= until)

        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(wait(), STALE_S)

    async def list_devices(self, within_s: float) -> dict[str, Any]:
        """The microphones of the box: `devices`, and `trouble` where they can't be listed."""
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._devices.append(answer)
        try:
            self.writer.write(b'{"devices": true}\n')
            said = await asyncio.wait_for(answer, within_s)
        except (OSError, TimeoutError):
            return {"devices": [], "trouble": "The daemon has not answered."}
        return {"devices": said["devices"], "trouble": said["trouble"]}

    def take_devices(self, said: dict[str, Any]) -> None:
        """It has listed them."""
        for future in self._devices:
            if not future.done():
                future.set_result(said)
        self._devices.clear()

    def hand_over(self, line: bytes, file: BinaryIO) -> None:
        """Send a line with a file.

        Raises:
            OSError: the daemon does not take it at this moment.
        """
        if self.writer.transport.get_write_buffer_size():
            raise BlockingIOError("the daemon does not read")
        with socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno())) as connection:
            socket.send_fds(connection, [line], [file.fileno()])
