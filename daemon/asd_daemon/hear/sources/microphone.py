"""Microphones and commands as sources: what to start, and what its bytes mean.

A microphone is the recorder process, which may send several channels at once; a command is any program that writes raw s16le mono at
16 kHz to its standard output. Both are supervised alike. PortAudio is never loaded here. Raw samples do not say what they are, so a
command's are believed only when their rate has been measured, and never when a sound file's header comes first.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asd_daemon.errors import SourceError, UsageError
from asd_daemon.hear.source_spec import SourceSpec
from asd_daemon.hear.sources.child_process import ChildTimeouts, SupervisedChild
from asd_daemon.hear.sources.child_words import ChildMessage, ChildSound
from asd_daemon.hear.sources.devices import Device
from asd_daemon.hear.sources.recorder_protocol import FrameKind, FrameReader
from asd_daemon.sound_file import HEAD_BYTES, starts_as_sound
from asd_daemon.waveform import SAMPLE_RATE_HZ

_LIST_TIMEOUT_S = 20.0
_S16_SCALE = np.float32(1 / 32768)


class RecorderDecoder:
    """Frames of the recorder → sound."""

    def __init__(self, channels: int = 1) -> None:
        self._frames, self._channels = FrameReader(), channels

    def feed(self, data: bytes) -> Iterator[ChildSound | ChildMessage]:
        """What the frames say; ValueError where they are none."""
        for frame in self._frames.feed(data):
            if frame.kind is FrameKind.SOUND:
                samples = np.frombuffer(frame.payload, np.float32)
                samples = samples if self._channels == 1 else samples.reshape(-1, self._channels)
                yield ChildSound(samples, frame.lost_samples, frame.monotonic_ns / 1e9)
            elif frame.kind is FrameKind.FAILED:
                yield ChildMessage(str(json.loads(frame.payload)["reason"]), gives_up=True)
            elif frame.kind is FrameKind.OPENED:
                yield ChildMessage(
                    f"open: {frame.payload.decode()}", identity=json.loads(frame.payload).get("identity")
                )
            else:
                yield ChildMessage("ready")


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


_SHELL_WORD = re.compile(r"\|\|?|&&?|;|\d*[<>].*|&>.*|.*[^\\;];")
_HEADER_WORDS = (
    "sends a sound file with a header; raw samples are wanted, signed 16 bit, mono, 16 kHz: with ffmpeg write"
    " -ac 1 -ar 16000 -f s16le - , with arecord -t raw -f S16_LE -r 16000 -c 1, with sox -t raw -e signed -b 16 -r 16000 -c 1 -"
)


def recorder_command(request: dict[str, Any]) -> list[str]:
    """The recorder process for one request."""
    return [sys.executable, "-m", "asd_daemon.hear.sources.recorder", json.dumps(request)]


def recorder_environment() -> dict[str, str]:
    """Ours, with the package findable from anywhere and one thread for mathematics (each costs the child memory)."""
    root = str(Path(__file__).resolve().parents[3])
    inherited = os.environ.get("PYTHONPATH")
    path = root + os.pathsep + inherited if inherited else root
    return {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def channel_of(spec: SourceSpec) -> int:
    """The channel that a source is to be heard on.

    Raises:
        UsageError: no whole number, or out of range.
    """
    return spec.channel() or 0


def open_microphone(spec: SourceSpec, *, wait: bool, timeouts: ChildTimeouts | None = None) -> SupervisedChild:
    """A microphone by name, USB identity or port, or `default`; one channel of it.

    Raises:
        UsageError: a channel or rate out of range.
    """
    return open_channels(spec, [channel_of(spec)], wait=wait, timeouts=timeouts)


def open_channels(
    spec: SourceSpec,
    channels: Sequence[int],
    *,
    wait: bool,
    timeouts: ChildTimeouts | None = None,
    device_check: Callable[[str], str | None] | None = None,
) -> SupervisedChild:
    """A microphone whose blocks hold several channels, (N, C); (N,) where it is one.

    Args:
        spec: the device.
        channels: which, counted from 0, in the order of the blocks' columns.
        wait: keep trying when it isn't there at the start.
        timeouts: all waiting times.
        device_check: why a device of some identity must not be heard; None where it may.

    Raises:
        UsageError: a rate out of range.
    """
    rate_hz = spec.number("rate_hz", 0, 4000, 384_000) if "rate_hz" in spec.options else None
    request = {"device": spec.target, "channels": list(channels), "rate_hz": rate_hz, "target_hz": SAMPLE_RATE_HZ}
    return SupervisedChild(
        f"microphone {spec.target!r}",
        recorder_command(request),
        lambda: RecorderDecoder(len(channels)),
        wait=wait,
        announces_itself=True,
        env=recorder_environment(),
        timeouts=timeouts or ChildTimeouts(),
        device_check=device_check,
    )


def open_command(spec: SourceSpec, *, wait: bool, timeouts: ChildTimeouts | None = None) -> SupervisedChild:
    """A program that writes raw s16le mono at 16 kHz to its standard output; run without a shell.

    Its option `speed` says that it speaks faster than real time, `max` without any measure: for rehearsals.

    Raises:
        UsageError: the words can't be told apart, or are meant for a shell.
    """
    try:
        words = shlex.split(spec.target)
        as_written = shlex.split(spec.target, posix=False)  # with their quotes
    except ValueError as e:
        raise UsageError(f"source {spec}: {e}; check the quotes") from e
    if not words:
        raise UsageError(f"source {spec}: names no program")
    shell_word = next((word for word in as_written if _SHELL_WORD.fullmatch(word)), None)
    if shell_word is not None:
        raise UsageError(
            f"source {spec}: {shell_word!r} is for a shell, and there is none: write command:sh -c {shlex.quote(spec.target)},"
            " or put it in quotes where the program itself shall get it"
        )
    # A program that opens its device first says nothing until there is sound: allow it as long as a start may take
    limits = timeouts or ChildTimeouts(start_s=10.0)
    return SupervisedChild(
        f"command {words[0]!r}",
        words,
        RawDecoder,
        wait=wait,
        announces_itself=False,
        promised_speed=spec.speed(1.0),
        timeouts=limits,
    )


def list_microphones() -> list[Device]:
    """All input devices, as a fresh recorder process sees them.

    Raises:
        SourceError: PortAudio is missing or does not answer.
    """
    try:
        done = subprocess.run(
            recorder_command({"list": True}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=recorder_environment(),
            timeout=_LIST_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise SourceError(f"the sound system does not answer in {_LIST_TIMEOUT_S:g} s") from e
    for frame in FrameReader().feed(done.stdout):
        content: Any = json.loads(frame.payload or b"{}")
        if frame.kind is FrameKind.FAILED:
            raise SourceError(f"the devices can't be listed: {content['reason']}")
        if frame.kind is FrameKind.OPENED:
            return [Device(**entry) for entry in content]
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["nothing said"]
    raise SourceError(f"the devices can't be listed: the recorder ended with code {done.returncode}: {last[0]}")
