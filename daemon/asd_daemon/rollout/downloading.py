"""Bytes from a web server: the offer with its ETag, files from where they broke off, never more than what was signed.

The standard library's client (proxies by http_proxy, https_proxy and no_proxy); certificates are checked, and no redirection leads from
https to http. Owns the connection; what the bytes mean is its caller's business.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from asd_daemon.errors import RolloutError
from asd_daemon.judge.bundle.manifest import FileEntry
from asd_daemon.rollout.offer import MAX_OFFER_BYTES, OFFER

SILENT_S = 30.0
"""A server that says nothing for so long is given up."""
_CHUNK = 2**16
_PATIENCE_S, _SLOWEST = 60.0, 4096.0  # bytes a second, on the average of a file


@dataclass(frozen=True)
class FetchedOffer:
    """What a server offers."""

    content: bytes
    etag: str | None


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Redirections go where they like, but never from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"redirects to {newurl.split(':', maxsplit=1)[0]}:, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


class BundleServer:
    """One web server's folder.

    Args:
        url: of the folder.
        ca_file: certificates to trust; None: those of the system.
        insecure: whether http:// may be used.
        silent_s: a server that says nothing for so long is given up.

    Raises:
        RolloutError: the URL may not be used, or the certificates can't be read.
    """

    def __init__(
        self, url: str, ca_file: Path | None = None, *, insecure: bool = False, silent_s: float = SILENT_S
    ) -> None:
        if not url.startswith("https://") and not (insecure and url.startswith("http://")):
            raise RolloutError(f"{url}: is fetched with https:// only; insecure: true allows http://")
        self._url, self._silent_s = url.rstrip("/"), silent_s
        try:
            context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        except (OSError, ssl.SSLError) as e:
            raise RolloutError(f"{ca_file}: certificates can't be read: {e}") from e
        self._opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoDowngrade())

    def offer(self, etag: str | None) -> FetchedOffer | None:
        """The offer; None where it is still that of `etag`.

        Raises:
            RolloutError: it can't be had.
        """
        where = f"{self._url}/{OFFER}"
        headers = {"Cache-Control": "no-cache"} | ({"If-None-Match": etag} if etag else {})
        until_s = time.monotonic() + _PATIENCE_S
        content = b""
        try:
            with self._open(where, headers) as response:
                while chunk := response.read1(_CHUNK):
                    content += chunk
                    if len(content) > MAX_OFFER_BYTES:
                        raise RolloutError(f"{where}: is larger than {MAX_OFFER_BYTES} bytes")
                    _refuse_late(where, until_s)
                _refuse_short(where, response, len(content))
                return FetchedOffer(content, response.headers.get("ETag"))
        except urllib.error.HTTPError as e:
            e.close()
            if e.code == http.client.NOT_MODIFIED and etag:
                return None
            raise RolloutError(f"{where}: answers {e.code} {e.reason}") from e
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise RolloutError(f"{where}: {_words(e)}") from e

    def fetch(self, address: str, entry: FileEntry, part: Path, heard: Callable[[int], None] = lambda _: None) -> None:
        """Have a file whole in `part`, going on where an earlier try broke off.

        Args:
            address: below the folder.
            entry: size and SHA-256 that it must have.
            part: where it is collected; what is there already is believed only when the hash is right in the end.
            heard: told how many bytes of it are there, after each piece.

        Raises:
            RolloutError: it can't be had; what came stays for the next try, unless it is wrong.
        """
        where = f"{self._url}/{quote(address)}"
        try:
            have = part.stat().st_size if part.exists() else 0
            if have < entry.bytes or have == 0:
                self._append(where, entry, part, have, heard)
            if part.stat().st_size != entry.bytes:
                part.unlink()
                raise RolloutError(f"{where}: has another size than the {entry.bytes} bytes that are signed")
            with part.open("rb") as f:
                digest = hashlib.file_digest(f, "sha256").hexdigest()
            if digest != entry.sha256:
                part.unlink()
                raise RolloutError(f"{where}: does not have the SHA-256 that is signed; it is fetched anew")
        except urllib.error.HTTPError as e:
            e.close()
            if e.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)
            raise RolloutError(f"{where}: answers {e.code} {e.reason}") from e
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise RolloutError(f"{where}: {_words(e)}") from e

    def _append(self, where: str, entry: FileEntry, part: Path, have: int, heard: Callable[[int], None]) -> None:
        """Fetch what is missing of a file."""
        until_s = time.monotonic() + _PATIENCE_S + entry.bytes / _SLOWEST
        with self._open(where, {"Range": f"bytes={have}-"} if have else {}) as response:
            goes_on = response.status == http.client.PARTIAL_CONTENT
            if goes_on and not (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
                part.unlink()
                raise RolloutError(f"{where}: sends another part of the file than was asked for")
            with part.open("ab" if goes_on else "wb") as f:
                size = have if goes_on else 0
                try:
                    while chunk := response.read1(_CHUNK):
                        size += len(chunk)
                        if size > entry.bytes:
                            raise RolloutError(f"{where}: is larger than the {entry.bytes} bytes that are signed")
                        f.write(chunk)
                        heard(size)
                        _refuse_late(where, until_s)
                finally:
                    f.flush()
                    os.fsync(f.fileno())
            if size < entry.bytes:
                raise RolloutError(f"{where}: broke off after {size} of {entry.bytes} bytes")

    def _open(self, where: str, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(where, headers={"User-Agent": "asd-daemon", **headers})  # noqa: S310  # looked at above
        return self._opener.open(request, timeout=self._silent_s)


def _refuse_late(where: str, until_s: float) -> None:
    if time.monotonic() > until_s:
        raise RolloutError(f"{where}: comes too slowly; what came is kept for the next try")


def _refuse_short(where: str, response: Any, size: int) -> None:
    """An answer that says how long it is, and is not, broke off."""
    said = response.headers.get("Content-Length")
    if said is not None and said.isdigit() and int(said) != size:
        raise RolloutError(f"{where}: broke off after {size} of {said} bytes")


def _words(error: Exception) -> str:
    """What went wrong, for people."""
    if isinstance(error, urllib.error.URLError):
        reason = error.reason
        return str(reason.strerror or reason) if isinstance(reason, OSError) and reason.strerror else str(reason)
    return str(error) or type(error).__name__
