"""The pages: what is known at this moment becomes HTML; scripts keep it up to date afterwards."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio.to_thread
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from asd_daemon.web.access import Access, Visitor, safe_next
from asd_daemon.web.alert_records import AlertRecord, alike, read_alert, read_alerts
from asd_daemon.web.live_hub import LiveHub
from asd_daemon.web.machine_changes import FIELDS, Kept, shown
from asd_daemon.web.machine_facts import limit_words, read_learned, rule_words
from asd_daemon.web.places import SCORES, Places
from asd_daemon.web.rollout_words import rollout_words
from asd_daemon.web.score_tables import stored_machines
from asd_daemon.web.static_files import StaticFiles
from asd_daemon.web.system_report import SystemReport
from asd_daemon.web.words import LOOKS, OUTCOMES, count_words, iso, of_limit, span_words, state_words, utc

_WEEK_MS = 7 * 86_400_000
_MOST_NOTICES = 1000
MOST_BUTTONS = 6
"""So many machines have a button each; of more one is chosen from a list."""
_KEYS = ("since", "text", "reason", "score", "threshold", "event_id", "muted_until", "operating_state", "rule", "drift")
NOT_RUNNING: dict[str, Any] = dict.fromkeys((*_KEYS, "calibration")) | {
    "state": "not_running",
    "listening": False,
    "troubles": [],
    "acknowledged": False,
    "title": None,
    "scoring": None,
    "budget": None,
    "notify": None,
    "chosen": {},
    "learning": None,
}
"""What a machine is like whose daemon does not run."""
MOST_LIVE = 8
"""So many machines are shown with live sound."""


@dataclass(frozen=True)
class Notice:
    """What came of a form."""

    done: bool
    text: str
    kept: Kept | None = None
    """What was typed and refused."""


class Notices:
    """What came of forms, for the page that is shown after each, once."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, Notice] = OrderedDict()

    def leave(self, cookie: str, done: bool, text: str, kept: Kept | None = None) -> None:
        """Keep it for who holds this cookie."""
        self._left[cookie] = Notice(done, text, kept)
        while len(self._left) > _MOST_NOTICES:
            self._left.popitem(last=False)

    def take(self, cookie: str) -> Notice | None:
        """What is there for them."""
        return self._left.pop(cookie, None)


class Pages:
    """Renders them."""

    def __init__(self, places: Places, hub: LiveHub, access: Access, static: StaticFiles, system: SystemReport) -> None:
        self._places, self._hub, self._access, self._system = places, hub, access, system
        self.notices = Notices()
        self._templates = Environment(
            loader=PackageLoader("asd_daemon.web"),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(
            static=static.url,
            state_words=state_words,
            outcome_words=lambda outcome: OUTCOMES.get(outcome, (outcome, "doubt")),
            of_limit=of_limit,
            rule_words=rule_words,
            rollout_words=rollout_words,
            limit_words=limit_words,
            span=span_words,
            count=count_words,
            iso=iso,
            utc=utc,
            most_buttons=MOST_BUTTONS,
        )

    def render(self, request: Request, visitor: Visitor, template: str, code: int = 200, **values: Any) -> HTMLResponse:
        """A page for a visitor."""
        shown = {
            "visitor": visitor,
            "token": self._access.sessions.form_token(visitor.cookie),
            "notice": self.notices.take(visitor.cookie) if code == 200 else None,
            "path": request.url.path,
            "node": ", ".join(sorted({str(about["node"]) for about in self._hub.abouts()})),
            "logs_in": self._access.logs_in,
            "titles": {name: one["title"] for name, one in self._hub.machines().items() if one.get("title")},
        }
        html = self._templates.get_template(template).render(**shown, **values)
        response = HTMLResponse(html, code)
        if visitor.is_new:
            self._access.set_cookie(request, response, visitor.cookie)
        return response

    def back(self, request: Request, where: str, told: tuple[bool, str], kept: Kept | None = None) -> Response:
        """To the page that is shown after a form, with what came of it and what was typed in vain."""
        self.notices.leave(self._access.visitor(request).cookie, *told, kept)
        return RedirectResponse(safe_next(where), 303)

    async def machines(self) -> dict[str, Mapping[str, Any]]:
        """All that are heard, were, or are learned: what each is like, `not_running` where its daemon does not run."""
        running = self._hub.machines()
        files = [folder / SCORES for folder in self._places.state_folders()]
        stored = await anyio.to_thread.run_sync(lambda: stored_machines(files) | self._places.learned())
        return {name: NOT_RUNNING | running.get(name, {}) for name in sorted(running.keys() | stored, key=str.lower)}

    async def now(self, request: Request) -> Response:
        """Every machine as it is, first those that somebody should look at."""
        visitor = self._access.require(request)
        machines = await self.machines()
        looks = {name: LOOKS.index(state_words(one["state"])[1]) for name, one in machines.items()}
        machines = {name: machines[name] for name in sorted(machines, key=lambda name: looks[name])}
        latest = await self._alerts(since_ms=_now_ms() - _WEEK_MS, most=5)
        return self.render(
            request,
            visitor,
            "now.html",
            machines=machines,
            latest=latest,
            most_live=MOST_LIVE,
            adds=self._hub.adds,
            latest_s=self._hub.latest_s,
        )

    async def history(self, request: Request) -> Response:
        """Scores of one machine, and what would have fired."""
        visitor = self._access.require(request)
        machines = await self.machines()
        asked = request.query_params.get("machine") or next(iter(machines), None)
        if asked is not None and asked not in machines:
            raise HTTPException(404, "there is no such machine")
        now = machines.get(asked or "", NOT_RUNNING)
        return self.render(
            request,
            visitor,
            "history.html",
            machines=machines,
            machine=asked,
            machine_now=now,
            latest_s=self._hub.latest_s(asked or ""),
        )

    async def alerts(self, request: Request) -> Response:
        """Those that opened, the latest first."""
        visitor = self._access.require(request)
        machine = request.query_params.get("machine") or None
        records = await self._alerts(machine=machine, most=200)
        machines = await self.machines()
        return self.render(request, visitor, "alerts.html", records=records, machine=machine, machines=machines)

    async def alert(self, request: Request) -> Response:
        """One of them: what changed, how it sounds, when it was like that before."""
        visitor = self._access.require(request)
        record = await self.record(request)
        others = await self._alerts(machine=record.machine, most=200)
        machine = NOT_RUNNING | self._hub.machines().get(record.machine, {})
        return self.render(
            request, visitor, "alert.html", record=record, earlier=alike(record, others)[:10], machine=machine
        )

    async def record(self, request: Request) -> AlertRecord:
        """The alert that the path names.

        Raises:
            HTTPException: there is none.
        """
        event_id = request.path_params["event_id"]
        record = await anyio.to_thread.run_sync(read_alert, self._places.state_folders(), event_id)
        if record is None:
            raise HTTPException(404, "there is no such alert; it may be older than what is kept")
        return record

    async def machines_page(self, request: Request) -> Response:
        """What is known of each machine, and how it is judged."""
        visitor = self._access.require(request)
        machines, folders = await self.machines(), self._places.state_folders()
        known = [
            (name, machine, await anyio.to_thread.run_sync(read_learned, folders, name))
            for name, machine in machines.items()
        ]
        return self.render(
            request, visitor, "machines.html", machines=known, adds=self._hub.adds, fields=FIELDS, text_of=shown
        )

    async def system(self, request: Request) -> Response:
        """How the box is."""
        visitor = self._access.require(request)
        report = await anyio.to_thread.run_sync(self._system.read)
        logs = await self._hub.logs() if visitor.may_act else []
        return self.render(request, visitor, "system.html", report=report, abouts=self._hub.abouts(), logs=logs)

    async def failure(self, request: Request, error: Exception) -> Response:
        """What can't be answered, in a sentence; who must log in is sent there."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        reason = error.detail if isinstance(error, HTTPException) else "something went wrong; the log says what"
        visitor = self._access.visitor(request)
        is_page = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")
        if status == 401 and is_page and request.method == "GET":
            return RedirectResponse(f"/login?next={request.url.path}", 303)
        if not is_page:
            return Response(f"{reason}\n", status, media_type="text/plain")
        return self.render(request, visitor, "failure.html", status, status=status, reason=reason)

    async def _alerts(self, *, machine: str | None = None, since_ms: int = 0, most: int) -> list[AlertRecord]:
        folders = self._places.state_folders()
        return await anyio.to_thread.run_sync(
            lambda: read_alerts(folders, machine=machine, since_ms=since_ms, most=most)
        )


def _now_ms() -> int:
    return round(time.time() * 1000)
