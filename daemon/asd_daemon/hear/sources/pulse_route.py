"""Which source of a sound server a process records from: PulseAudio, and PipeWire in its manner, move streams without a word.

Runs inside the recorder. It asks `pactl`, where that is installed, and subscribes to its changes: at rest it costs nothing. Without pactl
nothing is known and nothing is claimed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable

_ASK_TIMEOUT_S = 1.0
_BLOCK = re.compile(r"^Source Output #\d+$", re.MULTILINE)
_SOURCE = re.compile(r"^\tSource: (\d+)$", re.MULTILINE)
_PROCESS = re.compile(r'^\t\tapplication\.process\.id = "(\d+)"$', re.MULTILINE)


class PulseRoute:
    """Watches where one process records from."""

    def __init__(self, process_id: int) -> None:
        """Find out once."""
        self._process_id = process_id
        self._pactl = shutil.which("pactl")
        self._subscription: subprocess.Popen[str] | None = None
        self.identity: str | None = None
        """pulse:NAME of the source; None where it can't be known."""
        self._read_route()

    def watch(self, changed: Callable[[str | None], None]) -> None:
        """Call, from a thread of its own, with each new identity. Where nothing is known now, nothing will be."""
        if self.identity is not None:
            threading.Thread(target=self._watch, args=(changed,), name="pulse-route", daemon=True).start()

    def close(self) -> None:
        """End the subscription."""
        if self._subscription is not None:
            with contextlib.suppress(ProcessLookupError):
                self._subscription.kill()

    def _watch(self, changed: Callable[[str | None], None]) -> None:
        with contextlib.suppress(OSError):
            self._subscription = subprocess.Popen(
                [str(self._pactl), "subscribe"],
                env=_english_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            known = self.identity
            lines = self._subscription.stdout or ()
            for line in itertools.chain(["source-output"], lines):  # first what happened meanwhile
                if "source-output" not in line:
                    continue
                self._read_route()
                if self.identity != known:
                    known = self.identity
                    changed(known)

    def _read_route(self) -> None:
        if self._pactl is None:
            return
        source = source_of(self._process_id, self._pactl_output("list", "source-outputs"))
        name = source and source_name(source, self._pactl_output("list", "short", "sources"))
        if name:
            self.identity = f"pulse:{name}"

    def _pactl_output(self, *words: str) -> str:
        """What pactl answers; nothing where it fails or hangs, as with a frozen server."""
        try:
            done = subprocess.run(
                [str(self._pactl), *words],
                env=_english_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=_ASK_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout


def source_of(process_id: int, listing: str) -> str | None:
    """The number of the source that a process records from, in what `pactl list source-outputs` says."""
    for block in _BLOCK.split(listing)[1:]:
        process, source = _PROCESS.search(block), _SOURCE.search(block)
        if process and source and int(process[1]) == process_id:
            return source[1]
    return None


def source_name(number: str, listing: str) -> str | None:
    """The name of a source, in what `pactl list short sources` says."""
    rows = (line.split("\t") for line in listing.splitlines())
    return next((row[1] for row in rows if len(row) > 1 and row[0] == number), None)


def _english_environment() -> dict[str, str]:
    """Our environment, in which programs speak English."""
    return {**os.environ, "LC_ALL": "C"}
