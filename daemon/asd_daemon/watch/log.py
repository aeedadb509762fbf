"""The daemon's log on standard error, without secrets, limited so that it does not fill a card; journald keeps it, no file is written."""

from __future__ import annotations

import json
import logging
import os
import textwrap
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime

from asd_daemon.redaction import redact, redact_all

_MOST_LINE_CHARACTERS = 2000
_MOST_SUBJECTS = 1000  # of log lines whose repeats are counted
ANSWER = {"is_answer": True}
"""`extra` of a line that answers what somebody has asked for just now: it is written however often."""


_MACHINE: ContextVar[str | None] = ContextVar("machine", default=None)


def speak_of(machine: str) -> None:
    """All that this thread logs from now on is of a machine."""
    _MACHINE.set(machine)


_KNOW_NO_MACHINE = ("asd_daemon.hear", "asd_daemon.waveform")


class MachineNamed(logging.Filter):
    """Names the machine at the beginning of a line that is of one and can't say which: whoever hears knows no machine."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True; the line may be another one."""
        machine = _MACHINE.get() if record.name.startswith(_KNOW_NO_MACHINE) else None
        if machine is not None and not record.getMessage().startswith(f"{machine}: "):
            args = record.args if isinstance(record.args, tuple) else ()
            message = str(record.msg) if args else record.getMessage().replace("%", "%%")
            record.msg, record.args = f"%s: {message}", (machine, *args)
        return True


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
        if record.levelno < logging.INFO or getattr(record, "is_answer", False):
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


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z warning: message`; without the time where whoever keeps the log knows it."""

    def __init__(self, *, with_time: bool = True) -> None:
        super().__init__()
        self._with_time = with_time

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback where there is one."""
        level = "" if record.levelno == logging.INFO and not self._with_time else f"{record.levelname.lower()}: "
        line = f"{f'{_at(record)} ' if self._with_time else ''}{level}{record.getMessage()}"
        return redact(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


class WrappedFormatter(TextFormatter):
    """Lines for a terminal, without the time, wrapped at its width."""

    def __init__(self, width: int) -> None:
        super().__init__(with_time=False)
        self._width = width

    def format(self, record: logging.LogRecord) -> str:
        """As many lines as the words need; a traceback stays as it is."""
        text = super().format(record)
        return text if record.exc_info else "\n".join(textwrap.wrap(text, self._width, subsequent_indent=" " * 10))


class JsonFormatter(logging.Formatter):
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
        return json.dumps(redact_all(content), ensure_ascii=False)


class JournalFormatter(logging.Formatter):
    """What another formatter makes, with the priority at the beginning of every line, as journald reads it (sd-daemon(3))."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """`<4>…` of a warning; a traceback has as many priorities as lines."""
        priority = next(p for level, p in _PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in self._inner.format(record).splitlines())


_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))


def is_the_journal(descriptor: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a file descriptor leads to journald: systemd says of which it is, and a redirected one is another (systemd.exec(5))."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


class RecentLines(logging.Filter):
    """Keeps the last lines that the filters before it let through in memory, for who can't read the journal."""

    def __init__(self, most: int = 200) -> None:
        super().__init__()
        self._formatter = TextFormatter()
        self._lines: deque[str] = deque(maxlen=most)

    def filter(self, record: logging.LogRecord) -> bool:
        """Always True."""
        self._lines.append(self._formatter.format(record)[:_MOST_LINE_CHARACTERS])
        return True

    @property
    def text(self) -> str:
        """All of them, the oldest first; from any thread."""
        return "\n".join(self._lines.copy())


def recent_log() -> str:
    """The last lines of this process's log, without secrets; nothing where they are not kept."""
    filters = [one for handler in logging.getLogger().handlers for one in handler.filters]
    return next((one.text for one in filters if isinstance(one, RecentLines)), "")


def log_to_stderr(*, as_json: bool, verbose: bool, view_width: int | None = None) -> None:
    """Send the log to standard error; journald keeps it, we write no file.

    Args:
        as_json: one JSON object a line.
        verbose: what is usually of no interest too.
        view_width: columns of a terminal on which people read it among the lines of the live view, which have the times.
    """
    handler, is_journal = logging.StreamHandler(), is_the_journal(2)
    plain = TextFormatter(with_time=not is_journal) if view_width is None else WrappedFormatter(view_width)
    formatter = JsonFormatter() if as_json else plain
    handler.setFormatter(JournalFormatter(formatter) if is_journal else formatter)
    handler.addFilter(MachineNamed())  # first, so that repeats are counted for each machine
    handler.addFilter(RepeatLimit())
    handler.addFilter(RecentLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)


def _at(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
