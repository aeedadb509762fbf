"""What the bytes of a recorder or a command mean: float32 sound at 16 kHz, and what they say about themselves.

Raw samples do not say what they are, so a command's are believed only when their rate has been measured, and never when a sound file's
header comes first. A recorder's are brought to 16 kHz here, not by the recorder, which needs neither NumPy nor soxr then (decision 33).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np

from asd_daemon.hear.sources.child_words import ChildMessage, ChildSound
from asd_daemon.hear.sources.recorder_protocol import Frame, FrameKind, FrameReader
from asd_daemon.resampling import Resampler
from asd_daemon.sound_file import HEAD_BYTES, starts_as_sound
from asd_daemon.waveform import SAMPLE_RATE_HZ

_S16_SCALE = np.float32(1 / 32768)
_HEADER_WORDS = (
    "sends a sound file with a header; raw samples are wanted, signed 16 bit, mono, 16 kHz: with ffmpeg write"
    " -ac 1 -ar 16000 -f s16le - , with arecord -t raw -f S16_LE -r 16000 -c 1, with sox -t raw -e signed -b 16 -r 16000 -c 1 -"
)


class RecorderDecoder:
    """Frames of the recorder → sound at 16 kHz."""

    def __init__(self, channels: int = 1) -> None:
        self._frames, self._channels = FrameReader(), channels
        self._rate_hz, self._resample = float(SAMPLE_RATE_HZ), Resampler(SAMPLE_RATE_HZ, SAMPLE_RATE_HZ)

    def feed(self, data: bytes) -> Iterator[ChildSound | ChildMessage]:
        """What the frames say; ValueError where they are none."""
        for frame in self._frames.feed(data):
            if frame.kind is FrameKind.SOUND:
                yield self._sound(frame)
            elif frame.kind is FrameKind.FAILED:
                yield ChildMessage(str(json.loads(frame.payload)["reason"]), gives_up=True)
            elif frame.kind is FrameKind.OPENED:
                yield self._opened(frame.payload)
            else:
                yield ChildMessage("ready")

    def _opened(self, payload: bytes) -> ChildMessage:
        """The device is open, or its sound server has moved us to another."""
        about = json.loads(payload)
        rate_hz = float(about.get("rate_hz", self._rate_hz))
        if rate_hz != self._rate_hz:
            self._rate_hz = rate_hz
            self._resample = Resampler(self._rate_hz, SAMPLE_RATE_HZ, self._channels)
        return ChildMessage(f"open: {payload.decode()}", identity=about.get("identity"))

    def _sound(self, frame: Frame) -> ChildSound:
        lost = round(frame.lost_samples * SAMPLE_RATE_HZ / self._rate_hz)
        if lost:
            self._resample.restart()
        samples = np.frombuffer(frame.payload, np.float32)
        samples = samples if self._channels == 1 else samples.reshape(-1, self._channels)
        return ChildSound(self._resample(samples), lost, frame.monotonic_ns / 1e9)


class RawDecoder:
    """Raw s16le → sound; the clock is that of its arrival."""

    def __init__(self) -> None:
        self._odd = b""
        self._begun = False

    def feed(self, data: bytes) -> Iterator[ChildSound | ChildMessage]:
        """All whole samples; half a sample waits for its other half, and the first ones until it is known that they are no header."""
        data = self._odd + data
        if not self._begun:
            if len(data) < HEAD_BYTES:
                self._odd = data
                return
            if starts_as_sound(data[:HEAD_BYTES]):
                yield ChildMessage(_HEADER_WORDS, gives_up=True)
                return
            self._begun = True
        whole = len(data) & ~1
        self._odd = data[whole:]
        samples = np.frombuffer(data[:whole], "<i2").astype(np.float32) * _S16_SCALE
        yield ChildSound(samples, 0, time.monotonic())
