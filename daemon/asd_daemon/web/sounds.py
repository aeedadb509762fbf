"""Sound for browsers: an alert's clip and the nearest normal window, each by the alert's id alone, and what is heard at this moment.

No path comes from a browser: an id is looked up among the alerts, and its file must lie below the clips of the daemon that kept it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import struct
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from asd_daemon.web.alert_records import AlertRecord
from asd_daemon.web.live_hub import LiveHub

_LOG = logging.getLogger(__name__)
_RATE_HZ = 16_000
_WITHIN_S = 120.0
_MOST_REMEMBERED = 200


@dataclass(frozen=True)
class NormalSound:
    """A kept normal window."""

    file: Path
    gain: float
    """By which its samples must be multiplied to be as loud as they were."""
    compared: int
    """Among how many it is the nearest."""


class NormalSounds:
    """Finds the nearest normal sound of an alert, one at a time, in a process of its own, and remembers it."""

    def __init__(self) -> None:
        self._found: OrderedDict[str, NormalSound] = OrderedDict()
        self._turn = asyncio.Semaphore(1)

    async def of(self, record: AlertRecord) -> NormalSound | None:
        """The normal window that sounds most like the one that opened the alert; None where there is no clip or nothing to compare with."""
        async with self._turn:
            known = self._found.get(record.event_id)
            if known is not None and known.file.is_file():
                return known
            clip = record.clip
            if clip is None:
                return None
            words = [str(record.folder), record.machine, str(clip), str(record.clip_window_s or 30.0)]
            found = await _run([sys.executable, "-m", "asd_daemon.web.nearest_sound", *words])
            if not found:
                return None
            sound = NormalSound(Path(found["file"]), float(found["gain"]), int(found["compared"]))
            self._found[record.event_id] = sound
            while len(self._found) > _MOST_REMEMBERED:
                self._found.popitem(last=False)
            return sound


async def _run(command: list[str]) -> dict[str, str]:
    """What the process says; nothing where it fails, which is logged."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        said, complaint = await asyncio.wait_for(process.communicate(), _WITHIN_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        _LOG.warning("the nearest normal sound was not found in %g s", _WITHIN_S)
        return {}
    if process.returncode != 0:
        last = complaint.decode(errors="replace").strip().splitlines()
        _LOG.warning("the nearest normal sound can't be found: %s", last[-1] if last else process.returncode)
        return {}
    result: dict[str, str] = json.loads(said)
    return result


async def live_wave(hub: LiveHub, machine: str, may_listen: Callable[[], bool]) -> AsyncIterator[bytes]:
    """What is heard of a machine, as a WAV file that ends when one may not listen any more."""
    endless = 0xFFFFFFFF
    yield (
        b"RIFF"
        + struct.pack("<I", endless)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, _RATE_HZ, 2 * _RATE_HZ, 2, 16)
        + b"data"
        + struct.pack("<I", endless)
    )
    async with hub.watching((), [machine]) as watcher:
        while may_listen():
            piece = await watcher.pieces.get()
            if piece["kind"] == "pcm":
                yield base64.b64decode(piece["pcm"])
