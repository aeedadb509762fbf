"""Microphones and commands as sources: what to start, and which decoder knows what its bytes mean.

A microphone is the recorder process, which may send several channels at once; a command is any program that writes raw s16le mono at
16 kHz to its standard output. Both are supervised alike. PortAudio is never loaded here, and NumPy not before there is something to
decode: a microphone is begun before all else.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asd_daemon.errors import SourceError, UsageError
from asd_daemon.hear.source_spec import SourceSpec
from asd_daemon.hear.sources.child_process import SupervisedChild
from asd_daemon.hear.sources.child_timeouts import ChildTimeouts
from asd_daemon.hear.sources.child_words import Decoder
from asd_daemon.hear.sources.devices import Device
from asd_daemon.hear.sources.recorder_protocol import FrameKind, FrameReader
from asd_daemon.waveform import SAMPLE_RATE_HZ

_LIST_TIMEOUT_S = 20.0


_SHELL_WORD = re.compile(r"\|\|?|&&?|;|\d*[<>].*|&>.*|.*[^\\;];")


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
        lambda: _recorder_decoder(len(channels)),
        wait=wait,
        announces_itself=True,
        env=recorder_environment(),
        timeouts=timeouts,
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
        _raw_decoder,
        wait=wait,
        announces_itself=False,
        promised_speed=spec.speed(1.0),
        timeouts=limits,
    )


def _recorder_decoder(channels: int) -> Decoder:
    from asd_daemon.hear.sources.child_decoders import RecorderDecoder

    return RecorderDecoder(channels)


def _raw_decoder() -> Decoder:
    from asd_daemon.hear.sources.child_decoders import RawDecoder

    return RawDecoder()


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
