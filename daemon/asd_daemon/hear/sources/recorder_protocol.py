"""What the recorder process says to the daemon over its pipe: small frames, each a fixed header and a payload.

Owns the byte layout alone; both ends import it, so it needs nothing but the standard library. Native byte order: both ends run on
one box.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

_HEADER = struct.Struct("=4sBxxxIIQQ")
_MAGIC = b"asd1"
MAX_PAYLOAD_BYTES = 64 * 2**20  # half a second of 64 channels at 384 kHz is 47 MiB: nothing honest is longer


class FrameKind(IntEnum):
    """What a frame tells."""

    READY = 1
    """The libraries are loaded and the wait asked for is over; from here on only the device can be slow."""
    OPENED = 2
    """The device is open; the payload is JSON about it: name, rate_hz, usb_id, identity."""
    SOUND = 3
    """The payload is float32 samples of the channels asked for, interleaved, at the rate that OPENED has told."""
    FAILED = 4
    """The recorder gives up; the payload is JSON {"reason"}."""


@dataclass(frozen=True)
class Frame:
    """One message of the recorder."""

    kind: FrameKind
    payload: bytes = b""
    first_sample: int = 0
    """Index of the payload's first sample since the recorder opened its device, lost ones counted, at the device's rate."""
    lost_samples: int = 0
    """How many samples the device dropped just before this payload."""
    monotonic_ns: int = 0
    """CLOCK_MONOTONIC, which all processes share, when the last sample was read."""

    def pack(self) -> bytes:
        """The frame as bytes."""
        head = _HEADER.pack(
            _MAGIC, self.kind, len(self.payload), self.lost_samples, self.first_sample, self.monotonic_ns
        )
        return head + self.payload


class FrameReader:
    """Cuts a byte stream into frames."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now.

        Raises:
            ValueError: these bytes are no frames.
        """
        self._pending += data
        while len(self._pending) >= _HEADER.size:
            magic, kind, size, lost, first, at_ns = _HEADER.unpack_from(self._pending)
            if magic != _MAGIC or size > MAX_PAYLOAD_BYTES:
                raise ValueError(f"not a frame of the recorder: it starts with {bytes(self._pending[:8])!r}")
            end = _HEADER.size + size
            if len(self._pending) < end:
                return
            payload = bytes(self._pending[_HEADER.size : end])
            del self._pending[:end]
            yield Frame(FrameKind(kind), payload, first, lost, at_ns)
