"""What people do on the pages reaches the daemon that hears the machine, by who may, and its answer is shown."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from asd_daemon.hear.source import SourceHealth
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.tell.commands import Answer, Command, CommandKind
from asd_daemon.tell.payloads import Condition, MachineState
from asd_daemon.tell.storage.score_log import ScoreLog
from asd_daemon.watch.counters import Counts
from asd_daemon.watch.live_socket import LiveSocket
from asd_daemon.watch.live_sound import LiveSound
from asd_daemon.watch.report import MachineReport
from asd_daemon.web.sessions import OPERATOR, VIEWER, set_password
from rig.broker import HOST
from rig.page import EVENT_ID, RunningPage, leave_state
from rig.waiting import PATIENT_S, wait_until

PASSWORD, VIEWERS = "correct horse battery", "only looking around"
TAKEN = Answer(True, "2 windows are taken for normal from now on")


@dataclass
class Daemon:
    """One that only takes commands, and answers as it is told to."""

    answer: Answer = TAKEN
    asked: list[tuple[str | None, Command]] = field(default_factory=list)
    files: list[bytes | None] = field(default_factory=list)
    sound: LiveSound = field(default_factory=LiveSound)

    def give(
        self, machine: str | None, command: Command, reply: Callable[[Answer], None], file: BinaryIO | None
    ) -> None:
        self.asked.append((machine, command))
        self.files.append(None if file is None else file.read())
        reply(self.answer)

    @contextmanager
    def runs(self, home: Path) -> Iterator[None]:
        scores = ScoreLog(home / "state" / "none.sqlite", every_s=3600, days=1)
        live = LiveSocket(
            home / "state" / "status",
            self.sound,
            scores,
            lambda: {"fan": AlarmRule()},
            self.give,
            node="n",
            version="1",
        )
        state = MachineState(Condition.ALERT, datetime.now(UTC), 2.0, 1.0, event_id=EVENT_ID)
        live.start(lambda: {"fan": MachineReport(state, Counts(), SourceHealth())})
        try:
            yield
        finally:
            live.close()
            scores.close()


@dataclass
class Rig:
    page: RunningPage
    daemon: Daemon

    def do(self, path: str, **fields: str) -> int:
        return self.page.post(path, {"token": self.page.token("/"), **fields}).status

    @property
    def notice(self) -> str:
        text = self.page.ask(f"/alerts/{EVENT_ID}").text
        return text.partition('class="notice ')[2].partition("</p>")[0]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("acts")
    leave_state(home, windows=5)
    for role, password in ((OPERATOR, PASSWORD), (VIEWER, VIEWERS)):
        set_password(home / "passwords", role, password)
    daemon = Daemon()
    with daemon.runs(home), RunningPage(home, password_file=str(home / "passwords")) as page:
        page.log_in(PASSWORD)
        wait_until(lambda: "That was normal" in page.ask(f"/alerts/{EVENT_ID}").text, "the daemon is known")
        yield Rig(page, daemon)


@pytest.fixture
def rig(running: Rig) -> Rig:
    running.daemon.asked.clear()
    running.daemon.answer = TAKEN
    running.page.cookie = None
    running.page.log_in(PASSWORD)
    return running


def test_a_word_reaches_the_machine_and_its_answer_is_shown_once(rig: Rig) -> None:
    assert rig.do(f"/alerts/{EVENT_ID}/say", word="normal") == 303
    ((machine, command),) = rig.daemon.asked
    assert (machine, command.command, command.event_id, command.undo) == ("fan", CommandKind.NORMAL, EVENT_ID, False)
    assert rig.notice == 'good" role="status">2 windows are taken for normal from now on'
    assert rig.notice == ""
    assert rig.do(f"/alerts/{EVENT_ID}/say", word="fault", name=" loose belt ") == 303
    assert rig.daemon.asked[-1][1].name == "loose belt"


def test_what_the_daemon_refuses_is_shown_as_that(rig: Rig) -> None:
    rig.daemon.answer = Answer(False, "its windows were not kept <b>")
    assert rig.do(f"/alerts/{EVENT_ID}/say", word="normal") == 303
    assert rig.notice == 'bad" role="status">its windows were not kept &lt;b&gt;'


def test_mute_and_acknowledge_are_passed_on(rig: Rig) -> None:
    assert rig.do("/mute", machine="fan", minutes="60", back="//evil.example") == 303
    assert rig.do("/mute", machine="fan", minutes="0") == 303
    assert rig.do(f"/alerts/{EVENT_ID}/acknowledge") == 303
    kinds = [(command.command, command.minutes, command.event_id) for _, command in rig.daemon.asked]
    assert kinds == [
        (CommandKind.MUTE, 60.0, None),
        (CommandKind.UNMUTE, 60.0, None),
        (CommandKind.ACKNOWLEDGE, 60.0, EVENT_ID),
    ]


def test_a_limit_is_used_and_given_back_and_a_refusal_is_shown(rig: Rig) -> None:
    assert rig.do("/history/limit", machine="fan", limit="1.25") == 303
    assert rig.do("/history/limit", machine="fan", limit="") == 303
    (_, chosen), (_, back) = rig.daemon.asked
    assert (chosen.command, chosen.key, chosen.value) == (CommandKind.SET, "alarm.threshold", 1.25)
    assert (back.command, back.key) == (CommandKind.UNSET, "alarm.threshold")
    assert "is the learned one again" in rig.notice
    rig.daemon.answer = Answer(False, "machines.fan.alarm.threshold: may not be")
    assert rig.do("/history/limit", machine="fan", limit="-1") == 303
    assert "The limit of fan is not changed: may not be" in rig.notice
    assert "alarm.threshold" not in rig.notice


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        (f"/alerts/{EVENT_ID}/say", {"word": "explode"}, 400),
        (f"/alerts/{EVENT_ID}/say", {"word": "undo"}, 400),
        (f"/alerts/{EVENT_ID}/say", {"word": "fault", "name": " "}, 400),
        (f"/alerts/{EVENT_ID}/say", {"word": "fault", "name": "x" * 61}, 400),
        ("/alerts/00000000/say", {"word": "normal"}, 404),
        ("/mute", {"machine": "pump", "minutes": "60"}, 404),
        ("/mute", {"machine": "fan", "minutes": "-1"}, 400),
        ("/mute", {"machine": "fan", "minutes": "99999"}, 400),
        ("/history/limit", {"machine": "pump", "limit": "1"}, 404),
        ("/history/limit", {"machine": "fan", "limit": "nan"}, 400),
        ("/history/limit", {"machine": "fan", "limit": "a lot"}, 400),
    ],
)
def test_what_cannot_be_meant_reaches_nobody(rig: Rig, path: str, fields: dict[str, str], status: int) -> None:
    assert rig.do(path, **fields) == status
    assert rig.daemon.asked == []


@pytest.mark.parametrize(
    "path", [f"/alerts/{EVENT_ID}/say", f"/alerts/{EVENT_ID}/acknowledge", "/mute", "/history/limit"]
)
def test_a_viewer_a_stranger_and_another_page_change_nothing(rig: Rig, path: str) -> None:
    token = rig.page.token("/")
    fields = {"token": token, "word": "normal", "machine": "fan", "minutes": "60"}
    assert rig.page.post(path, fields, {"Origin": "https://evil.example"}).status == 403
    assert rig.page.post(path, {**fields, "token": "0" * 64}).status == 403
    assert rig.page.ask(path).status in (404, 405)
    rig.page.cookie = None
    assert rig.page.post(path, fields).status == 401
    rig.page.cookie = None
    rig.page.log_in(VIEWERS)
    assert rig.do(path, word="normal", machine="fan", minutes="60") == 403
    assert "That was normal" not in rig.page.ask(f"/alerts/{EVENT_ID}").text
    assert rig.daemon.asked == []


def test_what_is_heard_just_now_is_a_wave_that_goes_on_until_one_leaves(rig: Rig) -> None:
    tone = np.asarray(np.sin(np.arange(1600) / 5) / 2, np.float32)
    connection = http.client.HTTPConnection(HOST, rig.page.port, timeout=PATIENT_S)
    connection.request("GET", "/listen?machine=fan", headers={"Cookie": rig.page.cookie or ""})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["content-type"]) == (200, "audio/wav")
    head = answer.read(44)
    assert head[:4] + head[8:16] == b"RIFFWAVEfmt "
    stop = threading.Event()

    def speak() -> None:
        while not stop.wait(0.02):
            rig.daemon.sound.hear("fan", tone)

    speaking = threading.Thread(target=speak)
    speaking.start()
    try:
        heard = np.frombuffer(answer.read(3200), "<i2") / 32_767
    finally:
        stop.set()
        speaking.join()
        connection.close()
    np.testing.assert_allclose(heard, tone, atol=1e-4)
    wait_until(lambda: not rig.daemon.sound._wanted, "nobody listens any more")
    assert rig.page.ask("/listen?machine=pump").status == 404
