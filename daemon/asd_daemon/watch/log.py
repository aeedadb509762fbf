"""The daemon's log on standard error, without secrets, limited so that it does not fill a card; journald keeps it, no file is written."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

from asd_daemon.redaction import redact, redact_all

_MOST_SUBJECTS = 1000  # of log lines whose repeats are counted
ANSWER = {"is_answer": True}
"""`extra` of a line that answers what somebody has asked for just now: it is written however often."""


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
    """`2026-01-31T12:00:00.000Z warning: message`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback where there is one."""
        line = f"{_at(record)} {record.levelname.lower()}: {record.getMessage()}"
        return redact(f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line)


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


def log_to_stderr(*, as_json: bool, verbose: bool) -> None:
    """Send the log to standard error; journald keeps it, we write no file."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    handler.addFilter(RepeatLimit())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)


def _at(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
