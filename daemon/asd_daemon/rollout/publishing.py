"""A bundle put into a folder that any web server can offer: files by their SHA-256, and the signed offer that names them.

Files come first and the offer last, in one step: whoever asks meanwhile gets the offer before it, whole. Owns the folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from asd_daemon.errors import RolloutError
from asd_daemon.judge.bundle.bundle import MANIFEST, file_entry, load_bundle
from asd_daemon.judge.bundle.signature import SIGNATURE, read_private_key
from asd_daemon.rollout.offer import (
    FILES,
    MAX_OFFER_BYTES,
    OFFER,
    Offer,
    OfferedBundle,
    OfferedFile,
    Ring,
    read_offer,
    sign_offer,
)


@dataclass(frozen=True)
class Published:
    """What was done."""

    offer: Offer
    offered: OfferedBundle
    new_files: int
    """How many files were not there yet …"""
    new_bytes: int
    """… and their bytes."""
    removed_files: int
    """How many files no channel needs any more."""


def publish(
    bundle: Path | None,
    folder: Path,
    *,
    channel: str,
    key: Path,
    rings: Sequence[Ring] | None,
    valid_for: timedelta,
    now: datetime,
) -> Published:
    """Offer a bundle to the boxes of a channel, or its present one to other rings or for longer.

    Args:
        bundle: the bundle's folder; None: the one that the channel offers already.
        folder: what the web server offers; made where it is missing.
        channel: its name.
        key: the private key that signs; the bundle must be signed by it too.
        rings: who takes it and when; None: as before.
        valid_for: so long boxes believe the offer.
        now: UTC time.

    Raises:
        BundleError: the bundle is not whole or not signed by this key, the key can't be used, or the folder holds what it has not signed.
    """
    public = _public_of(key, folder)
    try:
        before = _present(folder, public)
        offered = None if before is None else before.channels.get(channel)
        serial = max(
            int(now.timestamp()), 0 if before is None else before.serial + 1
        )  # grows even where the folder was lost
        new_files = new_bytes = 0
        if bundle is not None:
            fresh, new_files, new_bytes = _put(bundle, folder, public)
            kept_rings = offered.rings if offered is not None else ()
            offered = OfferedBundle(
                name=fresh.name, version=fresh.version, since=serial, files=fresh.files, rings=kept_rings
            )
        if offered is None:
            raise RolloutError(f"{folder}: channel {channel!r} offers nothing yet; name a bundle")
        if rings is not None:
            offered = offered.model_copy(update={"rings": tuple(rings)})
        channels = {**(before.channels if before is not None else {}), channel: offered}
        offer = Offer(schema=1, serial=serial, created=now, expires=now + valid_for, channels=channels)
        _replace(folder / OFFER, sign_offer(offer, key))
        return Published(offer, offered, new_files, new_bytes, _tidy(folder, offer, before))
    except OSError as e:
        raise RolloutError(f"{folder}: can't be written: {e.strerror or e}") from e
    finally:
        public.unlink(missing_ok=True)


def _public_of(key: Path, folder: Path) -> Path:
    """The public key, as a file, as everything that checks signatures wants it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = read_private_key(key).public_key()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f".key-{os.getpid()}.pem"
        file.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    except OSError as e:
        raise RolloutError(f"{folder}: can't be written: {e.strerror or e}") from e
    return file


def _present(folder: Path, public: Path) -> Offer | None:
    """What is offered now.

    Raises:
        RolloutError: another key has signed it, or it is none.
    """
    file = folder / OFFER
    if not file.exists():
        return None
    with file.open("rb") as f:
        return read_offer(f.read(MAX_OFFER_BYTES + 1), str(file), public)


@dataclass(frozen=True)
class _Put:
    name: str
    version: str
    files: dict[str, OfferedFile]


def _put(bundle: Path, folder: Path, public: Path) -> tuple[_Put, int, int]:
    """Copy a bundle's files that are not there yet."""
    found = load_bundle(bundle, public)
    entries = dict(found.manifest.files)
    entries |= {name: file_entry(bundle / name) for name in (MANIFEST, SIGNATURE)}
    files: dict[str, OfferedFile] = {}
    new_files = new_bytes = 0
    for name, entry in sorted(entries.items()):
        address = f"{FILES}/{entry.sha256[:2]}/{entry.sha256}"
        files[name] = OfferedFile(sha256=entry.sha256, bytes=entry.bytes, address=address)
        target = folder / address
        if target.is_file() and target.stat().st_size == entry.bytes:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        content = target.with_name(f".{target.name}-{os.getpid()}")
        shutil.copyfile(bundle / name, content)
        with content.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
            os.fsync(f.fileno())
        if digest != entry.sha256:
            content.unlink()
            raise RolloutError(f"{bundle / name}: was changed while it was published; nothing is offered")
        content.replace(target)
        new_files, new_bytes = new_files + 1, new_bytes + entry.bytes
    return _Put(found.name, found.version, files), new_files, new_bytes


def _replace(file: Path, content: bytes) -> None:
    fresh = file.with_name(f".{file.name}-{os.getpid()}")
    with fresh.open("wb") as f:
        f.write(content)
        f.flush()
        os.fsync(f.fileno())
    fresh.replace(file)


def _tidy(folder: Path, offer: Offer, before: Offer | None) -> int:
    """Delete files that neither this offer nor the one before it names: a box may still be fetching by that."""
    offers = [offer] if before is None else [offer, before]
    needed = {file.address for one in offers for bundle in one.channels.values() for file in bundle.files.values()}
    removed = 0
    for path in sorted((folder / FILES).glob("*/*")):
        if path.relative_to(folder).as_posix() not in needed:
            path.unlink()
            removed += 1
    return removed
