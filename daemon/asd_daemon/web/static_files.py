"""Scripts and styles, read once at the start and served from memory: no path from a browser touches the disk."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}


@dataclass(frozen=True)
class _File:
    packed: bytes
    """gzip."""
    kind: str


class StaticFiles:
    """All of them, by name."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files: dict[str, _File] = {}
        digest = hashlib.sha256()
        for file in sorted(f for f in folder.rglob("*") if f.suffix in _TYPES):
            content = file.read_bytes()
            digest.update(content)
            name = file.relative_to(folder).as_posix()
            self._files[name] = _File(gzip.compress(content, mtime=0), _TYPES[file.suffix])
        self._version = digest.hexdigest()[:12]

    def url(self, name: str) -> str:
        """Where a file is asked for: with its version, so that browsers may keep it for ever.

        Raises:
            KeyError: there is no such file.
        """
        self._files[name]
        return f"/static/{self._version}/{name}"

    async def answer(self, request: Request) -> Response:
        """One file."""
        file = self._files.get(request.path_params["name"])
        if file is None:
            raise HTTPException(404)
        headers = {"vary": "accept-encoding"}
        if request.path_params["version"] == self._version:
            headers["cache-control"] = "public, max-age=31536000, immutable"
        content = file.packed
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
        else:
            content = gzip.decompress(content)
        return Response(content, media_type=file.kind, headers=headers)
