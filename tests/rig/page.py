"""The page for people as a real process, a browserless client for it, and a state folder as a daemon leaves it."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import numpy as np
import soundfile

from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.judge.features.spectral_difference import Band, Difference
from asd_daemon.tell.payloads import AlertDetails
from asd_daemon.tell.storage.alert_history import AlertHistory
from asd_daemon.tell.storage.score_log import LoggedScore, ScoreLog
from asd_daemon.web.options import WebOptions
from rig.broker import HOST, answers, free_port
from rig.daemon import daemon_environment
from rig.waiting import PATIENT_S, wait_until

EVENT_ID = "0f0e7a52-0000-4000-8000-000000000001"
ROLLOUT_FACTS: dict[str, Any] = {
    "version": "plant 1",
    "offered": "plant 2",
    "phase": "idle",
    "reason": None,
    "channel": "stable",
    "ring": None,
    "window": "02:00-04:00",
    "checked_at": "2026-11-27T23:40:00+00:00",
    "is_asking": False,
    "failures": 0,
    "percent": None,
    "is_watched": False,
    "judges": ["fan"],
    "trial": None,
}
"""What a daemon tells the page of a rollout."""
_RATE_HZ = 16_000


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class RunningPage:
    """`with RunningPage(home) as page:`"""

    def __init__(self, home: Path, **options: object) -> None:
        self.port = free_port()
        self._home = home
        chosen = WebOptions(HOST, self.port, (str(home / "state"),), (str(home / "state" / "status"),), version="1")
        self.options = replace(chosen, **options)  # type: ignore[arg-type]
        self.cookie: str | None = None

    def __enter__(self) -> Self:
        self._log = (self._home / "page.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "asd_daemon.web.server", self.options.to_json()],
            env=daemon_environment(self._home),
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        wait_until(self._answers, "the page answers")
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.terminate()
        self.process.wait(PATIENT_S)
        self._log.close()

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self._home / "page.log").read_text()
        return answers(self.port)

    @property
    def log(self) -> str:
        return (self._home / "page.log").read_text()

    @property
    def origin(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def resident_mb(self) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1000

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request; a cookie that is handed out is kept as a browser would."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PATIENT_S)
        try:
            sent = {"Accept": "text/html", **({"Cookie": self.cookie} if self.cookie else {}), **(headers or {})}
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        finally:
            connection.close()
        given = answer.headers.get("set-cookie")
        if given is not None:
            self.cookie = given.split(";")[0]
        return answer

    def token(self, path: str = "/") -> str:
        """The token of the forms on a page."""
        found = re.search(r'name="token" value="([0-9a-f]{64})"', self.ask(path).text)
        assert found is not None
        return found[1]

    def post(self, path: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Answer:
        """A form as a browser sends it."""
        usual = {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.origin}
        return self.ask(path, "POST", urlencode(fields).encode(), {**usual, **(headers or {})})

    def log_in(self, password: str) -> Answer:
        return self.post("/login", {"token": self.token("/login"), "password": password})


def leave_state(home: Path, windows: int = 360) -> datetime:
    """A state folder with an hour of scores of `fan`, an alert with its clip and a normal sound; when the last window ended."""
    folder = home / "state"
    (folder / "locks").mkdir(parents=True)
    last = datetime.now(UTC).replace(microsecond=0)
    scores = ScoreLog(folder / "scores.sqlite", every_s=3600, days=90)
    for number in range(windows):
        at = last - timedelta(seconds=10 * (windows - 1 - number))
        is_unfit, is_high = number % 50 == 7, number >= windows - 12
        score, threshold = (None, None) if is_unfit else (2.0 if is_high else 0.5, 1.0)
        scores.add(LoggedScore("fan", at, score, threshold, "clipping" if is_unfit else None))
    scores.close()
    opened = last - timedelta(seconds=110)
    clips = folder / "clips" / "fan"
    clips.mkdir(parents=True)
    draw = np.random.default_rng(0)
    soundfile.write(clips / f"alert-{EVENT_ID}.flac", draw.normal(0, 0.1, 40 * _RATE_HZ), _RATE_HZ)
    soundfile.write(clips / "20260101T000000Z-normal.flac", draw.normal(0, 0.05, 10 * _RATE_HZ), _RATE_HZ)
    difference = Difference((Band(1000.0, 2000.0, 9.0, 6.0),), (4, 0, 1), 30)
    event = AlertEvent(AlertKind.OPEN, EVENT_ID, opened, opened + timedelta(seconds=10), 2.0, 2.0, 1.0, 2, 2)
    details = AlertDetails(difference, None, f"clips/fan/alert-{EVENT_ID}.flac")
    AlertHistory(folder / "history.sqlite", days=90).record("fan", event, details, told=True, clip_window_s=30.0)
    return last


def raw(port: int, sent: bytes, within_s: float = PATIENT_S) -> bytes:
    """What a client gets back that sends these bytes and waits until the connection ends or nothing more comes."""
    deadline_s = time.monotonic() + within_s
    got = b""
    with socket.create_connection((HOST, port), within_s) as connection:
        connection.sendall(sent)
        try:
            while time.monotonic() < deadline_s and (more := connection.recv(65_536)):
                got += more
        except (TimeoutError, ConnectionResetError):
            pass
    return got
