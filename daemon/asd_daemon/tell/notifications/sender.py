"""Starts the process that sends, and hears what becomes of each job. Addresses go through memory, never along a command line."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from asd_daemon.tell.notifications.notice import Message
from asd_daemon.tell.notifications.recipients import Recipient

WITHIN_S = 60.0
"""A process that takes longer is ended; mail servers may take half a minute."""
_MODULE = "asd_daemon.tell.notifications.sending"


@dataclass(frozen=True)
class Job:
    """One message to one recipient."""

    recipient: Recipient
    message: Message


Result = Callable[[int, str | None], None]
"""The place of a job, and why it failed; None where it was sent."""


def is_installed() -> bool:
    """Whether there is anything to send with."""
    return importlib.util.find_spec("apprise") is not None


class Sender:
    """Sends jobs, some processes at a time, each for as many jobs as there are at once."""

    def __init__(self, within_s: float = WITHIN_S) -> None:
        self._within_s, self._lock, self._is_closed = within_s, threading.Lock(), False
        self._running: set[subprocess.Popen[str]] = set()

    def send(self, jobs: Sequence[Job], result: Result) -> None:
        """Send all of them side by side, and say of each what became of it, as soon as that is known; returns when all are."""
        messages = list(dict.fromkeys(job.message for job in jobs))
        told = [
            {
                "title": message.title,
                "body": message.body,
                "good": message.is_good,
                "picture": base64.b64encode(message.picture).decode() if message.picture else None,
            }
            for message in messages
        ]
        asked = [{"url": job.recipient.url, "message": messages.index(job.message)} for job in jobs]
        self._ask({"messages": told, "jobs": asked}, len(jobs), result)

    def read(self, recipients: Sequence[Recipient]) -> dict[str, str]:
        """Which addresses can't be understood, and why: recipients' keys → words. Nothing is sent."""
        wrong: dict[str, str] = {}

        def note(number: int, why: str | None) -> None:
            if why is not None:
                wrong[recipients[number].key] = why

        self._ask({"jobs": [{"url": recipient.url} for recipient in recipients]}, len(recipients), note)
        return wrong

    def close(self) -> None:
        """End what runs; what was not sent has failed."""
        with self._lock:
            self._is_closed = True
            for process in self._running:
                process.kill()

    def _ask(self, asked: object, count: int, result: Result) -> None:
        left = set(range(count))
        why = "the process that sends ended early"
        try:
            process = self._start(json.dumps(asked))
        except OSError as e:
            process, why = None, f"the process that sends can't be started: {e.strerror or e}"
        if process is not None:
            timer = threading.Timer(self._within_s, process.kill)
            timer.daemon = True
            timer.start()
            try:
                assert process.stdout is not None  # noqa: S101  # it is a pipe
                for line in process.stdout:
                    answer = json.loads(line)
                    left.discard(int(answer["job"]))
                    result(int(answer["job"]), answer["why"])
                    if not left:  # it may still wait for what it has given up
                        break
            except ValueError:
                why = "the process that sends speaks nonsense"
            finally:
                if not timer.is_alive():
                    why = f"no answer within {self._within_s:g} s"
                timer.cancel()
                self._end(process)
        for number in sorted(left):
            result(number, why)

    def _start(self, text: str) -> subprocess.Popen[str]:
        descriptor = os.memfd_create("jobs", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "w+", encoding="utf-8") as jobs:
            jobs.write(text)
            jobs.flush()
            jobs.seek(0)
            with self._lock:
                if self._is_closed:
                    raise OSError(0, "the daemon stops")
                process = subprocess.Popen(
                    [sys.executable, "-m", _MODULE],
                    stdin=jobs,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                )
                self._running.add(process)
        return process

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        with self._lock:
            self._running.discard(process)
