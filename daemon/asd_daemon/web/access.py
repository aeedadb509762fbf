"""Who asks: from the session's cookie, a reverse proxy's header, or, where nobody must log in, whoever is at this box.

Owns the cookie and the forms: what changes something is a POST of an operator, with a token that only a page of ours has.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from asd_daemon.web.options import WebOptions
from asd_daemon.web.sessions import OPERATOR, Sessions

COOKIE = "asd_session"
_FORM = "application/x-www-form-urlencoded"
_MOST_COOKIE_CHARACTERS = 100
_BODY_WITHIN_S = 10.0
_MOST_FIELDS = 50


@dataclass(frozen=True)
class Visitor:
    """Who asks."""

    role: str | None
    """operator, viewer, or None for who must log in first."""
    cookie: str
    """Of the session; made up where there is none yet."""
    is_new: bool
    """Whether the cookie must be set."""

    @property
    def may_act(self) -> bool:
        """Whether they may change something."""
        return self.role == OPERATOR


class Access:
    """Tells who asks."""

    def __init__(self, options: WebOptions, sessions: Sessions) -> None:
        self._options, self.sessions = options, sessions

    @property
    def logs_in(self) -> bool:
        """Whether there are passwords."""
        return self._options.password_file is not None

    def visitor(self, request: Request) -> Visitor:
        """Who asks."""
        given = request.cookies.get(COOKIE, "")
        if len(given) > _MOST_COOKIE_CHARACTERS:
            given = ""
        cookie, is_new = (given, False) if given else (secrets.token_urlsafe(32), True)
        if not self._options.asks_who:
            return Visitor(OPERATOR, cookie, is_new)
        if self._is_known_to_proxy(request):
            return Visitor(OPERATOR, cookie, is_new)
        return Visitor(self.sessions.role(given) if given else None, cookie, is_new)

    def _is_known_to_proxy(self, request: Request) -> bool:
        header = self._options.proxy_header
        from_proxy = request.client is not None and request.client.host == self._options.proxy_address
        return header is not None and from_proxy and bool(request.headers.get(header))

    def require(self, request: Request) -> Visitor:
        """Who asks, if they may look.

        Raises:
            HTTPException: they must log in first.
        """
        visitor = self.visitor(request)
        if visitor.role is None:
            raise HTTPException(401, "log in first")
        return visitor

    def require_operator(self, request: Request, token: str) -> Visitor:
        """Who asks, if they may change something and have come from a page of ours.

        Raises:
            HTTPException: they may not, or have not.
        """
        visitor = self.require(request)
        if not visitor.may_act:
            raise HTTPException(403, "you may look, but change nothing")
        if visitor.is_new or not self.sessions.is_form_token(visitor.cookie, token):
            raise HTTPException(403, "the form is too old; load the page again")
        return visitor

    async def form(self, request: Request, *, acts: bool = True) -> dict[str, str]:
        """The fields of a form.

        Args:
            request: a POST.
            acts: whether it changes something, which an operator alone may do.

        Raises:
            HTTPException: it is no form, not from a page of ours, or not allowed.
        """
        visitor = self.require(request) if acts else self.visitor(request)
        if acts and not visitor.may_act:
            raise HTTPException(403, "you may look, but change nothing")
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != _FORM:
            raise HTTPException(415, "only forms are understood")
        try:
            body = await asyncio.wait_for(request.body(), _BODY_WITHIN_S)
            fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except (TimeoutError, ClientDisconnect) as e:
            raise HTTPException(408, "the form did not come") from e
        except ValueError as e:  # not UTF-8, or too many fields
            raise HTTPException(400, "the form can't be read") from e
        form = {name: values[0] for name, values in fields.items()}
        if visitor.is_new or not self.sessions.is_form_token(visitor.cookie, form.pop("token", "")):
            raise HTTPException(403, "the form is too old; load the page again")
        return form

    def set_cookie(self, request: Request, response: Response, value: str) -> None:
        """Hand out a session's cookie: not for scripts, not for other pages' requests."""
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, value, path="/", httponly=True, samesite="strict", secure=secure)


def safe_next(where: str) -> str:
    """Where to go after the login: a page of ours, whatever the link said."""
    is_ours = where.startswith("/") and not where.startswith("//") and "\\" not in where and where.isprintable()
    return where if is_ours else "/"
