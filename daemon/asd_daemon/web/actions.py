"""What people do on the pages: say what an alert was, acknowledge it, mute a machine, use a limit; each is passed on to the daemon."""

from __future__ import annotations

import math
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from asd_daemon.web.access import Access
from asd_daemon.web.live_hub import LiveHub
from asd_daemon.web.machine_changes import refused_words
from asd_daemon.web.pages import Pages

_MOST_NAME_CHARACTERS = 60
MOST_NOTE_CHARACTERS = 1000
_MUTES_MIN = (0, 60, 480, 1440)


class Actions:
    """Answers their forms."""

    def __init__(self, access: Access, hub: LiveHub, pages: Pages) -> None:
        self._access, self._hub, self._pages = access, hub, pages

    async def say(self, request: Request) -> Response:
        """Somebody's word for an alert: normal, a fault with a name, or neither any more."""
        form = await self._access.form(request)
        record = await self._pages.record(request)
        word, name = form.get("word"), form.get("name", "").strip()
        wish: dict[str, object] = {"command": word, "event_id": record.event_id}
        if word == "undo" and record.word is not None:
            wish |= {"command": record.word, "undo": True}
        elif word == "fault" and 0 < len(name) <= _MOST_NAME_CHARACTERS:
            wish["name"] = name
        elif word != "normal":
            raise HTTPException(400, "say normal, or give the fault a name of up to 60 characters, such as bearing")
        told = await self._hub.command(record.machine, wish)
        return self._pages.back(request, f"/alerts/{record.event_id}", told)

    async def note(self, request: Request) -> Response:
        """Somebody writes something down about an alert; nothing: what was written goes."""
        form = await self._access.form(request)
        record, text = await self._pages.record(request), form.get("text", "").replace("\r\n", "\n").strip()
        if len(text) > MOST_NOTE_CHARACTERS:
            raise HTTPException(400, f"a note may have {MOST_NOTE_CHARACTERS} characters, this one has {len(text)}")
        wish = {"command": "note", "event_id": record.event_id, "text": text}
        done, words = await self._hub.command(record.machine, wish)
        told = (done, ("Noted." if text else "The note is gone.") if done else words)
        return self._pages.back(request, f"/alerts/{record.event_id}", told)

    async def acknowledge(self, request: Request) -> Response:
        """Somebody looks after an alert."""
        await self._access.form(request)
        record = await self._pages.record(request)
        done, text = await self._hub.command(record.machine, {"command": "acknowledge", "event_id": record.event_id})
        told = (done, "Acknowledged: nothing but the end of this alert is told from now on." if done else text)
        return self._pages.back(request, f"/alerts/{record.event_id}", told)

    async def mute(self, request: Request) -> Response:
        """Tell no alert of a machine for some time; 0 minutes: tell them again."""
        form = await self._access.form(request)
        machine, minutes = form.get("machine", ""), form.get("minutes", "")
        if machine not in self._hub.machines():
            raise HTTPException(404, "nobody listens to such a machine now")
        if not minutes.isascii() or not minutes.isdigit() or int(minutes) not in _MUTES_MIN:
            raise HTTPException(400, f"minutes must be one of {', '.join(map(str, _MUTES_MIN))}")
        wish = {"command": "mute", "minutes": int(minutes)} if int(minutes) else {"command": "unmute"}
        done, text = await self._hub.command(machine, wish)
        called = self._hub.machines().get(machine, {}).get("title") or machine
        words = f"No alert of {called} is told now." if int(minutes) else f"Alerts of {called} are told again."
        return self._pages.back(request, form.get("back", "/"), (done, words if done else text))

    async def use_limit(self, request: Request) -> Response:
        """A limit of a machine that was tried is used from its next window on; none: the learned one again."""
        form = await self._access.form(request)
        machine, limit = form.get("machine", ""), form.get("limit", "")
        if machine not in self._hub.machines():
            raise HTTPException(404, "nobody listens to such a machine now")
        wish: dict[str, object] = {"command": "unset", "key": "alarm.threshold"}
        called = self._hub.machines()[machine].get("title") or machine
        words = f"The limit of {called} is the learned one again, or the configuration's."
        if limit:
            try:
                value = float(limit)
            except ValueError as e:
                raise HTTPException(400, f"the limit must be a number, got {limit[:20]!r}") from e
            if not math.isfinite(value):
                raise HTTPException(400, f"the limit must be a number, got {limit[:20]!r}")
            wish = {"command": "set", "key": "alarm.threshold", "value": value}
            words = f"The limit of {called} is {value:.4g} from its next window on."
        done, text = await self._hub.command(machine, wish)
        if not done:
            words = f"The limit of {called} is not changed: {refused_words('alarm.threshold', 'Limit', machine, text)}"
        return self._pages.back(request, f"/history?machine={quote(machine)}", (done, words))
