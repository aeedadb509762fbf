"""All of it together: which address is answered by what, around it the guards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sqlite3
import time
from collections.abc import AsyncIterator
from itertools import chain
from pathlib import Path

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from asd_daemon.web.access import Access, safe_next
from asd_daemon.web.actions import Actions
from asd_daemon.web.alert_records import read_alerts
from asd_daemon.web.guards import Guards
from asd_daemon.web.learn_pages import LearnPages
from asd_daemon.web.live_hub import LiveHub
from asd_daemon.web.options import WebOptions
from asd_daemon.web.pages import MOST_LIVE, Pages
from asd_daemon.web.places import SCORES, Places
from asd_daemon.web.score_tables import Row, packed, read_rows, with_recent
from asd_daemon.web.sessions import Sessions, Tries, read_passwords, role_of_password
from asd_daemon.web.sounds import NormalSounds, live_wave
from asd_daemon.web.static_files import StaticFiles
from asd_daemon.web.system_report import SystemReport
from asd_daemon.web.upkeep import MachineUpkeep
from asd_daemon.web.words import iso

_BEAT_S = 5.0
_DAY_S = 86_400.0
_MOST_DAYS = 400
_MOST_SOURCE = 300


class Application:
    """The page's addresses."""

    def __init__(self, options: WebOptions) -> None:
        self._hashes = read_passwords(Path(options.password_file)) if options.password_file else {}
        self._places = Places(options)
        self.hub = LiveHub(self._places)
        self._access = Access(options, Sessions(options.session_hours))
        self._tries = Tries()
        self._turn = asyncio.Semaphore(1)  # a hash takes 19 MB while it is computed
        self._static, self._system = StaticFiles(), SystemReport(self._places, options)
        self._pages = Pages(self._places, self.hub, self._access, self._static, self._system)
        self._normal = NormalSounds()
        self._options = options

    def asgi(self) -> ASGIApp:
        """What the server calls."""
        pages, actions = self._pages, Actions(self._access, self.hub, self._pages)
        upkeep = MachineUpkeep(self._access, self.hub, pages, self._places)
        learn = LearnPages(self._access, self.hub, self._pages, self._places)
        routes = [
            Route("/", pages.now),
            Route("/history", pages.history),
            Route("/history/limit", actions.use_limit, methods=["POST"]),
            Route("/alerts", pages.alerts),
            Route("/alerts/{event_id}", pages.alert),
            Route("/alerts/{event_id}/say", actions.say, methods=["POST"]),
            Route("/alerts/{event_id}/note", actions.note, methods=["POST"]),
            Route("/alerts/{event_id}/acknowledge", actions.acknowledge, methods=["POST"]),
            Route("/mute", actions.mute, methods=["POST"]),
            Route("/learn", learn.choose),
            Route("/learn/add", learn.add, methods=["POST"]),
            Route("/learn/{machine}", learn.machine),
            Route("/learn/{machine}/begin", learn.begin, methods=["POST"]),
            Route("/learn/{machine}/stop", learn.stop, methods=["POST"]),
            Route("/learn/{machine}/remove", learn.remove, methods=["POST"]),
            Route("/learn/{machine}/knock", learn.knock, methods=["POST"]),
            Route("/api/knock/{machine}", learn.heard_knock),
            Route("/api/devices", learn.devices),
            Route("/machines", pages.machines_page),
            Route("/machines/change", upkeep.change, methods=["POST"]),
            Route("/machines/forget", upkeep.forget, methods=["POST"]),
            Route("/machines/{machine}/backup", upkeep.backup),
            Route("/machines/{machine}/restore", upkeep.restore, methods=["POST"]),
            Route("/system", pages.system),
            Route("/system/support.zip", self._support),
            Route("/system/rollback", upkeep.roll_back, methods=["POST"]),
            Route("/login", self._login_page, methods=["GET"]),
            Route("/login", self._login, methods=["POST"]),
            Route("/logout", self._logout, methods=["POST"]),
            Route("/events", self._events),
            Route("/listen", self._listen),
            Route("/clips/{event_id}", self._clip),
            Route("/clips/{event_id}/normal", self._normal_clip),
            Route("/api/scores", self._scores),
            Route("/api/alerts", self._alerts),
            Route("/api/alerts/{event_id}/normal", self._normal_found),
            Route("/static/{version}/{name:path}", self._static.answer),
        ]
        handlers = {HTTPException: pages.failure, Exception: pages.failure}
        inner = Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)
        inner.router.redirect_slashes = False
        proxy = self._options.proxy_address if self._options.proxy_header else None
        return Guards(inner, self._options.hosts, proxy)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(self.hub.run())
        try:
            yield
        finally:
            task.cancel()

    async def _login_page(self, request: Request) -> Response:
        where = safe_next(request.query_params.get("next", "/"))
        return self._pages.render(request, self._access.visitor(request), "login.html", next=where, wrong=None)

    async def _login(self, request: Request) -> Response:
        form = await self._access.form(request, acts=False)
        address = request.client.host if request.client else ""
        where = safe_next(form.get("next", "/"))
        async with self._turn:  # one after the other, so that many at once are no way around the limit
            wait_s = self._tries.wait_s(address)
            if wait_s > 0:
                return self._refused(request, where, f"Too many tries; wait {math.ceil(wait_s)} s.", 429, wait_s)
            password = form.get("password", "")[:1000]
            role = await anyio.to_thread.run_sync(role_of_password, self._hashes, password)
            if role is None:
                self._tries.fail(address)
                return self._refused(request, where, "That is not the password.", 403)
        response = RedirectResponse(where, 303)
        self._access.set_cookie(request, response, self._access.sessions.open(role))
        return response

    def _refused(self, request: Request, where: str, wrong: str, status: int, wait_s: float = 0) -> Response:
        visitor = self._access.visitor(request)
        response = self._pages.render(request, visitor, "login.html", status, next=where, wrong=wrong)
        if wait_s:
            response.headers["retry-after"] = str(math.ceil(wait_s))
        return response

    async def _logout(self, request: Request) -> Response:
        await self._access.form(request, acts=False)
        self._access.sessions.close(self._access.visitor(request).cookie)
        response = RedirectResponse("/", 303)
        response.delete_cookie("asd_session", path="/")
        return response

    async def _events(self, request: Request) -> Response:
        self._access.require(request)
        if self.hub.is_full:
            raise HTTPException(503, "too many are looking")
        wanted, advice = (request.query_params.getlist(key)[:MOST_LIVE] for key in ("sound", "advice"))
        self._allow_trials(request, [*wanted, *advice])

        async def stream() -> AsyncIterator[str]:
            async with self.hub.watching(wanted, (), advice) as watcher:
                while True:
                    try:
                        piece = await asyncio.wait_for(watcher.pieces.get(), _BEAT_S)
                        yield f"event: {piece['kind']}\ndata: {json.dumps(piece, ensure_ascii=False)}\n\n"
                    except TimeoutError:
                        yield ": still here\n\n"
                    if self._access.visitor(request).role is None:  # the session has ended
                        return

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def _listen(self, request: Request) -> Response:
        self._access.require(request)
        machine = request.query_params.get("machine", "")
        self._allow_trials(request, [machine])
        if machine not in self.hub.machines() and ":" not in machine:
            raise HTTPException(404, "nobody listens to such a machine now")
        if self.hub.is_full:
            raise HTTPException(503, "too many are listening")

        def may_listen() -> bool:
            return self._access.visitor(request).role is not None

        return StreamingResponse(live_wave(self.hub, machine, may_listen), media_type="audio/wav")

    def _allow_trials(self, request: Request, names: list[str]) -> None:
        """Sources that are tried have names as no machine has: `device:NAME`; who may only look opens no microphone.

        Raises:
            HTTPException: they may not.
        """
        tried = [name for name in names if ":" in name]
        if tried and not self._access.require(request).may_act:
            raise HTTPException(403, "you may look, but not try a microphone")
        if any(len(name) > _MOST_SOURCE or not name.isprintable() for name in tried):
            raise HTTPException(400, "that is no source of sound")

    async def _clip(self, request: Request) -> Response:
        self._access.require(request)
        clip = (await self._pages.record(request)).clip
        if clip is None:
            raise HTTPException(404, "there is no sound of this alert, or not yet")
        return FileResponse(clip, media_type="audio/flac")

    async def _normal_clip(self, request: Request) -> Response:
        self._access.require(request)
        found = await self._normal.of(await self._pages.record(request))
        if found is None:
            raise HTTPException(404, "no normal sound of this machine is kept")
        return FileResponse(found.file, media_type="audio/flac")

    async def _normal_found(self, request: Request) -> Response:
        self._access.require(request)
        found = await self._normal.of(await self._pages.record(request))
        if found is None:
            return JSONResponse({"found": False})
        at_ms = round((await anyio.to_thread.run_sync(found.file.stat)).st_mtime * 1000)
        return JSONResponse({"found": True, "gain": found.gain, "compared": found.compared, "at": iso(at_ms)})

    async def _scores(self, request: Request) -> Response:
        self._access.require(request)
        begin_ms, end_ms = _span(request)
        machine = request.query_params.get("machine", "")
        recent: list[Row] = [row for row in self.hub.recent(machine) if begin_ms <= row[0] <= end_ms]

        def read() -> bytes:
            files = [folder / SCORES for folder in self._places.state_folders()]
            kept = chain.from_iterable(read_rows(file, machine, begin_ms, end_ms) for file in files)
            try:
                return packed(with_recent(kept, recent), begin_ms=begin_ms, end_ms=end_ms)
            except sqlite3.Error as e:
                raise HTTPException(503, "the scores can't be read just now") from e

        return Response(await anyio.to_thread.run_sync(read), media_type="application/octet-stream")

    async def _alerts(self, request: Request) -> Response:
        self._access.require(request)
        begin_ms, end_ms = _span(request)
        machine, folders = request.query_params.get("machine", ""), self._places.state_folders()
        records = await anyio.to_thread.run_sync(lambda: read_alerts(folders, machine=machine, most=2000))
        told = [
            {"id": r.event_id, "opened_s": r.opened_ms / 1000, "closed_s": r.closed_ms / 1000 if r.closed_ms else None,
             "outcome": r.outcome, "words": r.words}
            for r in records
            if r.opened_ms <= end_ms and (r.closed_ms or end_ms) >= begin_ms
        ]  # fmt: skip
        return JSONResponse({"alerts": told, "rule": self.hub.machines().get(machine, {}).get("rule")})

    async def _support(self, request: Request) -> Response:
        if not self._access.require(request).may_act:
            raise HTTPException(403, "you may look, but not fetch the support file")
        machines = self.hub.machines()
        content = await anyio.to_thread.run_sync(lambda: self._system.support_file(machines))
        name = time.strftime("asd-support-%Y%m%d-%H%M%S.zip", time.gmtime())
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(content, media_type="application/zip", headers=headers)


def _span(request: Request) -> tuple[int, int]:
    """Begin and end, Unix time in ms, of `from` and `to` in seconds.

    Raises:
        HTTPException: they are no span of time.
    """
    now_s = time.time()
    try:
        end_s = float(request.query_params.get("to", now_s))
        begin_s = float(request.query_params.get("from", end_s - _DAY_S))
    except ValueError as e:
        raise HTTPException(400, "from and to must be seconds") from e
    if not (math.isfinite(begin_s) and math.isfinite(end_s) and 0 <= end_s - begin_s <= _MOST_DAYS * _DAY_S):
        raise HTTPException(400, f"from and to must be seconds, at most {_MOST_DAYS} days apart")
    if not 0 <= begin_s <= 1e11:
        raise HTTPException(400, "from and to must be seconds since 1970")
    return round(begin_s * 1000), round(end_s * 1000)
