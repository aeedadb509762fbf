"""The dead-man ping: a URL that is asked for as long as every machine is really judged. When it stays out, somebody else raises alarm.

Only scored windows count: a daemon that runs but hears nothing must fall silent here too. It has a thread of its own, so that a slow
network holds nobody up.
"""

from __future__ import annotations

import http.client
import logging
import threading
import urllib.error
import urllib.request

from asd_daemon.watch.report import Reports

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 10.0


class DeadManPing:
    """Asks for a URL at an interval, if each machine was scored since the time before."""

    def __init__(self, url: str, every_s: float) -> None:
        self._url, self._every_s = url, every_s
        self._stop = threading.Event()
        self._scored: dict[str, int] = {}
        self.sent = 0
        self.failed = 0
        self.withheld = 0
        """How often it was not sent because a machine had not been judged."""

    def start(self, reports: Reports) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, args=(reports,), name="dead-man-ping", daemon=True)
        self._thread.start()

    def progressed(self) -> None:
        """Its own clock tells it when to look."""

    def close(self) -> None:
        """Send no more; a request on its way is left to itself."""
        self._stop.set()

    def _run(self, reports: Reports) -> None:
        while not self._stop.wait(self._every_s):
            scored = {name: report.counts.scored for name, report in reports().items()}
            silent = [name for name, count in scored.items() if count <= self._scored.get(name, 0)]
            self._scored = scored
            if silent:
                self.withheld += 1
                _LOG.warning("no dead-man ping: nothing was scored of %s", ", ".join(silent))
            else:
                self._ping()

    def _ping(self) -> None:
        request = urllib.request.Request(self._url, headers={"User-Agent": "asd-daemon"})  # noqa: S310  # http(s) only: settings
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
                answer.read(1)
            self.sent += 1
        except (OSError, urllib.error.URLError, http.client.HTTPException, ValueError) as e:
            self.failed += 1
            _LOG.warning("the dead-man ping failed (%d so far): %s", self.failed, getattr(e, "reason", None) or e)
