"""Learn a machine: choose a microphone by listening to it, place it, learn, see what was learned, and knock on it."""

from __future__ import annotations

import re
import unicodedata
from itertools import count
from urllib.parse import quote

import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from asd_daemon.web.access import Access
from asd_daemon.web.live_hub import LiveHub
from asd_daemon.web.machine_changes import Kept
from asd_daemon.web.machine_facts import read_learned
from asd_daemon.web.pages import NOT_RUNNING, Pages
from asd_daemon.web.places import Places

MINUTES = (3, 5, 10, 20, 60)
SPREADS = {"1d": "spread over a day", "3d": "spread over 3 days", "7d": "spread over a week"}
_MODES = ("", "add", "relearn")
_MOST_TITLE, _MOST_SOURCE, _MOST_STATE = 60, 300, 64
_KNOCK_WINDOWS = 3
_KNOCK_MUTE_MIN = 2


class LearnPages:
    """Answers them, and their forms."""

    def __init__(self, access: Access, hub: LiveHub, pages: Pages, places: Places) -> None:
        self._access, self._hub, self._pages, self._places = access, hub, pages, places

    async def choose(self, request: Request) -> Response:
        """Which microphone, and which machine."""
        visitor = self._access.require(request)
        machines = self._hub.machines()
        anew = request.query_params.get("machine")
        if anew is not None and not await self._may_choose(anew):
            raise HTTPException(404, "no such machine was added here")
        return self._pages.render(
            request, visitor, "learn.html", machines=machines, anew=anew, adds=self._hub.adds, most=_MOST_TITLE
        )

    async def machine(self, request: Request) -> Response:
        """One machine: its place, its learning, what was learned, and the knock."""
        visitor, name = self._access.require(request), self._name(request)
        machine = NOT_RUNNING | self._hub.machines()[name]
        learned = await anyio.to_thread.run_sync(read_learned, self._places.state_folders(), name)
        return self._pages.render(
            request, visitor, "learn_machine.html", name=name, machine=machine, learned=learned,
            minutes=MINUTES, spreads=SPREADS, knock=_mark(request.query_params.get("knock")),
        )  # fmt: skip

    async def devices(self, request: Request) -> Response:
        """The microphones of the box; for who may choose one."""
        if not self._access.require(request).may_act:
            raise HTTPException(403, "you may look, but not choose a microphone")
        return JSONResponse(await self._hub.devices())

    async def add(self, request: Request) -> Response:
        """Have a machine heard by a microphone; a new one, or one that was added before."""
        form = await self._access.form(request)
        title, source, name = form.get("title", "").strip(), form.get("source", "").strip(), form.get("machine", "")
        if source == "simulate":
            source = f"simulate:{form.get('simulate', '').strip()}"
        if not 0 < len(source) <= _MOST_SOURCE:
            raise HTTPException(400, "choose a microphone")
        if name and name not in self._hub.machines() and not await self._may_choose(name):
            raise HTTPException(404, "no such machine was added here")
        if not name and not (0 < len(title) <= _MOST_TITLE and (name := await self._name_for(title))):
            return self._refused(request, title, f"Give the machine a name of up to {_MOST_TITLE} letters or digits.")
        if not form.get("machine") and name in await self._pages.machines():
            return self._refused(request, title, f"There is a machine {name} already; take another name.")
        done, text = await self._hub.add(name, source)
        if not done:
            return self._refused(request, title, text)
        if not form.get("machine") and title != name:
            await self._hub.command(name, {"command": "set", "key": "title", "value": title})
        return self._pages.back(
            request, f"/learn/{quote(name)}", (True, f"{title or name} is heard now; it is called {name} in messages.")
        )

    def _refused(self, request: Request, title: str, why: str) -> Response:
        """Back to the form, with the name that was typed beside the reason."""
        return self._pages.back(request, "/learn", (False, why), Kept("", "title", title, why))

    async def begin(self, request: Request) -> Response:
        """Learn it from what is heard now."""
        form = await self._access.form(request)
        name, long, mode = self._name(request), form.get("long", ""), form.get("mode", "")
        state = form.get("state", "").strip()
        wish: dict[str, object] = {"command": "enroll"}
        if long in SPREADS:
            wish["over"] = long
        elif long in map(str, MINUTES):
            wish["minutes"] = int(long)
        else:
            raise HTTPException(400, "say how long to learn")
        if mode not in _MODES or len(state) > _MOST_STATE:
            raise HTTPException(400, "add to what is known, or learn it anew")
        wish |= {key: value for key, value in (("mode", mode), ("state", state)) if value}
        done, text = await self._hub.command(name, wish)
        words = "Learning has begun. You may close this page; it goes on, also after a restart."
        return self._pages.back(request, f"/learn/{quote(name)}", (done, words if done else text))

    async def stop(self, request: Request) -> Response:
        """Learn it no further."""
        await self._access.form(request)
        name = self._name(request)
        done, text = await self._hub.command(name, {"command": "enroll", "undo": True})
        words = "Learning is stopped with the next window, and what was heard for it is forgotten."
        return self._pages.back(request, f"/learn/{quote(name)}", (done, words if done else text))

    async def remove(self, request: Request) -> Response:
        """Hear a machine that was added no more; what was learned of it stays."""
        await self._access.form(request)
        name = self._name(request)
        if (self._hub.machines()[name].get("learning") or {}).get(
            "is_learning"
        ):  # else it would go on when it is added again
            await self._hub.command(name, {"command": "enroll", "undo": True})
        told = await self._hub.command(name, {"command": "unset", "key": "source"})
        return self._pages.back(request, "/learn", told)

    async def knock(self, request: Request) -> Response:
        """Somebody knocks on it from now on; meanwhile nobody is told."""
        await self._access.form(request)
        name = self._name(request)
        recent = self._hub.recent(name)
        if not self._hub.machines()[name].get("muted_until"):
            await self._hub.command(name, {"command": "mute", "minutes": _KNOCK_MUTE_MIN})
        return RedirectResponse(f"/learn/{quote(name)}?knock={recent[-1][0] if recent else 0}#knock", 303)

    async def heard_knock(self, request: Request) -> Response:
        """What has become of the windows since somebody began to knock."""
        self._access.require(request)
        name, since = self._name(request), _mark(request.query_params.get("since"))
        if since is None:
            raise HTTPException(400, "since must be a time")
        rows = self._hub.recent(name)
        after = [row for row in rows if row[0] > since][:_KNOCK_WINDOWS]
        scored = [(score, limit) for _, score, limit, _ in after if score is not None and limit]
        ratios = [score / limit for score, limit in scored]
        usual = sorted(score / limit for at, score, limit, _ in rows if at <= since and score is not None and limit)
        best = max(ratios, default=None)
        is_heard = best is not None and best > 1
        return JSONResponse({
            "windows": len(after),
            "of": _KNOCK_WINDOWS,
            "heard": is_heard,
            "over": is_heard or len(after) == _KNOCK_WINDOWS,
            "share": best,
            "usual": usual[len(usual) // 2] if usual else None,
            "unfit": next((unfit for _, score, _, unfit in after if score is None and unfit), None),
        })  # fmt: skip

    async def _may_choose(self, name: str) -> bool:
        """Whether a machine's microphone is chosen here: it was added here, or it is known and nobody hears it."""
        heard = self._hub.machines().get(name)
        return name in await self._pages.machines() if heard is None else "source" in heard.get("chosen", {})

    async def _name_for(self, title: str) -> str:
        """A name from what people call it; numbered where it has letters, but none for topics and files (機械)."""
        if (name := name_of(title)) or not any(map(str.isalnum, title)):
            return name
        known = await self._pages.machines()
        return next(f"machine-{n}" for n in count(1) if f"machine-{n}" not in known)

    def _name(self, request: Request) -> str:
        """The machine that the path names, which is heard now.

        Raises:
            HTTPException: nobody hears it.
        """
        name = request.path_params["machine"]
        if name not in self._hub.machines():
            raise HTTPException(404, "nobody listens to such a machine now")
        return str(name)


def name_of(title: str) -> str:
    """What a machine that people call so is called in topics and files: ASCII letters, digits and -; empty where nothing is left."""
    spelled = title
    for letter, letters in (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("Ä", "Ae"), ("Ö", "Oe"), ("Ü", "Ue"), ("ß", "ss")):
        spelled = spelled.replace(letter, letters)
    plain = unicodedata.normalize("NFKD", spelled).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.]+", "-", plain).strip("-._").lower()[:64]


def _mark(text: str | None) -> int | None:
    """Unix time in ms; None where it is none."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 15 else None
