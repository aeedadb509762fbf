"""One connection to each running daemon of the box, shared by all browsers: what the machines are like at this moment.

Owns what is known from the sockets and who is told. A browser that reads slowly loses pieces of it, never holds up the others, and the
daemons notice nothing: they cut off who reads too slowly, and this process reads all the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from asd_daemon.web.live_daemon import STALE_S, LiveDaemon, Watcher
from asd_daemon.web.places import Places
from asd_daemon.web.score_tables import Row

_LOOK_EVERY_S = 1.0
_MOST_LINE_BYTES = 4_000_000
_MOST_RECENT = 4000  # windows of one machine that a daemon may not have written yet
_ANSWER_WITHIN_S = 25.0
_LOG_WITHIN_S = 3.0  # a page that tells how the box is comes whatever hangs
MOST_WATCHERS = 200
_ENDED = "The daemon ended before it answered; look whether it was done when it runs again."


class LiveHub:
    """Knows the daemons that run."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._daemons: dict[Path, LiveDaemon] = {}
        self._recent: dict[str, deque[Row]] = {}
        self._asked: dict[str, tuple[LiveDaemon, asyncio.Future[dict[str, Any]]]] = {}
        self._watchers: set[Watcher] = set()
        self._readers: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Look for daemons until cancelled."""
        try:
            while True:
                for file in self._places.sockets():
                    if file not in self._daemons:
                        await self._connect(file)
                self._tell(self.snapshot())
                await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            for task in self._readers:
                task.cancel()

    def machines(self) -> dict[str, dict[str, Any]]:
        """What each machine is like, by its running daemon; empty for one that does not run."""
        now_s = time.monotonic()
        known: dict[str, dict[str, Any]] = {}
        for daemon in self._daemons.values():
            if now_s - daemon.said_s <= STALE_S:
                known |= {name: {**machine, **_heard(machine)} for name, machine in daemon.machines.items()}
        return dict(sorted(known.items()))

    def abouts(self) -> list[dict[str, Any]]:
        """Node, version and process of each running daemon."""
        return [daemon.about for daemon in self._daemons.values() if daemon.about]

    def snapshot(self) -> dict[str, Any]:
        """All machines, for a browser."""
        return {"kind": "machines", "machines": self.machines(), "adds": self.adds}

    def recent(self, machine: str) -> list[Row]:
        """Windows of a machine since its daemon runs, as far as they are remembered."""
        return list(self._recent.get(machine, ()))

    def latest_s(self, machine: str) -> float:
        """When the last of them ended, Unix time; 0 where there is none. What is simulated faster than real time is ahead of the clock."""
        recent = self._recent.get(machine)
        return recent[-1][0] / 1000 if recent else 0.0

    @contextlib.asynccontextmanager
    async def watching(
        self, sound: Iterable[str], listen: Iterable[str] = (), advice: Iterable[str] = ()
    ) -> AsyncIterator[Watcher]:
        """A browser that looks, and the machines, or sources that are tried, that it looks and listens at and wants advice on."""
        watcher = Watcher(frozenset(sound), frozenset(listen), frozenset(advice))
        self._watchers.add(watcher)
        try:
            self._wish()
            watcher.offer(self.snapshot())
            yield watcher
        finally:
            self._watchers.discard(watcher)
            self._wish()

    @property
    def is_full(self) -> bool:
        """Whether no further browser is let in."""
        return len(self._watchers) >= MOST_WATCHERS

    async def command(self, machine: str, wish: Mapping[str, object], file: BinaryIO | None = None) -> tuple[bool, str]:
        """Ask the daemon that hears a machine for something (docs/mqtt.md, commands); whether it was done, and its words.

        Args:
            machine: whose.
            wish: the command.
            file: what is handed over with it, open at its beginning.
        """
        daemon = next((d for d in self._daemons.values() if machine in d.machines and not d.writer.is_closing()), None)
        if daemon is None:
            return False, f"Nobody listens to {machine} now; start its daemon, or use asd-daemon alerts on the box."
        return await self._ask(daemon, machine, wish, file)

    async def add(self, machine: str, source: str) -> tuple[bool, str]:
        """Have a machine heard by a source, in words such as `device:default`; whether it is, and the daemon's words."""
        hears = [d for d in self._daemons.values() if machine in d.machines and not d.writer.is_closing()]
        daemon = hears[0] if hears else self._adding()
        if daemon is None:
            return (
                False,
                "No daemon that runs on this box takes further machines; start asd-daemon.service, which hears all of them.",
            )
        return await self._ask(daemon, machine, {"command": "set", "key": "source", "value": source})

    async def devices(self) -> dict[str, Any]:
        """The microphones of the box, by a daemon that can try them: `devices`, and `trouble` where they can't be listed."""
        daemon = self._adding()
        if daemon is None:
            return {"devices": [], "trouble": "No daemon that runs on this box takes further machines."}
        return await daemon.list_devices(_ANSWER_WITHIN_S)

    @property
    def adds(self) -> bool:
        """Whether a machine can be added."""
        return self._adding() is not None

    def _adding(self) -> LiveDaemon | None:
        """The daemon to which machines are added: the first of those that take them."""
        return next((d for d in self._daemons.values() if d.adds and not d.writer.is_closing()), None)

    async def command_any(
        self, machine: str | None, wish: Mapping[str, object], file: BinaryIO | None = None
    ) -> tuple[bool, str]:
        """Ask one daemon after the other until one has done it: for what no machine that is heard is asked for."""
        told = (False, "No daemon runs on this box.")
        for daemon in list(self._daemons.values()):
            if not daemon.writer.is_closing():
                if file is not None:
                    file.seek(0)
                told = await self._ask(daemon, machine, wish, file)
                if told[0]:
                    break
        return told

    async def logs(self) -> list[tuple[str, str]]:
        """The last lines of each running daemon's log, with its machines."""
        asked = [d for d in self._daemons.values() if not d.writer.is_closing()]
        said = await asyncio.gather(*(self._log_of(daemon) for daemon in asked))
        return [(", ".join(daemon.machines), text) for daemon, text in zip(asked, said, strict=True)]

    async def _log_of(self, daemon: LiveDaemon) -> str:
        try:
            async with asyncio.timeout(_LOG_WITHIN_S):
                return (await self._ask(daemon, None, {"command": "log"}, waits=False))[1]
        except TimeoutError:
            return "The daemon does not answer; what it wrote is where its output goes (of a service: journalctl -u asd-daemon@…)."

    async def _ask(
        self,
        daemon: LiveDaemon,
        machine: str | None,
        wish: Mapping[str, object],
        file: BinaryIO | None = None,
        *,
        waits: bool = True,
    ) -> tuple[bool, str]:
        asked = secrets.token_hex(8)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[asked] = daemon, answer
        line = json.dumps({"machine": machine, "command": {**wish, "id": asked}}).encode() + b"\n"
        try:
            if file is None:
                daemon.writer.write(line)
            else:
                daemon.hand_over(line, file)
            said = await asyncio.wait_for(answer, _ANSWER_WITHIN_S)
        except (OSError, TimeoutError):
            return False, "The daemon has not answered yet; it takes the word when it judges the next window."
        finally:
            self._asked.pop(asked, None)
        if waits:
            await daemon.hear_twice()
        return bool(said["ok"]), str(said["text"])

    async def _connect(self, file: Path) -> None:
        folder = os.open(file.parent, os.O_PATH | os.O_DIRECTORY)  # a path may be longer than a socket's address
        try:
            reader, writer = await asyncio.open_unix_connection(
                f"/proc/self/fd/{folder}/{file.name}", limit=_MOST_LINE_BYTES
            )
        except OSError:  # the daemon is gone or has not begun; the next look is in a second
            return
        finally:
            os.close(folder)
        self._daemons[file] = LiveDaemon(writer)
        task = asyncio.create_task(self._read(file, reader))
        self._readers.add(task)
        task.add_done_callback(self._readers.discard)
        self._wish()

    async def _read(self, file: Path, reader: asyncio.StreamReader) -> None:
        daemon = self._daemons[file]
        try:
            while line := await reader.readline():
                self._take(daemon, json.loads(line))
                async with daemon.said:
                    daemon.said.notify_all()
        except (OSError, ValueError):  # cut off, or no line of a daemon's: it is connected to anew
            pass
        finally:
            del self._daemons[file]
            daemon.writer.close()
            for waiting in [answer for asked, answer in self._asked.values() if asked is daemon and not answer.done()]:
                waiting.set_result({"ok": False, "text": _ENDED})
            self._tell(self.snapshot())

    def _take(self, daemon: LiveDaemon, said: dict[str, Any]) -> None:
        if said["kind"] == "machines":
            daemon.machines, daemon.said_s = said["machines"], time.monotonic()
            if daemon.adds != bool(said.get("adds")):
                daemon.adds = bool(said.get("adds"))
                self._wish()
            for source, trouble in said.get("trials", {}).items():
                self._tell_some({"kind": "trial", "machine": source, "trouble": trouble}, "sound")
            daemon.times_said += 1
            told = {key: said.get(key) for key in ("node", "version", "pid", "bundle", "rollout")}
            daemon.about = {**told, "machines": len(said["machines"])}
        elif said["kind"] == "scores":
            for machine, at, *rest in said["scores"]:
                at_ms = round(datetime.fromisoformat(at).timestamp() * 1000)
                recent = self._recent.setdefault(machine, deque(maxlen=_MOST_RECENT))
                if not recent or recent[-1][0] < at_ms:  # after a new connection all that is remembered comes again
                    recent.append((at_ms, *rest))
            self._tell(said)
        elif said["kind"] == "answer":
            _, waiting = self._asked.pop(str(said["id"]), (None, None))
            if waiting is not None and not waiting.done():
                waiting.set_result(said)
        elif said["kind"] == "devices":
            daemon.take_devices(said)
        else:
            self._tell_some(said, {"sound": "sound", "advice": "advice"}.get(said["kind"], "listen"))

    def _tell_some(self, said: dict[str, Any], wish: str) -> None:
        """Tell those who look at, listen to or want advice on the machine or source."""
        for watcher in self._watchers:
            if said["machine"] in getattr(watcher, wish):
                watcher.offer(said)

    def _tell(self, said: dict[str, Any]) -> None:
        for watcher in self._watchers:
            watcher.offer(said)

    def _wish(self) -> None:
        """Ask each daemon for the sound that somebody looks or listens at; a source is tried by one of them."""
        wanted = {
            wish: frozenset[str]().union(*(getattr(w, wish) for w in self._watchers))
            for wish in ("sound", "listen", "advice")
        }
        adding = self._adding()
        for daemon in self._daemons.values():
            own = {w: sorted(n for n in names if ":" not in n or daemon is adding) for w, names in wanted.items()}
            line = json.dumps(own).encode() + b"\n"
            if daemon.wish != line and not daemon.writer.is_closing():
                daemon.wish = line
                daemon.writer.write(line)


def _heard(machine: dict[str, Any]) -> dict[str, Any]:
    """Whether sound comes at this moment: the daemon says so, and a block has come within seconds."""
    ago_s = machine.get("heard_ago_s")
    return {"listening": bool(machine.get("listening")) and ago_s is not None and ago_s <= STALE_S}
