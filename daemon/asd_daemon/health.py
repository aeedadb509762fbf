"""How the daemon itself is: counters, the word to systemd, and a log that does not fill a card.

It measures and says; it decides nothing.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime

_LOG = logging.getLogger(__name__)
_MOST_SUBJECTS = 1000  # of log lines whose repeats are counted


@dataclass(frozen=True)
class Counts:
    """What has happened so far. Every window that was heard is scored, unusable or dropped in the end."""

    heard: int = 0
    """Windows."""
    scored: int = 0
    """Windows."""
    unusable: int = 0
    """Windows that could not be judged."""
    dropped: int = 0
    """Windows that came faster than they could be judged, or were left when the daemon stopped."""
    refused: int = 0
    """Recordings that could not be read."""
    gaps: int = 0
    """Times that sound was missing."""
    gap_samples: int = 0
    """How much, at 16 kHz."""
    losses: int = 0
    """Times that the source fell silent against its will."""
    opened: int = 0
    """Alerts."""
    deaf: int = 0
    """Times that nothing usable was heard for too long."""

    def __add__(self, other: Counts) -> Counts:
        """The sum of two machines' counts."""
        return Counts(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


class Counters:
    """Counts that several threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()

    def add(self, **more: int) -> None:
        """Count some things, by the names of `Counts`."""
        with self._lock:
            self._counts = replace(self._counts, **{k: getattr(self._counts, k) + n for k, n in more.items()})

    @property
    def now(self) -> Counts:
        """The counts as they stand."""
        return self._counts


class Notifier:
    """Talks to systemd: datagrams to $NOTIFY_SOCKET (sd_notify(3)). Without the variable it does nothing."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero byte of an abstract socket
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._lock = threading.Lock()
        self._awaited: set[str] = set()
        self._progressed: set[str] = set()
        self._failed = False

    def ready(self, status: str) -> None:
        """Starting is over."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={status}")

    def stopping(self) -> None:
        """Stopping begins."""
        self._send("STOPPING=1")

    def expect(self, machine: str) -> None:
        """From now on the watchdog is fed only when this machine has made progress too."""
        with self._lock:
            self._awaited.add(machine)

    def forget(self, machine: str) -> None:
        """Progress of this machine is not awaited any more."""
        with self._lock:
            self._awaited.discard(machine)

    def progressed(self, machine: str) -> None:
        """A machine's window went all the way; the watchdog is fed when that is true of every machine since the last time."""
        with self._lock:
            self._progressed.add(machine)
            complete = self._progressed >= self._awaited
            if complete:
                self._progressed.clear()
        if complete:
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.settimeout(1.0)
                out.sendto(message.encode(), self._address)
        except OSError as e:
            if not self._failed:
                _LOG.warning("systemd can't be told (NOTIFY_SOCKET %r): %s", self._address, e.strerror or e)
            self._failed = True


class RepeatLimit(logging.Filter):
    """Lets the first few of equal log lines through in each period, then says how many were left out.

    Lines are equal that say the same of the same thing, whatever the figures: what a line is of is its first word before a colon.
    """

    def __init__(self, most: int = 5, period_s: float = 600.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most, self._period_s, self._clock = most, period_s, clock
        self._seen: dict[tuple[str, str, str], tuple[float, int]] = {}  # logger, template, subject → start, count

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write this line."""
        if record.levelno < logging.INFO:
            return True
        key, now_s = (record.name, str(record.msg), subject_of(record) or ""), self._clock()
        if key not in self._seen and len(self._seen) >= _MOST_SUBJECTS:
            self._seen.pop(min(self._seen, key=lambda known: self._seen[known][0]))
        start_s, count = self._seen.get(key, (now_s, 0))
        if now_s - start_s >= self._period_s:
            if count > self._most:
                record.msg = f"{record.msg} (and {count - self._most} more like it before)"
            start_s, count = now_s, 0
        self._seen[key] = (start_s, count + 1)
        return count < self._most


def subject_of(record: logging.LogRecord) -> str | None:
    """What a line is of, where it says so at its beginning: a machine, a device, a file."""
    first = record.args[0] if isinstance(record.args, tuple) and record.args else None
    return str(first) if first is not None and str(record.msg).startswith("%s: ") else None


class TextForm(logging.Formatter):
    """`2026-01-31T12:00:00.000Z warning: message`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback where there is one."""
        line = f"{_at(record)} {record.levelname.lower()}: {record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonForm(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, message, logger, what it is of, the message without its values, thread and traceback."""
        content = {
            "at": _at(record),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
            "thread": record.threadName,
            "subject": subject_of(record),
            "template": str(record.msg),
        }
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content, ensure_ascii=False)


def _at(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def log_to_stderr(*, as_json: bool, verbose: bool) -> None:
    """Send the log to standard error; journald keeps it, we write no file."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonForm() if as_json else TextForm())
    handler.addFilter(RepeatLimit())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
