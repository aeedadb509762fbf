"""The page that has machines learned: what reaches the daemon, what is refused, and what it says of a knock."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from asd_daemon.hear.source import SourceHealth
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.tell.commands import Answer, Command, CommandKind
from asd_daemon.tell.learning_report import LearningReport
from asd_daemon.tell.payloads import Condition, MachineState
from asd_daemon.tell.storage.score_log import LoggedScore, ScoreLog
from asd_daemon.watch.counters import Counts
from asd_daemon.watch.live_socket import LiveSocket
from asd_daemon.watch.live_sound import LiveSound
from asd_daemon.watch.report import MachineReport
from asd_daemon.web.learn_pages import name_of
from asd_daemon.web.sessions import OPERATOR, VIEWER, set_password
from rig.page import RunningPage, leave_state
from rig.waiting import wait_until

PASSWORD, VIEWERS = "correct horse battery", "only looking around"
LATER = itertools.count()
DONE = Answer(True, "done")
MICROPHONE = {
    "name": "Mic <b>",
    "source": "device:usb-path:1-1.2",
    "channel": None,
    "is_default": True,
    "machine": None,
}


@dataclass
class Daemon:
    """One that takes commands and machines, and answers as it is told to."""

    home: Path
    answer: Answer = DONE
    asked: list[tuple[str | None, Command]] = field(default_factory=list)
    machines: dict[str, LearningReport] = field(default_factory=dict)
    tried: frozenset[str] = frozenset()
    muted: bool = False

    def give(
        self, machine: str | None, command: Command, reply: Callable[[Answer], None], file: BinaryIO | None = None
    ) -> None:
        self.asked.append((machine, command))
        if command.command is CommandKind.SET and command.key == "source" and machine and self.answer.ok:
            self.machines[machine] = LearningReport()
        if command.is_setting or command.command is CommandKind.ENROLL:
            reply(self.answer)

    def want(self, sources: frozenset[str]) -> None:
        self.tried = sources

    def states(self) -> dict[str, str | None]:
        return dict.fromkeys(self.tried, "is unplugged")

    def list_devices(self, reply: Callable[[dict[str, Any]], None]) -> None:
        threading.Thread(target=reply, args=({"devices": [MICROPHONE], "trouble": None},)).start()

    def close(self) -> None:
        self.tried = frozenset()

    def reports(self) -> dict[str, MachineReport]:
        state = MachineState(Condition.NORMAL, datetime.now(UTC), 0.5, 1.0)
        return {name: MachineReport(state, Counts(), SourceHealth(), None, one) for name, one in self.machines.items()}

    @contextmanager
    def runs(self) -> Iterator[None]:
        self.scores = ScoreLog(self.home / "state" / "none.sqlite", every_s=3600, days=1)
        live = LiveSocket(
            self.home / "state" / "status", LiveSound(), self.scores, lambda: {"fan": AlarmRule()}, self.give,
            node="n", version="1", trials=self,
            facts=lambda: {"saw": {"title": "Saw 3", "chosen": {"source": {"device": "default"}}}},
        )  # fmt: skip
        live.start(self.reports)
        try:
            yield
        finally:
            live.close()
            self.scores.close()


@dataclass
class Rig:
    page: RunningPage
    daemon: Daemon

    def do(self, path: str, **fields: str) -> int:
        return self.page.post(path, {"token": self.page.token("/learn"), **fields}).status

    def notice(self, path: str = "/learn") -> str:
        return self.page.ask(path).text.partition('class="notice ')[2].partition("</p>")[0]

    def knock(self, since: int) -> Any:
        return json.loads(self.page.ask(f"/api/knock/fan?since={since}").body)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("learns")
    leave_state(home, windows=5)
    for role, password in ((OPERATOR, PASSWORD), (VIEWER, VIEWERS)):
        set_password(home / "passwords", role, password)
    daemon = Daemon(home, machines={"fan": LearningReport(), "saw": LearningReport()})
    with daemon.runs(), RunningPage(home, password_file=str(home / "passwords")) as page:
        page.log_in(PASSWORD)
        wait_until(lambda: "Add it, and go on to learn" in page.ask("/learn").text, "the daemon is known")
        yield Rig(page, daemon)


@pytest.fixture
def rig(running: Rig) -> Rig:
    running.daemon.asked.clear()
    running.daemon.answer = DONE
    running.daemon.machines = {"fan": LearningReport(), "saw": LearningReport()}
    running.page.cookie = None
    running.page.log_in(PASSWORD)
    return running


def test_a_machine_is_added_by_the_name_that_people_give_it(rig: Rig) -> None:
    assert rig.do("/learn/add", title="Größe 3 <b>", source="device:usb-path:1-1.2") == 303
    (name, source), (_, title) = rig.daemon.asked
    assert (name, source.key, source.value) == ("groesse-3-b", "source", "device:usb-path:1-1.2")
    assert (title.key, title.value) == ("title", "Größe 3 <b>")
    assert rig.notice("/learn/groesse-3-b").startswith('good" role="status">Größe 3 &lt;b&gt; is heard now')


def test_a_machine_with_a_name_in_other_letters_is_numbered_and_called_so(rig: Rig) -> None:
    assert rig.do("/learn/add", title="機械", source="device:default") == 303
    (name, _), (_, title) = rig.daemon.asked
    assert (name, title.value) == ("machine-1", "機械")


def test_an_added_machine_is_heard_by_another_microphone_and_a_configured_one_is_not(rig: Rig) -> None:
    assert "Another microphone for Saw 3" in rig.page.ask("/learn?machine=saw").text
    assert rig.page.ask("/learn?machine=fan").status == 404
    assert rig.do("/learn/add", machine="saw", source="simulate", simulate="fan?seed=2") == 303
    ((name, command),) = rig.daemon.asked
    assert (name, command.value) == ("saw", "simulate:fan?seed=2")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"title": "fan", "source": "device:default"}, "There is a machine fan already"),
        ({"title": "…!", "source": "device:default"}, "Give the machine a name"),
        ({"title": "", "source": "device:default"}, "Give the machine a name"),
    ],
)
def test_a_name_that_can_t_be_one_is_said(rig: Rig, fields: dict[str, str], said: str) -> None:
    assert rig.do("/learn/add", **fields) == 303
    text = rig.page.ask("/learn").text
    assert said in text.partition('class="notice ')[2].partition("</p>")[0]
    kept = text.partition('name="title"')[2].partition("</label>")[0]
    assert f'value="{fields["title"]}" aria-invalid="true" aria-describedby="why"' in kept
    assert said in kept
    assert "aria-invalid" not in rig.page.ask("/learn").text
    assert rig.daemon.asked == []


def test_what_the_daemon_refuses_is_shown(rig: Rig) -> None:
    rig.daemon.answer = Answer(False, "machines.mill.source: an added machine is heard by device or simulate")
    assert rig.do("/learn/add", title="Mill", source="command:ls") == 303
    assert "by device or simulate" in rig.notice()


def test_learning_is_begun_and_stopped(rig: Rig) -> None:
    assert rig.do("/learn/fan/begin", long="20") == 303
    assert rig.do("/learn/fan/begin", long="3d", mode="add", state="product B") == 303
    assert rig.do("/learn/fan/stop") == 303
    minutes, spread, stop = (command for _, command in rig.daemon.asked)
    assert (minutes.command, minutes.learning_minutes, minutes.mode) == (CommandKind.ENROLL, 20, None)
    assert (spread.over, spread.mode, spread.state) == ("3d", "add", "product B")
    assert (stop.command, stop.undo) == (CommandKind.ENROLL, True)


def test_how_far_it_is_and_what_has_come_of_it_is_there_after_the_page_is_loaded_again(rig: Rig) -> None:
    rig.daemon.machines["fan"] = LearningReport(True, 12, 120, 3, words="12 of 120 windows heard, 3 not usable")
    wait_until(lambda: 'value="12" max="120"' in rig.page.ask("/learn/fan").text, "how far it is")
    text = rig.page.ask("/learn/fan").text
    assert "12 of 120 windows heard, 3 not usable" in text
    assert "Stop learning" in text
    rig.daemon.machines["fan"] = LearningReport(words="learning failed: the sound was too <changeable>", failed=True)
    wait_until(lambda: "too &lt;changeable&gt;" in rig.page.ask("/learn/fan").text, "what came of it")


def test_microphones_are_listed_and_one_that_is_tried_says_what_is_wrong(rig: Rig) -> None:
    assert json.loads(rig.page.ask("/api/devices").body) == {"devices": [MICROPHONE], "trouble": None}


def windows(rig: Rig, *scores: float | None) -> int:
    """Let windows be judged; the time of the one before them."""
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(
        minutes=next(LATER)
    )  # none is before those of the test before
    rig.daemon.scores.add(LoggedScore("fan", at, 0.5, 1.0))
    last = round(at.timestamp() * 1000)
    wait_until(lambda: rig.knock(last - 1)["windows"] == 1, "it is known")
    for number, score in enumerate(scores, start=1):
        unfit = "clipping" if score is None else None
        limit = None if score is None else 1.0
        rig.daemon.scores.add(LoggedScore("fan", at + timedelta(milliseconds=number), score, limit, unfit))
    wait_until(lambda: rig.knock(last)["windows"] == len(scores), "they are known")
    return last


@pytest.mark.parametrize(
    ("scores", "heard", "over", "share"),
    [
        ((1.4,), True, True, 1.4),
        ((0.6,), False, False, 0.6),
        ((0.6, 0.7, 0.9), False, True, 0.9),
        ((0.6, None, 1.2), True, True, 1.2),
        ((None, None, None), False, True, None),
    ],
)
def test_a_knock_is_heard_where_a_window_after_it_is_above_the_limit(
    rig: Rig, scores: tuple[float | None, ...], heard: bool, over: bool, share: float | None
) -> None:
    told = rig.knock(windows(rig, *scores))
    assert (told["heard"], told["over"], told["share"]) == (heard, over, pytest.approx(share))
    assert told["unfit"] == ("clipping" if None in scores else None)


def test_nobody_is_told_while_somebody_knocks(rig: Rig) -> None:
    assert rig.do("/learn/fan/knock") == 303
    ((name, command),) = rig.daemon.asked
    assert (name, command.command, command.minutes) == ("fan", CommandKind.MUTE, 2)


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/learn/add", {"title": "Mill", "source": ""}, 400),
        ("/learn/add", {"title": "Mill", "source": "x" * 301}, 400),
        ("/learn/add", {"machine": "mill", "source": "device:default"}, 404),
        ("/learn/fan/begin", {"long": "21"}, 400),
        ("/learn/fan/begin", {"long": "20", "mode": "forget"}, 400),
        ("/learn/fan/begin", {"long": "20", "state": "x" * 65}, 400),
        ("/learn/mill/begin", {"long": "20"}, 404),
        ("/learn/mill/knock", {}, 404),
    ],
)
def test_what_cannot_be_meant_reaches_nobody(rig: Rig, path: str, fields: dict[str, str], status: int) -> None:
    assert rig.do(path, **fields) == status
    assert rig.daemon.asked == []


PATHS = ["/learn/add", "/learn/fan/begin", "/learn/fan/stop", "/learn/saw/remove", "/learn/fan/knock"]


@pytest.mark.parametrize("path", PATHS)
def test_a_viewer_a_stranger_and_another_page_change_nothing(rig: Rig, path: str) -> None:
    fields = {"token": rig.page.token("/learn"), "title": "Mill", "source": "device:default", "long": "20"}
    assert rig.page.post(path, fields, {"Origin": "https://evil.example"}).status == 403
    assert rig.page.post(path, {**fields, "token": "0" * 64}).status == 403
    rig.page.cookie = None
    assert rig.page.post(path, fields).status == 401
    rig.page.cookie = None
    rig.page.log_in(VIEWERS)
    assert rig.page.post(path, {**fields, "token": rig.page.token("/learn")}).status == 403
    assert rig.daemon.asked == []


def test_a_viewer_opens_no_microphone(rig: Rig) -> None:
    rig.page.cookie = None
    rig.page.log_in(VIEWERS)
    assert rig.page.ask("/api/devices").status == 403
    assert rig.page.ask("/events?sound=device:default").status == 403
    assert rig.page.ask("/events?advice=device:default").status == 403
    assert rig.page.ask("/listen?machine=device:default").status == 403
    for path in ("/learn", "/learn/fan", "/learn/saw"):
        assert "You may look" in rig.page.ask(path).text
    assert rig.daemon.tried == frozenset()


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Press 3", "press-3"),
        ("  Säge/Süd ", "saege-sued"),
        ("Pumpe №7", "pumpe-no7"),
        ("--- ", ""),
        ("..x", "x"),
        ("a" * 80, "a" * 64),
    ],
)
def test_names_are_made_of_what_people_call_it(title: str, name: str) -> None:
    assert name_of(title) == name
