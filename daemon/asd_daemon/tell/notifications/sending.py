"""The process that sends: apprise and all that it imports live here for some seconds, and never in the daemon.

    python -m asd_daemon.tell.notifications.sending < JOBS

JOBS is one JSON object: `{"messages": [{"title", "body", "good", "picture"}], "jobs": [{"url", "message"}]}`, a picture in base64 or null,
a message by its place; without `messages` addresses are only read. One line of JSON comes back for each job as it ends: `{"job", "why"}`,
why it failed or null. Nothing of an address gets into these words.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

from asd_daemon.redaction import HIDDEN, redact

_LEAST_SECRET, _MOST_CHARACTERS = 3, 300
_MOST_AT_ONCE = 6  # threads, of which apprise may add as many; a unit has 64
_CAUSE = re.compile(r"Caused by .*: (.+?)['\")]+$")
_PICTURE_NAME = "spectrogram.png"
_SAID: ContextVar[list[str] | None] = ContextVar("said", default=None)  # apprise hands it to threads of its own


class _Complaints(logging.Handler):
    """Keeps what apprise complains of on behalf of one job: it says why only there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        words = _SAID.get()
        is_reason = record.levelno >= logging.WARNING or "xception" in str(record.msg)
        if words is not None and is_reason:
            words.append(record.getMessage())


def masked(text: str, url: str) -> str:
    """A text without anything that stands in an address behind its kind."""
    _, _, rest = url.partition("://")
    parts = {rest, *re.split(r"[/:@?&=,;#+\s]+", rest)}
    for part in sorted(parts | {unquote(part) for part in parts}, key=len, reverse=True):
        if len(part) >= _LEAST_SECRET:
            text = re.sub(re.escape(part), HIDDEN, text, flags=re.IGNORECASE)
    return redact(" ".join(text.split()))[:_MOST_CHARACTERS]


def _innermost(words: str) -> str:
    """Of what wraps one cause in the other, the last."""
    found = _CAUSE.search(words)
    return found[1] if found else words


def _reason(words: Iterable[str], url: str) -> str:
    told = dict.fromkeys(masked(_innermost(word), url) for word in words)
    return "; ".join(told) or "it was refused, without a reason"


def _send(apprise: Any, url: str, message: dict[str, Any] | None) -> str | None:
    """Why it could not be sent; None where it was. Without a message the address is only read."""
    said: list[str] = []
    _SAID.set(said)
    asset = apprise.AppriseAsset(app_id="asd-edge", app_desc="asd-edge", async_mode=False)
    service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
    if service is None:
        return f"apprise does not understand this address: {_reason(said, url)}"
    if message is None:
        return None
    attached = None
    if message["picture"] is not None:
        attached = apprise.AppriseAttachment(f"file://{message['picture']}?name={_PICTURE_NAME}&mime=image/png")
    sender = apprise.Apprise(asset=asset)
    sender.add(service)
    kind = apprise.NotifyType.SUCCESS if message["good"] else apprise.NotifyType.WARNING
    was_sent = sender.notify(
        body=message["body"],
        title=message["title"],
        notify_type=kind,
        body_format=apprise.NotifyFormat.TEXT,
        attach=attached,
    )
    return None if was_sent else _reason(said, url)


def _as_file(picture: str | None) -> str | None:
    """A picture in base64 as a file in memory, by its path, since plug-ins want one; it is gone with the process."""
    if picture is None:
        return None
    descriptor = os.memfd_create("picture")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(base64.b64decode(picture))
    return f"/proc/self/fd/{descriptor}"


def _guarded(apprise: Any, url: str, message: dict[str, Any] | None) -> str | None:
    try:
        return _send(apprise, url, message)
    except Exception as e:  # noqa: BLE001  # a hundred services by a hundred hands: whatever one raises is why it failed
        return masked(f"{type(e).__name__}: {e}", url)


def main() -> int:
    """The program."""
    with contextlib.suppress(OSError):  # where a service may not change its priority
        os.nice(10)
    asked = json.load(sys.stdin)
    messages, jobs = asked.get("messages"), asked["jobs"]
    try:
        import apprise
    except ImportError as e:
        for number in range(len(jobs)):
            _answer(number, f"apprise is not installed: pip install 'asd-edge[notify]' ({e.name})")
        return 0
    for message in messages or ():
        message["picture"] = _as_file(message["picture"])
    logger = logging.getLogger("apprise")
    logger.handlers[:], logger.propagate = [_Complaints()], False
    logger.setLevel(logging.DEBUG)

    def work(number: int) -> None:
        job = jobs[number]
        message = messages[job["message"]] if messages is not None else None
        _answer(number, _guarded(apprise, job["url"], message))

    with ThreadPoolExecutor(min(len(jobs), _MOST_AT_ONCE) or 1) as pool:
        list(pool.map(work, range(len(jobs))))
    return 0


_ANSWERS = threading.Lock()


def _answer(number: int, why: str | None) -> None:
    with _ANSWERS:
        print(json.dumps({"job": number, "why": why}), flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
