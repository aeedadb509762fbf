"""A local stand-in for the research archive: its record API and its files over real HTTP, with the faults that the real one has.

`ArchiveServer` serves zips made in memory. Faults are queued per file (or record) and met one a request; when the queue is empty the
server behaves. Every request is remembered.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import threading
import zipfile
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Cut:
    """Declare the whole length, send this many bytes, hang up."""

    after_bytes: int


@dataclass(frozen=True)
class Refuse:
    """Answer with a status and headers, and no file."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Garble:
    """Send the right number of wrong bytes."""


@dataclass(frozen=True)
class WrongRange:
    """Answer a range with another one."""


@dataclass(frozen=True)
class Excess:
    """Send more than the record says."""


Fault = Cut | Refuse | Garble | WrongRange | Excess


@dataclass(frozen=True)
class Request:
    """One request as it came in."""

    path: str
    range: str | None


@dataclass
class ArchiveServer:
    """What the server holds and has seen. `ranges=False` makes a server that always sends whole files."""

    url: str = ""
    ranges: bool = True
    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    requests: list[Request] = field(default_factory=list)

    def publish(
        self, number: int, files: Mapping[str, bytes], licence: str = "cc-by-4.0", title: str = "Machine sounds"
    ) -> None:
        """Put a record and its files on the server; publishing again replaces it."""
        self.contents.update({f"/api/records/{number}/files/{key}/content": body for key, body in files.items()})
        self.records[number] = {
            "id": number,
            "metadata": {"title": title, "license": {"id": licence}},
            "files": [
                {
                    "key": key,
                    "size": len(body),
                    "checksum": f"md5:{hashlib.md5(body).hexdigest()}",
                    "links": {"self": f"{self.url}/api/records/{number}/files/{key}/content"},
                }
                for key, body in files.items()
            ],
        }

    def fail(self, name: str, *faults: Fault) -> None:
        """Queue faults for a file's key, or for a record's number."""
        self.faults[name].extend(faults)

    def asked(self, key: str) -> list[Request]:
        """The requests for one file, in order."""
        return [r for r in self.requests if r.path.endswith(f"/files/{key}/content")]


@contextmanager
def running_archive() -> Iterator[ArchiveServer]:
    """A server on a free port of 127.0.0.1, gone afterwards with its threads."""
    state = ArchiveServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"  # a connection a request: hanging up is what a cut is

        def do_GET(self) -> None:
            answer(state, self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """The requests are in the state."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="archive")
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(state: ArchiveServer, handler: BaseHTTPRequestHandler) -> None:
    """Answer one request, with the next queued fault if there is one."""
    state.requests.append(Request(handler.path, handler.headers.get("Range")))
    record = re.fullmatch(r"/api/records/(\d+)", handler.path)
    name = record[1] if record else handler.path.split("/")[-2] if handler.path.endswith("/content") else ""
    fault = state.faults[name].popleft() if state.faults[name] else None
    if isinstance(fault, Refuse):
        _send(handler, fault.status, dict(fault.headers), b"later")
    elif record and int(record[1]) in state.records:
        cut = fault.after_bytes if isinstance(fault, Cut) else None
        _send(
            handler, 200, {"Content-Type": "application/json"}, json.dumps(state.records[int(record[1])]).encode(), cut
        )
    elif handler.path in state.contents:
        _send_file(state, handler, state.contents[handler.path], fault)
    else:
        _send(handler, 404, {}, b'{"status": 404}')


def _send_file(state: ArchiveServer, handler: BaseHTTPRequestHandler, body: bytes, fault: Fault | None) -> None:
    start = 0
    status, headers = 200, {}
    if state.ranges and (wanted := re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))):
        start = int(wanted[1]) - (1 if isinstance(fault, WrongRange) else 0)
        status, headers = 206, {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
    rest = body[start:]
    if isinstance(fault, Garble):
        rest = bytes(b ^ 0x55 for b in rest)
    if isinstance(fault, Excess):
        rest += b"and more"
    cut = fault.after_bytes if isinstance(fault, Cut) else len(rest)
    _send(handler, status, headers, rest, cut)


def _send(
    handler: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], body: bytes, cut: int | None = None
) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    try:
        handler.wfile.write(body[:cut])
    except (BrokenPipeError, ConnectionResetError):
        handler.close_connection = True  # the client had enough


def zip_of(files: Mapping[str, bytes]) -> bytes:
    """A zip with these files, deflated."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, body in files.items():
            zipped.writestr(zipfile.ZipInfo(name), body, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
