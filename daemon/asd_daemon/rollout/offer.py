"""What a server offers to boxes: one signed JSON file that names, for each channel, a bundle, its files and the rings that take it.

    rollout.json            {"signed": {…}, "signature": "…"}: what `Offer` says, and Ed25519 (RFC 8032) over its canonical bytes in hex
    files/ab/abcdef…        the files of all bundles by their SHA-256, so that what two bundles share lies and travels once

Canonical bytes: a word that says what is signed, then JSON with sorted keys, no blanks, UTF-8, without fractions. A signature of a
bundle's manifest is thus none of an offer. What an update system must withstand is that of TUF (Samuel et al., Survivable Key Compromise
in Software Update Systems, CCS 2010): an older offer (`serial`), one that is held back (`expires`), endless data (sizes are signed).
Owns these words and what is refused; it opens no connection.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from asd_daemon.errors import RolloutError
from asd_daemon.judge.bundle.bundle import MAX_BUNDLE_BYTES
from asd_daemon.judge.bundle.manifest import MACHINE_NAME, MANIFEST, BundlePath, FileEntry
from asd_daemon.judge.bundle.signature import read_private_key, read_public_key

OFFER = "rollout.json"
FILES = "files"
SCHEMA = 1
MAX_OFFER_BYTES = 4 * 2**20
_SIGNED = b"asd-edge rollout 1\n"
_MOST_FILES = 20_000


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Word = Annotated[str, Field(pattern=MACHINE_NAME)]


class OfferedFile(FileEntry):
    """One file of a bundle, and where it lies below the offer."""

    address: BundlePath


class Ring(_Part):
    """Boxes that take a bundle together: a few first, then a line, then the plant."""

    name: Word
    nodes: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = Field(
        (), max_length=1000, description="names of boxes, with * and ?, that belong to it whatever they say themselves"
    )
    percent: int = Field(100, ge=0, le=100, description="so many of its boxes take it")
    not_before: AwareDatetime | None = Field(None, description="nobody of it takes it earlier")


def _has_manifest(files: dict[str, OfferedFile]) -> dict[str, OfferedFile]:
    if MANIFEST not in files:
        raise ValueError(f"{MANIFEST} is missing")
    if sum(file.bytes for file in files.values()) > MAX_BUNDLE_BYTES:
        raise ValueError(f"more than {MAX_BUNDLE_BYTES} bytes in all")
    return files


class OfferedBundle(_Part):
    """What a channel offers."""

    name: str = Field(min_length=1, max_length=100)
    version: str = Field(min_length=1, max_length=100)
    since: int = Field(
        ge=1, description="serial of the offer that offered it first; the same bundle offered again has another"
    )
    files: Annotated[dict[BundlePath, OfferedFile], Field(max_length=_MOST_FILES), AfterValidator(_has_manifest)]
    rings: tuple[Ring, ...] = Field(
        (), max_length=100, description="in the order in which they follow; none: all boxes at once"
    )

    @property
    def id(self) -> str:
        """Which bundle, and which offering of it."""
        return f"{self.files[MANIFEST].sha256[:16]}-{self.since}"

    @property
    def words(self) -> str:
        """Name and version, for people."""
        return f"{self.name} {self.version}"


class Offer(_Part):
    """What is signed."""

    schema_version: Literal[1] = Field(alias="schema")
    serial: int = Field(ge=1, description="grows with each offer; a box never goes back")
    created: AwareDatetime
    expires: AwareDatetime
    channels: dict[Word, OfferedBundle] = Field(max_length=100)

    def channel(self, name: str, where: str) -> OfferedBundle:
        """What is offered on a channel.

        Args:
            name: the channel's.
            where: the offer came from.

        Raises:
            RolloutError: there is no such channel; names those there are.
        """
        if name not in self.channels:
            known = ", ".join(sorted(self.channels)) or "none"
            raise RolloutError(f"{where}: has no channel {name!r}; it has {known}")
        return self.channels[name]

    def canonical(self) -> bytes:
        """The bytes that are signed."""
        content = self.model_dump(mode="json", by_alias=True)
        return _SIGNED + json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sign_offer(offer: Offer, key: Path) -> bytes:
    """The file `rollout.json`.

    Raises:
        BundleError: the key can't be used.
    """
    signature = read_private_key(key).sign(offer.canonical()).hex()
    envelope = {"signed": offer.model_dump(mode="json", by_alias=True), "signature": signature}
    return json.dumps(envelope, sort_keys=True, ensure_ascii=False, indent=1).encode() + b"\n"


def read_offer(content: bytes, where: str, key: Path) -> Offer:
    """An offer that the owner of a key has signed; nothing is said of its age.

    Args:
        content: the file's.
        where: it came from.
        key: the public key's file.

    Raises:
        RolloutError: it is not signed so, or not as this class says; names the key.
        BundleError: the key can't be read.
    """
    from cryptography.exceptions import InvalidSignature

    public = read_public_key(key)
    try:
        if len(content) > MAX_OFFER_BYTES:
            raise RolloutError(f"{where}: is larger than {MAX_OFFER_BYTES} bytes")
        envelope = json.loads(content)
        signed, signature = envelope["signed"], bytes.fromhex(envelope["signature"])
        schema = signed["schema"]
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise RolloutError(f"{where}: is no rollout: {type(e).__name__}: {e}") from e
    try:
        public.verify(signature, _canonical(signed))
    except (InvalidSignature, ValueError):
        raise RolloutError(f"{where}: is not signed by {key}; it is not used") from None
    if isinstance(schema, int) and schema > SCHEMA:
        raise RolloutError(f"{where}: schema: {schema} is newer than this asd-daemon reads ({SCHEMA}); update asd-edge")
    try:
        return Offer.model_validate(signed)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
        named = ".".join(str(part) for part in first["loc"]) or "signed"
        raise RolloutError(f"{where}: {named}: {first['msg']} (and {e.error_count() - 1} more)") from e


def _canonical(signed: Any) -> bytes:
    """The bytes that are signed, of JSON as it was read."""
    return _SIGNED + json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def refuse_stale(offer: Offer, where: str, *, highest: int, now: datetime) -> None:
    """Refuse an offer that is older than one that was seen, or that nobody stands for any more.

    Args:
        offer: a signed one.
        where: it came from.
        highest: the highest serial that was seen.
        now: UTC time.

    Raises:
        RolloutError: it is.
    """
    if offer.serial < highest:
        raise RolloutError(f"{where}: serial: {offer.serial} is older than {highest}, which was seen; it is not used")
    if now >= offer.expires:
        raise RolloutError(
            f"{where}: expires: was {offer.expires:%Y-%m-%d %H:%M} UTC; publish it anew (`asd-fleet publish`), or set the clock of this box"
        )


def ring_of(rings: Sequence[Ring], node: str, said: str | None) -> Ring | None:
    """The ring that a box belongs to: the first whose pattern its name has, else the one that it says itself, else the last.

    Args:
        rings: of the channel.
        node: the box's name.
        said: the ring of its configuration.

    Returns:
        the ring; None where there are none.

    Raises:
        RolloutError: it says a ring that there is not.
    """
    for ring in rings:
        if any(fnmatchcase(node, pattern) for pattern in ring.nodes):
            return ring
    if said is None or not rings:
        return rings[-1] if rings else None
    for ring in rings:
        if ring.name == said:
            return ring
    raise RolloutError(
        f"bundle.ring: {said!r} is none of the rings that are offered: {', '.join(r.name for r in rings)}"
    )


def why_not_yet(offered: OfferedBundle, node: str, said: str | None, now: datetime) -> str | None:
    """Why it is not a box's turn yet, in words; None where it is.

    Raises:
        RolloutError: as `ring_of`.
    """
    ring = ring_of(offered.rings, node, said)
    if ring is None:
        return None
    if ring.not_before is not None and now < ring.not_before:
        return f"ring {ring.name} begins on {ring.not_before.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if lot(node, offered.id) >= ring.percent:
        return f"{ring.percent} % of ring {ring.name} take it, and this box is not among them yet"
    return None


def lot(node: str, offered: str) -> float:
    """Where among 100 equal parts a box lies, 0 to below 100: another for each offering, the same at each question."""
    digest = hashlib.sha256(f"{node}\n{offered}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64 * 100
