"""Looking after machines and the box on the pages: names, budgets, backups, removal, the bundle before.

What changes something is passed on to the daemon; a backup is read here.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import anyio.to_thread
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response

from asd_daemon.web.access import Access
from asd_daemon.web.live_hub import LiveHub
from asd_daemon.web.machine_changes import (
    FIELDS,
    Field,
    Kept,
    NotUnderstoodError,
    as_configured,
    done_words,
    refused_words,
)
from asd_daemon.web.pages import Pages
from asd_daemon.web.places import ENROLLED, Places

_BACKUP_WITHIN_S, _UPLOAD_WITHIN_S = 120.0, 600.0


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
        if key not in FIELDS:
            raise HTTPException(400, f"{key[:60]!r} is not changed here")
        field, now = FIELDS[key], self._hub.machines()[machine]
        called = now.get("title") or machine
        try:
            value = field.read(text) if text else None
        except NotUnderstoodError as e:
            return self._refused(request, field, Kept(machine, key, text, str(e)), called)
        if value is None and as_configured(now, key):
            return self._pages.back(request, "/machines", (True, f"{called}: “{field.label}” is as configured."))
        wish: dict[str, object] = {"command": "unset", "key": key}
        if value is not None:
            wish = {"command": "set", "key": key, "value": value}
        done, reason = await self._hub.command(machine, wish)
        if not done:
            why = refused_words(key, field.label, machine, reason)
            return self._refused(request, field, Kept(machine, key, text, why), called)
        return self._pages.back(request, "/machines", (True, done_words(field, called, value)))

    def _refused(self, request: Request, field: Field, kept: Kept, called: str) -> Response:
        """Back to the form, with what was typed beside the reason."""
        told = (False, f"{called}: “{field.label}” is not changed: {kept.why}")
        return self._pages.back(request, "/machines", told, kept)

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
