"""A machine's zip onto disk: only below its folder, only plain files, never over another file.

Everything is checked from the zip's directory before the first byte is written. It fetches nothing and knows no year.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from asd_daemon.errors import DataSetError

LARGEST_RATIO = 50  # recordings shrink to a half at best, silence included hardly below a tenth
SPLITS = frozenset({"train", "test", "source_test", "target_test", "supplemental"})
CHUNK_BYTES = 1 << 20

_FOREIGN = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"})  # what file managers leave in archives


@dataclass(frozen=True)
class Member:
    """A file of a zip and the path it gets, below the folder of all machines."""

    info: zipfile.ZipInfo
    path: PurePosixPath


def unpack(archive: Path, machine: str, raw: Path, progress: Callable[[int], None]) -> dict[str, int]:
    """Unpack the recordings of one machine to raw/<machine>/….

    Files that already lie there with the same content are left alone, so that a broken unpacking can be repeated.

    Args:
        archive: the zip.
        machine: the machine whose folder it may fill; recordings at the zip's top are put below it.
        raw: the folder of all machines; it exists.
        progress: called with the number of bytes unpacked so far.

    Returns:
        Size in bytes by path relative to `raw`, of everything the zip holds.

    Raises:
        DataSetError: the zip is broken, would reach outside the machine's folder, holds links or special files, is encrypted, claims to
            grow more than fiftyfold, needs more room than the disk has, or would overwrite a file that differs. Nothing is written then,
            but for the first reason, which may show only while reading.
    """
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = _checked(zipped, archive, machine)
            for member in members:
                _check_place(member, archive, raw)
            missing = [m for m in members if not (raw / m.path).exists()]
            _check_room(archive, raw, sum(m.info.file_size for m in missing))
            done = sum(m.info.file_size for m in members) - sum(m.info.file_size for m in missing)
            progress(done)
            for member in missing:
                _write(zipped, member, raw / member.path)
                done += member.info.file_size
                progress(done)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as e:
        raise DataSetError(
            f"{archive}: is no sound zip archive: {e}; if a new fetch says so too, the archive holds it broken"
        ) from e
    return {str(m.path): m.info.file_size for m in members}


def unpacked_bytes(archive: Path) -> int:
    """What the zip's directory says it grows to.

    Raises:
        DataSetError: it is no zip.
    """
    try:
        with zipfile.ZipFile(archive) as zipped:
            return sum(info.file_size for info in zipped.infolist())
    except zipfile.BadZipFile as e:
        raise DataSetError(
            f"{archive}: is no zip archive: {e}; if a new fetch says so too, the archive holds it broken"
        ) from e


def _checked(zipped: zipfile.ZipFile, archive: Path, machine: str) -> tuple[Member, ...]:
    members: dict[PurePosixPath, Member] = {}
    for info in zipped.infolist():
        name = PurePosixPath(info.filename)
        if info.is_dir() or _FOREIGN & set(name.parts):
            continue
        _check_entry(info, archive)
        path = _placed(name, archive, machine)
        if path in members:
            raise DataSetError(f"{archive}: holds {path} twice; refused")
        members[path] = Member(info, path)
    if not members:
        raise DataSetError(f"{archive}: holds no files")
    total = sum(m.info.file_size for m in members.values())
    if total > LARGEST_RATIO * archive.stat().st_size:
        raise DataSetError(
            f"{archive}: claims to grow from {archive.stat().st_size} to {total} bytes, more than {LARGEST_RATIO} times; refused"
        )
    return tuple(members.values())


def _check_entry(info: zipfile.ZipInfo, archive: Path) -> None:
    name = info.filename
    kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the zip was made on Windows
    if name.startswith("/") or "\\" in name or ":" in name or ".." in PurePosixPath(name).parts:
        raise DataSetError(f"{archive}: {name!r} would reach outside its folder; refused")
    if kind not in (0, stat.S_IFREG):
        raise DataSetError(f"{archive}: {name!r} is a link or a special file; refused")
    if info.flag_bits & 0x1:
        raise DataSetError(f"{archive}: {name!r} is encrypted; refused")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataSetError(
            f"{archive}: {name!r} is packed by a method ({info.compress_type}) that can't be unpacked here"
        )


def _placed(name: PurePosixPath, archive: Path, machine: str) -> PurePosixPath:
    """Where a file goes below the folder of all machines: from the machine's own folder on, or below it."""
    if machine in name.parts[:-1]:
        return PurePosixPath(*name.parts[name.parts.index(machine) :])
    if name.parts[0] in SPLITS or len(name.parts) == 1:
        return machine / name
    raise DataSetError(f"{archive}: {str(name)!r} does not belong to {machine}; refused")


def _check_place(member: Member, archive: Path, raw: Path) -> None:
    target = raw / member.path
    if not target.resolve().is_relative_to(raw.resolve()):
        raise DataSetError(f"{archive}: {target} leads outside {raw} through a link that lies there; remove the link")
    if target.exists() and not _same(target, member.info):
        raise DataSetError(
            f"{target}: exists and differs from the one in {archive.name}; nothing was overwritten. Move it away, or give another --to"
        )


def _same(target: Path, info: zipfile.ZipInfo) -> bool:
    if not target.is_file() or target.stat().st_size != info.file_size:
        return False
    crc = 0
    with target.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc == info.CRC


def _check_room(archive: Path, raw: Path, needed: int) -> None:
    free = shutil.disk_usage(raw).free
    if needed > free:
        raise DataSetError(
            f"{raw}: {archive.name} needs {needed / 1e9:.1f} GB unpacked, {free / 1e9:.1f} GB are free; make room, or give another --to"
        )


def _write(zipped: zipfile.ZipFile, member: Member, target: Path) -> None:
    """Write beside and rename, so that a file is there whole or not; zipfile stops at the declared size and checks the CRC."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)  # left by an unpacking that was killed
    try:
        with zipped.open(member.info) as source, part.open("xb") as sink:
            shutil.copyfileobj(source, sink, CHUNK_BYTES)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
