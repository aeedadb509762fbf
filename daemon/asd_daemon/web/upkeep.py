"""Looking after machines and the box on the pages: names, budgets, backups, removal, the bundle before.

What changes something is passed on to the daemon; a backup is read here.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import anyio.to_thread
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response

from asd_daemon.web.access import Access
from asd_daemon.web.live_hub import LiveHub
from asd_daemon.web.pages import Pages
from asd_daemon.web.places import ENROLLED, Places

_MOST_TEXT_CHARACTERS = 300
_BACKUP_WITHIN_S, _UPLOAD_WITHIN_S = 120.0, 600.0


def _text(given: str) -> str:
    if len(given) > _MOST_TEXT_CHARACTERS or not given.isprintable():
        raise HTTPException(400, f"write up to {_MOST_TEXT_CHARACTERS} printable characters")
    return given


def _number(given: str) -> float:
    try:
        number = float(given.replace(",", "."))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise HTTPException(400, f"write a number, not {given[:20]!r}")
    return number


def _words(given: str) -> list[str]:
    """A list with commas; `none` and `all`: the empty one."""
    return _pieces(_text(given).split(","))


def _times(given: str) -> list[str]:
    """The same of times of the week, in which a comma between days stays: `22:00-06:00, mon,wed 12:00-13:00` are two."""
    return _pieces(re.split(r";|(?<=\d),|,(?=[\s\d])", _text(given)))


def _pieces(parts: list[str]) -> list[str]:
    words = [word for part in parts if (word := part.strip())]
    return [] if words in (["none"], ["all"]) else words


_READ: dict[str, Callable[[str], object]] = {
    "title": _text,
    "alarm.false_alarms_per_week": _number,
    "notify.tell": _words,
    "notify.quiet_hours": _times,
    "notify.escalate_after_min": _number,
}
"""What may be changed here, and how what was written is read."""


class MachineUpkeep:
    """Answers their forms."""

    def __init__(self, access: Access, hub: LiveHub, pages: Pages, places: Places) -> None:
        self._access, self._hub, self._pages, self._places = access, hub, pages, places
        self._turn = asyncio.Semaphore(1)  # a file of a machine is as large as its sound

    async def change(self, request: Request) -> Response:
        """A value of one key for a machine; nothing: as configured."""
        form = await self._access.form(request)
        machine, key, text = form.get("machine", ""), form.get("key", ""), form.get("value", "").strip()
        if machine not in self._hub.machines():
            raise HTTPException(404, "nobody listens to such a machine now")
        if key not in _READ:
            raise HTTPException(400, f"{key[:60]!r} is not changed here")
        wish: dict[str, object] = {"command": "unset", "key": key}
        if text:
            wish = {"command": "set", "key": key, "value": _READ[key](text)}
        return self._pages.back(request, "/machines", await self._hub.command(machine, wish))

    async def forget(self, request: Request) -> Response:
        """Delete all that is kept of a machine, whose name was typed to show that it is meant."""
        form = await self._access.form(request)
        machine = form.get("machine", "")
        if form.get("sure", "").strip() != machine or not machine:
            return self._pages.back(
                request, "/machines", (False, f"Nothing was removed: type {machine} to say that it is meant.")
            )
        return self._pages.back(request, "/machines", await self._hub.command_any(machine, {"command": "forget"}))

    async def roll_back(self, request: Request) -> Response:
        """Return to the bundle before."""
        await self._access.form(request)
        return self._pages.back(request, "/system", await self._hub.command_any(None, {"command": "rollback"}))

    async def backup(self, request: Request) -> Response:
        """What was learned of a machine, as one file."""
        if not self._access.require(request).may_act:
            raise HTTPException(403, "you may look, but not fetch a backup: it holds sound")
        machine = request.path_params["machine"]
        folder = await anyio.to_thread.run_sync(self._learned_in, machine)
        if folder is None:
            raise HTTPException(404, "no such machine was learned on this box")
        async with self._turn:
            home = tempfile.TemporaryDirectory(prefix="asd-backup-")
            file = Path(home.name) / "machine.zip"
            try:
                await _write_backup(folder, machine, file)
            except BaseException:
                home.cleanup()
                raise
        name = f"{machine}.asd-machine.zip"
        return FileResponse(file, filename=name, media_type="application/zip", background=BackgroundTask(home.cleanup))

    async def restore(self, request: Request) -> Response:
        """Take a machine over from a backup, which is the body of the request; with `new`, none that is known is replaced."""
        self._access.require_operator(request, request.headers.get("x-form-token", ""))
        machine = request.path_params["machine"]
        async with self._turn:
            with _unnamed_file() as file:
                await _receive(request, file)
                if request.query_params.get("new") and machine in await self._pages.machines():
                    raise HTTPException(
                        409, f"there is a machine {machine} already; take another id, or restore it in its place"
                    )
                told = await self._hub.command_any(machine, {"command": "restore"}, file)
        self._pages.notices.leave(self._access.visitor(request).cookie, *told)
        return Response(f"{told[1]}\n", 200 if told[0] else 422, media_type="text/plain")

    def _learned_in(self, machine: str) -> Path | None:
        """The state folder of which a machine is known; a name from a browser is compared, and never a path by itself."""
        for folder in self._places.state_folders():
            if any(home.name == machine and home.is_dir() for home in (folder / ENROLLED).glob("*")):
                return folder
        return None


async def _write_backup(folder: Path, machine: str, file: Path) -> None:
    words = [sys.executable, "-m", "asd_daemon.web.backup", str(folder), machine, str(file)]
    process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE)
    try:
        _, complaint = await asyncio.wait_for(process.communicate(), _BACKUP_WITHIN_S)
    except TimeoutError as e:
        process.kill()
        await process.wait()
        raise HTTPException(503, f"the backup was not written in {_BACKUP_WITHIN_S:g} s") from e
    if process.returncode != 0:
        last = complaint.decode(errors="replace").strip().splitlines()
        raise HTTPException(500, f"the backup can't be written: {last[-1] if last else process.returncode}")


@contextlib.contextmanager
def _unnamed_file() -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile(prefix="asd-restore-") as file:
        yield file


async def _receive(request: Request, file: BinaryIO) -> None:
    async def receive() -> None:
        async for piece in request.stream():
            await anyio.to_thread.run_sync(file.write, piece)

    try:
        await asyncio.wait_for(receive(), _UPLOAD_WITHIN_S)
    except (TimeoutError, ClientDisconnect) as e:
        raise HTTPException(408, "the file did not come, or is larger than a machine may be") from e
    await anyio.to_thread.run_sync(file.flush)
    file.seek(0)
