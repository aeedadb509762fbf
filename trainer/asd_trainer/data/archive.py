"""A research archive over HTTP: what a record holds, and its files on disk, whole or not at all.

Speaks the record API of Zenodo (developers.zenodo.org) with the standard library alone: pooch asks for whole files and can't go on
with half a one, and a machine's archive is hundreds of megabytes. It knows neither years nor machines, and opens no archive file.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from io import BufferedIOBase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from asd_daemon.errors import FetchError

ZENODO = "https://zenodo.org"
CHUNK_BYTES = 1 << 18
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that another minute may change
LONGEST_WAIT_S = 3600.0

_MD5 = re.compile(r"md5:([0-9a-f]{32})")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a record: its name there, where it lies, its length, and the md5 that the archive states."""

    key: str
    url: str
    size_bytes: int
    md5: str


@dataclass(frozen=True)
class Record:
    """A published record."""

    number: int
    title: str
    licence: str
    files: tuple[RemoteFile, ...]


class _PassingError(Exception):
    """A failure that may pass; `wait_s` is how long the server asks us to wait, if it does."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Archive:
    """Asks one archive, politely: it waits as long as it is told to, else twice as long each time, up to a minute.

    Attributes:
        base_url: scheme and host; with https, files are taken over https only.
        attempts: failures in a row without a single new byte before it gives up.
        timeout_s: longest silence of a connection.
        sleep: waits for a number of seconds.
        now: seconds since the epoch, for servers that name a time to come back.
    """

    base_url: str = ZENODO
    attempts: int = 6
    timeout_s: float = 60.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    now: Callable[[], float] = field(default=time.time, repr=False)

    def record(self, number: int) -> Record:
        """Ask what a record holds.

        Raises:
            FetchError: the archive can't be reached, has no such record, or answers with something else.
        """
        url = f"{self.base_url}/api/records/{number}"
        for failures in range(1, self.attempts + 1):
            try:
                with self._open(url, {"Accept": "application/json"}) as answer:
                    return self._parse(number, url, _read(answer))
            except _PassingError as e:
                self._wait(url, e, failures)
        raise AssertionError("_wait ends the last round")

    def download(self, file: RemoteFile, to: Path, progress: Callable[[int], None]) -> None:
        """Fetch a file, going on where an earlier try ended; `to` appears only when size and md5 are right.

        If it is there so already, nothing is asked. What has arrived lies beside it as `<name>.<md5>.part`, so that a file that the archive
        has changed never continues an old one.

        Args:
            file: what to fetch.
            to: the path it gets; its folder exists.
            progress: called with the number of bytes that are on disk, from time to time and after each new start.

        Raises:
            FetchError: it can't be had, is not what the record says twice in a row.
            OSError: the disk refuses.
        """
        if to.exists() and to.stat().st_size == file.size_bytes:
            with to.open("rb") as stream:
                if _md5(stream) == file.md5:
                    progress(file.size_bytes)
                    return
        part = to.with_name(f"{to.name}.{file.md5[:12]}.part")
        with part.open("a+b") as stream:
            for spoilt in range(2):
                self._fill(file, stream, progress)
                found = _md5(stream)
                if found == file.md5:
                    part.replace(to)
                    return
                stream.truncate(0)
                if spoilt:
                    part.unlink()
                    raise FetchError(
                        f"{file.url}: arrived broken twice: its md5 is {found}, the archive states {file.md5}; try again later"
                    )

    def _fill(self, file: RemoteFile, stream: BufferedIOBase, progress: Callable[[int], None]) -> None:
        failures = 0
        while (have := stream.seek(0, 2)) != file.size_bytes:
            if have > file.size_bytes:  # an earlier run's, or a server that sends too much
                have = stream.seek(stream.truncate(0))
            progress(have)
            try:
                self._append(file, stream, progress)
            except _PassingError as e:
                failures = 1 if have < stream.seek(0, 2) < file.size_bytes else failures + 1
                self._wait(file.url, e, failures)
        progress(have)

    def _append(self, file: RemoteFile, stream: BufferedIOBase, progress: Callable[[int], None]) -> None:
        have = stream.seek(0, 2)
        with self._open(file.url, {"Range": f"bytes={have}-"} if have else {}) as answer:
            if have and not _continues(answer, have, file.size_bytes):
                stream.truncate(0)
                have = 0
                if answer.status == 206:
                    raise _PassingError(
                        f"the archive sends another range than asked for: {answer.headers.get('Content-Range')}"
                    )
            while have <= file.size_bytes and (chunk := _read(answer, CHUNK_BYTES)):
                have += stream.write(chunk)
                progress(have)
        if have != file.size_bytes:
            raise _PassingError(f"the archive sent {have} bytes, its record says {file.size_bytes}")

    @contextmanager
    def _open(self, url: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        if urlsplit(url).scheme not in {"https", urlsplit(self.base_url).scheme} & {"https", "http"}:
            raise FetchError(f"{url}: only https addresses are fetched")
        request = urllib.request.Request(url, headers={"User-Agent": f"asd-edge/{version('asd-edge')}", **headers})  # noqa: S310 - checked above
        try:
            answer = urllib.request.urlopen(request, timeout=self.timeout_s)  # noqa: S310 - checked above
        except urllib.error.HTTPError as e:
            with e:
                if e.code in PASSING:
                    raise _PassingError(
                        f"the archive answers {e.code} {e.reason}", self._asked_wait_s(e.headers)
                    ) from e
                if e.code == 416:  # our part is longer than the file there
                    raise FetchError(f"{url}: is shorter than its record says (416); try again later") from e
                raise FetchError(f"{url}: the archive answers {e.code} {e.reason}") from e
        except (urllib.error.URLError, http.client.HTTPException, OSError) as e:
            raise _PassingError(f"can't be reached: {getattr(e, 'reason', e)}") from e
        with answer:
            yield answer

    def _asked_wait_s(self, headers: Any) -> float | None:
        """What Retry-After says (seconds, or a date), else Zenodo's X-RateLimit-Reset (seconds since the epoch)."""
        retry, reset = headers.get("Retry-After"), headers.get("X-RateLimit-Reset")
        try:
            if retry is not None:
                return (
                    float(retry) if retry.strip().isdigit() else parsedate_to_datetime(retry).timestamp() - self.now()
                )
            return None if reset is None else float(reset) - self.now()
        except ValueError:
            return None

    def _wait(self, url: str, failure: _PassingError, failures: int) -> None:
        if failures >= self.attempts:
            raise FetchError(
                f"{url}: {failure}, {failures} times in a row; the next call goes on from there"
            ) from failure
        wait_s = min(2.0 ** (failures - 1), 60.0) if failure.wait_s is None else max(failure.wait_s, 0.0)
        if wait_s > LONGEST_WAIT_S:
            raise FetchError(
                f"{url}: {failure} and asks to wait {wait_s / 60:.0f} minutes; call again then"
            ) from failure
        self.sleep(wait_s)

    def _parse(self, number: int, url: str, body: bytes) -> Record:
        try:
            data = json.loads(body)
            metadata = data["metadata"]
            licence = metadata.get("license") or "not stated"
            return Record(
                number=number,
                title=str(metadata["title"]),
                licence=str(licence["id"] if isinstance(licence, dict) else licence),
                files=tuple(self._file(entry) for entry in data["files"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise FetchError(
                f"{url}: the answer is no record ({type(e).__name__}: {e}); is {self.base_url} the archive?"
            ) from e

    def _file(self, entry: dict[str, Any]) -> RemoteFile:
        checksum = _MD5.fullmatch(entry["checksum"])
        if checksum is None:
            raise ValueError(f"{entry['key']} has the checksum {entry['checksum']!r}, not md5:…")
        size_bytes = int(entry["size"])
        if size_bytes < 0:
            raise ValueError(f"{entry['key']} has the size {size_bytes}")
        return RemoteFile(str(entry["key"]), str(entry["links"]["self"]), size_bytes, checksum[1])


def _read(answer: http.client.HTTPResponse, size_bytes: int | None = None) -> bytes:
    try:
        return answer.read(size_bytes)
    except (http.client.HTTPException, OSError) as e:
        raise _PassingError(f"the connection broke: {e}") from e


def _continues(answer: http.client.HTTPResponse, have: int, size_bytes: int) -> bool:
    """Whether the answer is the wanted rest of the file; a server without ranges sends the file from its start (200)."""
    stated = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    return answer.status == 206 and stated is not None and (int(stated[1]), int(stated[2])) == (have, size_bytes)


def _md5(stream: BufferedIOBase) -> str:
    stream.seek(0)
    return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
