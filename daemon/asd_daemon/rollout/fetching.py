"""The process that asks for the offer and fetches its bundle, tests it, and ends: no thread of the daemon waits for a network.

    python -m asd_daemon.rollout.fetching      one `FetchJob` as a line of JSON on standard input, which stays open; `Said` as lines on
                                               standard output, the last one with a result

    ROOT/rollout/offer.json        the last offer that was believed, its ETag, and the highest serial
    ROOT/rollout/parts/SHA256      what has come of files
    ROOT/rollout/candidate/ID/     a bundle that is complete, verified and tested when the process says so

Nothing here is current: a kill at any moment costs what was not on the disk yet, and the next try goes on. When the daemon is gone the
process ends too. Owns these folders.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from asd_daemon.errors import BundleError, RolloutError, UntriedBundleError
from asd_daemon.judge.bundle.bundle import MANIFEST, Bundle, default_bundle, load_bundle, verify_file
from asd_daemon.judge.bundle.manifest import FileEntry
from asd_daemon.judge.scoring.bounded_self_test import bounded_self_test
from asd_daemon.judge.scoring.installed_bundles import CURRENT, VERSIONS
from asd_daemon.private_files import write_private
from asd_daemon.rollout.downloading import SILENT_S, BundleServer
from asd_daemon.rollout.offer import Offer, OfferedBundle, OfferedFile, read_offer, refuse_stale, why_not_yet
from asd_daemon.tell.storage.clips import LEAST_FREE

FOLDER, PARTS, CANDIDATE = "rollout", "parts", "candidate"
_SAY_EVERY_S = 1.0


class FetchJob(BaseModel):
    """What shall be fetched."""

    model_config = ConfigDict(frozen=True)

    url: str
    channel: str
    ring: str | None
    node: str
    key: Path
    root: Path
    """Where the box keeps its bundles."""
    ca_file: Path | None = None
    insecure: bool = False
    skip: tuple[str, ...] = ()
    """Offerings that were tried and are not wanted."""
    highest: int = 0
    """The highest serial that is known to have been seen."""
    silent_s: float = SILENT_S


class _Remembered(BaseModel):
    """The last offer of a server."""

    url: str
    etag: str | None
    serial: int
    content: str


def _say(**words: Any) -> None:
    print(json.dumps(words, ensure_ascii=False), flush=True)  # noqa: T201  # to the parent


class Fetching:
    """One try.

    Args:
        job: what shall be fetched.
        now: UTC time.
    """

    def __init__(self, job: FetchJob, now: datetime) -> None:
        self._job, self._now = job, now
        self._home = job.root / FOLDER
        self._server = BundleServer(job.url, job.ca_file, insecure=job.insecure, silent_s=job.silent_s)
        self._fetched = self._reused = self._total = 0
        self._said_s = float("-inf")

    def run(self) -> dict[str, Any]:
        """Ask, and fetch what is new: `state` is waits, current, skipped, untried, refused or ready, with what belongs to it.

        Raises:
            BundleError: it can't be done now.
            OSError: the disk refuses.
        """
        offer = self._offer()
        offered = offer.channel(self._job.channel, self._job.url)
        facts = {"id": offered.id, "name": offered.name, "version": offered.version, "serial": offer.serial}
        _say(offered=facts)
        if self._is_current(offered):
            return {"state": "current", **facts}
        if offered.id in self._job.skip:
            return {"state": "skipped", **facts}
        reason = why_not_yet(offered, self._job.node, self._job.ring, self._now)
        if reason is not None:
            return {"state": "waits", "reason": reason, **facts}
        folder = self._home / CANDIDATE / offered.id
        self._sweep(offered, folder)
        self._collect(offered, folder)
        try:
            bundle = load_bundle(folder, self._job.key)
            if (bundle.name, bundle.version) != (offered.name, offered.version):
                raise RolloutError(f"{folder}: is {bundle.name} {bundle.version}, offered as {offered.words}")
            bounded_self_test(bundle)
        except UntriedBundleError as e:
            return {"state": "untried", "reason": str(e), **facts}
        except BundleError as e:
            return {"state": "refused", "reason": str(e), **facts}
        fetched = {"folder": str(folder), "fetched_bytes": self._fetched, "reused_bytes": self._reused}
        return {"state": "ready", **fetched, **facts}

    def _offer(self) -> Offer:
        """The newest offer that is to be believed, kept for the next question."""
        file, where = self._home / "offer.json", self._job.url
        before = _remembered(file, self._job.url)
        highest = max(self._job.highest, before.serial if before else 0)
        found = self._server.offer(before.etag if before else None)
        if found is None and before is not None:
            try:
                offer = read_offer(before.content.encode(), str(file), self._job.key)
            except RolloutError:  # another key by now, or a damaged file: asked for anew
                found = self._server.offer(None)
            else:
                refuse_stale(offer, where, highest=highest, now=self._now)
                return offer
        if found is None:
            raise RolloutError(f"{where}: says that nothing has changed, but was not asked so")
        offer = read_offer(found.content, where, self._job.key)
        refuse_stale(offer, where, highest=highest, now=self._now)
        kept = _Remembered(url=where, etag=found.etag, serial=offer.serial, content=found.content.decode())
        write_private(file, kept.model_dump_json())
        return offer

    def _is_current(self, offered: OfferedBundle) -> bool:
        current = self._job.root / CURRENT
        manifest = (current if current.exists() else default_bundle()) / MANIFEST
        return (
            manifest.is_file() and hashlib.sha256(manifest.read_bytes()).hexdigest() == offered.files[MANIFEST].sha256
        )

    def _sweep(self, offered: OfferedBundle, folder: Path) -> None:
        """Delete what earlier offers have left."""
        (self._home / PARTS).mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        for other in folder.parent.iterdir():
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        wanted = {file.sha256 for file in offered.files.values()}
        for part in (self._home / PARTS).iterdir():
            if part.name not in wanted:
                part.unlink()

    def _collect(self, offered: OfferedBundle, folder: Path) -> None:
        """Have all files in the candidate's folder: those that are there, those of bundles that lie here, the rest from the server."""
        self._total = sum(file.bytes for file in offered.files.values())
        missing = {name: file for name, file in offered.files.items() if not _is_there(folder, name, file)}
        known = _files_here(self._job.root)
        self._refuse_full(missing, self._total)
        have = self._total - sum(file.bytes for file in missing.values())
        for name, file in sorted(missing.items(), key=lambda one: one[1].bytes):
            target, part = folder / name, self._home / PARTS / file.sha256
            target.parent.mkdir(parents=True, exist_ok=True)
            here = known.get(file.sha256)
            if here is not None and _copied(here, part, file):
                self._reused += file.bytes
            else:
                before = part.stat().st_size if part.exists() else 0
                self._server.fetch(file.address, file, part, lambda size, have=have: self._tell(have + size))  # type: ignore[misc]
                self._fetched += file.bytes - before
            part.replace(target)
            known[file.sha256] = target
            have += file.bytes
            self._tell(have, now=True)

    def _tell(self, have: int, *, now: bool = False) -> None:
        """Say how much of the bundle is here, once a second at most unless a file is whole."""
        if now or time.monotonic() - self._said_s >= _SAY_EVERY_S:
            self._said_s = time.monotonic()
            _say(progress={"here_bytes": have, "bytes": self._total})

    def _refuse_full(self, missing: dict[str, OfferedFile], total: int) -> None:
        """Leave the disk the room that the daemon keeps: for what is missing here, and for the copy that is installed."""
        disk = os.statvfs(self._home)
        needed = sum(file.bytes for file in missing.values()) + total
        free, least = disk.f_bavail * disk.f_frsize, LEAST_FREE * disk.f_blocks * disk.f_frsize
        if free - needed < least:
            raise RolloutError(
                f"{self._home}: {free / 1e6:.0f} MB are free; the bundle needs {needed / 1e6:.0f} MB, and {LEAST_FREE:.0%} of the disk"
                f" ({least / 1e6:.0f} MB) stay free"
            )


def _remembered(file: Path, url: str) -> _Remembered | None:
    """The last offer of this server; None where there was none, or it can't be read."""
    try:
        found = _Remembered.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.url == url else None


def _is_there(folder: Path, name: str, entry: FileEntry) -> bool:
    try:
        verify_file(folder, name, entry)
    except BundleError:
        return False
    return True


def _files_here(root: Path) -> dict[str, Path]:
    """Files of the bundles that lie on this box, by the SHA-256 that their manifests say."""
    found: dict[str, Path] = {}
    for folder in (default_bundle(), *(root / VERSIONS).glob("[!.]*")):
        with contextlib.suppress(
            OSError, ValueError, KeyError, TypeError, AttributeError
        ):  # a bundle that is damaged helps nobody
            for name, entry in json.loads((folder / MANIFEST).read_bytes())["files"].items():
                found[entry["sha256"]] = folder / name
    return found


def _copied(source: Path, part: Path, entry: FileEntry) -> bool:
    """Copy a file that should have this content; whether it has."""
    try:
        shutil.copyfile(source, part)
        with part.open("rb") as f:
            os.fsync(f.fileno())
            is_it = hashlib.file_digest(f, "sha256").hexdigest() == entry.sha256
    except OSError:
        is_it = False
    if not is_it:
        part.unlink(missing_ok=True)
    return is_it


def candidate_bundle(root: Path, offering: str, key: Path) -> Bundle:
    """A bundle that was fetched, verified again.

    Raises:
        BundleError: it is not whole.
    """
    return load_bundle(root / FOLDER / CANDIDATE / offering, key)


def drop_candidate(root: Path) -> None:
    """Delete what was fetched: it is installed, or not wanted."""
    for name in (CANDIDATE, PARTS):
        shutil.rmtree(root / FOLDER / name, ignore_errors=True)


def main() -> None:
    """The process."""
    job = FetchJob.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError):
        os.nice(10)
    try:
        (job.root / FOLDER).mkdir(parents=True, exist_ok=True)
        with (job.root / FOLDER / ".fetching").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            result = Fetching(job, datetime.now(UTC)).run()
    except BlockingIOError:
        result = {"state": "failed", "reason": "another process fetches at this moment"}
    except BundleError as e:
        result = {"state": "failed", "reason": str(e)}
    except OSError as e:
        result = {"state": "failed", "reason": f"{job.root / FOLDER}: can't be written: {e.strerror or e}"}
    _say(result=result)


def _end_with_parent() -> None:
    """Without the daemon nobody wants the result."""
    while os.read(0, 4096):  # not through sys.stdin, whose lock would be held when the process ends
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
