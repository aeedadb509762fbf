"""What every request must pass before anything looks at it, and what every answer carries.

Pure ASGI: the host it was meant for, the method, where a form came from, how long its body is; then headers that keep browsers from
doing what the page never needs.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY_BYTES, MOST_HEAD_BYTES = 65_536, 16_384
MOST_BACKUP_BYTES = 512 * 2**20
"""Of a request that brings a machine's backup."""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; connect-src 'self';"
    " manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # not no-referrer: forms would come from "null"
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guards:
    """Around the whole application.

    Args:
        app: what answers a request that passes.
        hosts: names by which the page may be asked for, besides localhost and any address: a page of somebody else's that lets its name
            point to this box (DNS rebinding) comes with its own.
        proxy_address: whom to believe that a browser has come by HTTPS; None: nobody.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], proxy_address: str | None = None) -> None:
        self._app, self._hosts = app, {host.lower() for host in hosts} | {"localhost"}
        self._proxy_address = proxy_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        if (scope.get("client") or ("",))[0] == self._proxy_address and headers.get("x-forwarded-proto") == "https":
            scope = {**scope, "scheme": "https"}
        refused = self._objection(scope, headers)
        if refused is not None:
            status, reason = refused
            await PlainTextResponse(f"{reason}\n", status)(scope, receive, send_guarded)
            return
        await self._app(scope, _Limited(receive, _most_body_bytes(scope)), send_guarded)

    def _objection(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return 421, "this page is not known by that name; add it to web.hosts"
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEAD_BYTES:
            return 431, "the request's head is too long"
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "only GET, HEAD and POST are understood"
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > _most_body_bytes(scope):
            return 413, "the request is too long"
        if scope["method"] == "POST":
            own = f"{scope['scheme']}://{hosts[0]}".lower()
            if (
                headers.get("origin", "").lower() != own
                or headers.get("sec-fetch-site", "same-origin") != "same-origin"
            ):
                return 403, "the form is not from this page"
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name, _ = parts.hostname or "", parts.port
        except ValueError:
            return False
        if parts.username is not None or parts.path or parts.query or parts.fragment:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.rstrip(".") in self._hosts
        return True


def _most_body_bytes(scope: Scope) -> int:
    """How long a request's body may be; who it is from is asked before a backup is read."""
    is_backup = scope["path"].startswith("/machines/") and scope["path"].endswith("/restore")
    return MOST_BACKUP_BYTES if is_backup and scope["method"] == "POST" else MOST_BODY_BYTES


class _Limited:
    """A request's body that may not be longer than it may be, whatever its head says."""

    def __init__(self, receive: Receive, most_bytes: int) -> None:
        self._receive, self._left = receive, most_bytes

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                return {"type": "http.disconnect"}
        return message
