"""Who is told what and when, by a clock that the test sets and recipients that answer as it says."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.tell.alert_picture import AlertPicture
from asd_daemon.tell.notifications.notice import MachineRules, Message, NoticeKind, NotificationRules
from asd_daemon.tell.notifications.notifier import Notifier, Telling
from asd_daemon.tell.notifications.notifying_publisher import NotifyingPublisher
from asd_daemon.tell.notifications.quiet_hours import QuietHours, parse_quiet_time
from asd_daemon.tell.notifications.recipients import Recipient
from asd_daemon.tell.notifications.sender import Job, Result
from asd_daemon.tell.payloads import AlertDetails, Condition, Drift, MachineState
from asd_daemon.tell.storage.alert_pictures import AlertPictures
from asd_daemon.tell.storage.waiting_notices import WaitingNotices
from rig.scripted_sound import RememberingTeller
from rig.waiting import PATIENT_S, wait_until

NOON = datetime(2026, 1, 12, 12, tzinfo=UTC)  # a Monday
OPS = Recipient("1", "ops (json, line 1)", frozenset({"ops"}), "json://ops")
BOSS = Recipient("2", "boss (json, line 2)", frozenset({"boss"}), "json://boss")
PICTURE = AlertPicture(np.zeros((249, 128), np.uint8))
EVERYTHING = frozenset(NoticeKind)
TO_OPS = MachineRules(tell=("ops",), events=EVERYTHING)


class Post:
    """Takes what is sent, or refuses it with the words of `broken`; a recipient of `hanging` answers when it is taken out of it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Message]] = []
        self.broken: dict[str, str] = {}
        self.hangs = threading.Event()
        self.hanging: set[str] = set()

    def send(self, jobs: Sequence[Job], result: Result) -> None:
        for number, job in sorted(enumerate(jobs), key=lambda each: each[1].recipient.key in self.hanging):
            key = job.recipient.key
            if key in self.hanging:
                self.hangs.wait(PATIENT_S)
            if key not in self.broken:
                self.sent.append((key, job.message))
            result(number, self.broken.get(key))

    def close(self) -> None: ...

    def titles(self, key: str) -> list[str]:
        return [message.title for to, message in self.sent if to == key]


class Desk:
    """A notifier on a state folder; its clock goes on by `after`."""

    def __init__(self, folder: Path, rules: MachineRules = TO_OPS, now: datetime = NOON, **more: object) -> None:
        self.folder, self.now, self.post = folder, now, Post()
        machines = ("fan", "pump", "mill")
        common = NotificationRules(dict.fromkeys(machines, rules))
        self.telling = Telling(replace(common, **more), (OPS, BOSS), ZoneInfo("Europe/Berlin"))  # type: ignore[arg-type]
        self.items = WaitingNotices(folder / "notices.sqlite", machines)
        self.notifier = Notifier(
            "box",
            self.items,
            AlertPictures(folder / "pictures"),
            self.telling,
            sender=self.post,
            now_s=self._now_s,
        )

    def _now_s(self) -> float:
        return self.now.timestamp()

    def again(self) -> Desk:
        """What comes after a kill: the folder as it is, nothing else."""
        after = Desk(self.folder, now=self.now)
        after.notifier.change(self.telling)
        after.telling = self.telling
        return after

    def alert(self, kind: str = "open", machine: str = "fan", event_id: str = "e1", score: float = 2.0) -> None:
        event = AlertEvent(AlertKind(kind), event_id, self.now, self.now, score, score, 1.0, 2, 2)
        self.notifier.alert(machine, event, AlertDetails(picture=PICTURE))

    def state(self, condition: Condition, **more: object) -> None:
        state = MachineState(condition, self.now, **more)  # type: ignore[arg-type]
        self.notifier.state("fan", state)

    def after(self, seconds: float = 0.0, *, waits: bool = True) -> list[str]:
        """The titles that ops has got by then."""
        self.now += timedelta(seconds=seconds)
        self.notifier.look()
        assert not waits or self.notifier.wait_sent(PATIENT_S)
        return self.post.titles(OPS.key)

    @property
    def trouble(self) -> str | None:
        return self.notifier.status.recipients[0].trouble


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_alert_is_told_with_words_time_score_and_picture(tmp_path: Path) -> None:
    desk = Desk(tmp_path, page_url="http://box:8470/")
    desk.alert()
    assert desk.after(9) == []
    assert desk.after(1) == ["fan: sounds wrong"]
    ((_, message),) = desk.post.sent
    assert message.body.splitlines() == [
        "2026-01-12 13:00:00 CET",
        "Score 2 of 1",
        "box",
        "http://box:8470/alerts/e1",
    ]
    assert message.picture is not None
    assert message.picture.startswith(b"\x89PNG")
    assert not message.is_good
    desk.alert("close")
    assert desk.after(600) == ["fan: sounds wrong", "fan: alert is over"]
    assert desk.post.sent[-1][1].is_good
    assert desk.post.sent[-1][1].picture is None


def test_storm_of_alerts_is_one_message_that_names_all(desk: Desk) -> None:
    for number, machine in enumerate(("fan", "pump", "mill", "fan")):
        desk.alert(machine=machine, event_id=f"e{number}")
        desk.now += timedelta(seconds=2)
    assert desk.after(10) == ["3 machines need attention: fan, pump, mill"]
    body = desk.post.sent[0][1].body
    assert [line[7:] for line in body.splitlines()[:4]] == [
        f"{m}: sounds wrong" for m in ("fan", "pump", "mill", "fan")
    ]
    assert desk.after(3600) == ["3 machines need attention: fan, pump, mill"], "once"


def test_only_those_are_told_who_shall_be_and_only_of_what_they_want(tmp_path: Path) -> None:
    desk = Desk(tmp_path, MachineRules(tell=("boss",), events=frozenset({NoticeKind.OPEN})))
    desk.alert()
    desk.after(10)
    desk.alert("update", score=3.0)
    desk.alert("close")
    assert desk.after(60) == []
    assert desk.post.titles(BOSS.key) == ["fan: sounds wrong"]


def test_alert_that_nobody_answers_is_told_to_others_who_hear_of_its_end_too(tmp_path: Path) -> None:
    desk = Desk(tmp_path, replace(TO_OPS, escalate_after_s=1800, escalate_to=("boss",)))
    desk.alert()
    desk.state(Condition.ALERT, event_id="e1")
    desk.after(1799)
    assert desk.post.titles(BOSS.key) == []
    desk.after(1)
    desk.after(10)
    assert desk.post.titles(BOSS.key) == ["fan: nobody has answered"]
    assert "Since 2026-01-12 13:00:00 CET" in desk.post.sent[-1][1].body
    desk.alert("close")
    desk.after(20)
    assert desk.post.titles(BOSS.key) == ["fan: nobody has answered", "fan: alert is over"]
    desk.after(7200)
    assert len(desk.post.titles(BOSS.key)) == 2


@pytest.mark.parametrize("answer", [{"acknowledged": True}, {"muted_until": NOON + timedelta(hours=1)}])
def test_alert_that_somebody_answers_is_told_to_nobody_else(answer: dict[str, object], tmp_path: Path) -> None:
    desk = Desk(tmp_path, replace(TO_OPS, escalate_after_s=1800, escalate_to=("boss",)))
    desk.alert()
    desk.state(Condition.ALERT, event_id="e1", **answer)
    desk.after(7200)
    assert desk.post.titles(BOSS.key) == []
    desk.alert("close")
    assert desk.after(20)[-1] == "fan: alert is over"
    assert desk.post.titles(BOSS.key) == []


def test_escalation_survives_a_kill_and_a_close_in_time_prevents_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path, replace(TO_OPS, escalate_after_s=1800, escalate_to=("boss",)))
    desk.alert()
    desk.alert(machine="pump", event_id="e2")
    after = desk.again()
    after.alert("close", "pump", "e2")
    after.after(1800)
    after.after(20)
    assert after.post.titles(BOSS.key) == ["fan: nobody has answered"]


def test_quiet_hours_hold_messages_until_the_morning_and_let_escalations_pass(tmp_path: Path) -> None:
    night = QuietHours([parse_quiet_time("22:00-06:00")], ZoneInfo("Europe/Berlin"))
    evening = datetime(2026, 3, 28, 23, 30, tzinfo=ZoneInfo("Europe/Berlin")).astimezone(
        UTC
    )  # the clock is put forward
    desk = Desk(tmp_path, replace(TO_OPS, quiet=night, escalate_after_s=1800, escalate_to=("boss",)), evening)
    desk.alert()
    assert desk.after(20) == []
    desk.after(1790)
    desk.after(10)
    assert desk.post.titles(BOSS.key) == ["fan: nobody has answered"]
    pause_s = desk.notifier.look()
    assert pause_s <= 60.0, "a clock that is set is seen within a minute"
    desk.alert("close")
    morning = datetime(2026, 3, 29, 6, 0, tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC)
    assert desk.after((morning - desk.now).total_seconds() - 1) == []
    assert desk.after(1) == ["fan: alert is over"]
    told = [message.body for to, message in desk.post.sent if to == OPS.key]
    assert told[-1].splitlines()[:2] == ["23:30  fan: sounds wrong", "00:00  fan: alert is over"]


def test_more_than_so_many_an_hour_are_gathered_into_one(tmp_path: Path) -> None:
    desk = Desk(tmp_path, most_per_hour=2)
    for number in range(5):
        desk.alert(event_id=f"e{number}")
        desk.after(60)
    assert desk.post.titles(OPS.key) == ["fan: sounds wrong"] * 2
    assert "2 messages within an hour" in desk.post.sent[1][1].body
    assert "2 messages within an hour" not in desk.post.sent[0][1].body
    desk.after(3600 - 240)
    assert len(desk.post.sent) == 3
    assert [line[7:] for line in desk.post.sent[2][1].body.splitlines()[:3]] == ["fan: sounds wrong"] * 3


def test_limit_of_an_hour_outlives_restarts(tmp_path: Path) -> None:
    desk = Desk(tmp_path, most_per_hour=2)
    titles: list[str] = []
    for number in range(6):  # a daemon that is killed every five minutes
        desk.alert(machine=("fan", "pump", "mill")[number % 3], event_id=f"e{number}")
        titles += desk.after(10)
        desk.now += timedelta(minutes=5)
        desk = desk.again()
    assert titles == ["fan: sounds wrong", "pump: sounds wrong"]
    desk.now = NOON + timedelta(hours=1, seconds=9)
    assert desk.after(0) == []
    assert desk.after(2) == ["3 machines need attention: mill, fan, pump"]
    desk.alert(event_id="late")
    desk.after(3 * 3600)
    assert len(desk.post.sent) == 2
    assert [len(times) for times in desk.items.of_kind("sent").values()] == [
        1
    ]  # what is older than an hour is forgotten


def test_storm_and_limit_hold_over_a_kill_of_the_process(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_notifier import Desk
desk = Desk(Path({str(tmp_path)!r}), most_per_hour=1)
desk.alert(event_id="first")
print(desk.after(10), flush=True)
for machine in ("pump", "mill"):
    desk.alert(machine=machine, event_id=machine)
print("waits", flush=True)
sys.stdin.read()
"""
    path = os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])
    call = [sys.executable, "-c", script]
    with subprocess.Popen(
        call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "['fan: sounds wrong']\n"
        assert process.stdout.readline() == "waits\n"
        process.kill()
    desk = Desk(tmp_path, now=NOON + timedelta(seconds=60), most_per_hour=1)
    assert desk.after(0) == []
    assert desk.after(3600) == ["2 machines need attention: pump, mill"]


def test_recipient_that_refuses_is_tried_with_growing_pauses_and_named_and_told_in_the_end(desk: Desk) -> None:
    desk.post.broken[OPS.key] = "418 I'm a teapot"
    desk.alert()
    for tries, pause in enumerate((10, 15, 30, 60, 120, 300), 1):
        desk.after(pause - 1)
        desk.after(1)
        assert desk.notifier.status.recipients[0].failures == tries
    assert desk.trouble == "418 I'm a teapot"
    assert desk.notifier.troubles == ("ops (json, line 1) is not told: 418 I'm a teapot",)
    assert desk.notifier.status.recipients[0].waiting == 1
    desk.post.broken.clear()
    assert desk.after(600) == ["fan: sounds wrong"]
    assert not desk.notifier.troubles
    assert desk.notifier.status.recipients[0].waiting == 0


def test_recipient_that_hangs_or_fails_delays_no_other(tmp_path: Path) -> None:
    desk = Desk(tmp_path, MachineRules(events=EVERYTHING))
    desk.post.hanging.add(BOSS.key)
    desk.alert()
    for count in range(1, 4):
        desk.after(10, waits=False)
        wait_until(lambda n=count: desk.notifier.status.recipients[0].told == n, "ops is told")  # type: ignore[misc]
        desk.alert("update")
    assert desk.post.titles(BOSS.key) == []
    desk.post.hangs.set()
    assert desk.notifier.wait_sent(PATIENT_S)
    desk.post.hanging.clear()
    desk.after(60)
    told = [
        line for to, message in desk.post.sent if to == BOSS.key for line in (message.title, *message.body.splitlines())
    ]
    assert sum("still sounds wrong" in line for line in told) >= 3, "the one that hung is told all of it in the end"


def test_what_could_not_be_told_is_told_by_the_next_run_with_its_picture(desk: Desk) -> None:
    desk.alert()
    after = desk.again()
    assert after.after(10) == ["fan: sounds wrong"]
    assert after.post.sent[0][1].picture is not None
    assert after.again().after(3600) == [], "and no more by the one after it"


def test_what_is_too_old_or_too_much_is_given_up_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(tmp_path, keep_s=3600.0)
    desk.post.broken[OPS.key] = "no"
    desk.alert()
    after = desk.again()  # its age is known by the clock on the wall alone
    after.post.broken[OPS.key] = "no"
    after.after(3601)
    assert after.notifier.status.given_up == 1
    assert after.notifier.status.recipients[0].waiting == 0
    assert "fan: open is not told any more to ops (json, line 1): it is too old" in caplog.text
    for number in range(1005):
        after.alert("update", event_id=f"e{number}")
    assert after.notifier.status.given_up == 6
    assert after.notifier.status.recipients[0].waiting == 1000


def test_clock_that_is_set_makes_nothing_old_and_nobody_wait(tmp_path: Path) -> None:
    desk = Desk(tmp_path, keep_s=3600.0)
    desk.alert()
    desk.now += timedelta(days=300)  # a box without a clock has found the time
    assert desk.after() == ["fan: sounds wrong"]
    desk.post.broken[OPS.key] = "no"
    desk.alert("update")
    desk.after(10)
    desk.post.broken.clear()
    desk.now -= timedelta(days=299)
    assert len(desk.after()) == 2, "no wait of a year"


def test_machine_that_is_not_heard_for_long_is_told_once_and_so_is_its_return(desk: Desk) -> None:
    desk.state(Condition.NORMAL)
    desk.state(Condition.MIC_LOST, reason="unplugged")
    desk.state(Condition.MIC_LOST, reason="unplugged; tried again")
    desk.after(30)
    desk.state(Condition.NORMAL)
    assert desk.after(300) == [], "a moment is nothing to tell"
    desk.state(Condition.MIC_LOST, reason="unplugged")
    desk.after(60)
    assert desk.after(10) == ["fan: can't be heard"]
    assert desk.post.sent[-1][1].body.startswith("unplugged\nSince ")
    after = desk.again()
    after.state(Condition.STARTING)
    after.state(Condition.MIC_LOST, reason="unplugged")
    assert after.after(3600) == []
    after.state(Condition.NORMAL)
    assert after.after(10) == ["fan: heard again"]
    after.state(Condition.STOPPED)
    assert after.after(3600) == ["fan: heard again"]


def test_drift_is_told_once(desk: Desk) -> None:
    for fraction in (0.5, 0.6):
        desk.state(Condition.NORMAL, drift=Drift(NOON - timedelta(days=3), fraction))
    assert desk.after(10) == ["fan: slowly changes"]
    assert "50% of the way" in desk.post.sent[0][1].body


def test_other_rules_hold_from_the_moment_they_are_given(desk: Desk) -> None:
    night = QuietHours([parse_quiet_time("00:00-24:00")], UTC)
    rules = replace(desk.telling.rules, machines={"fan": replace(TO_OPS, quiet=night)})
    desk.notifier.change(replace(desk.telling, rules=rules))
    desk.alert()
    assert desk.after(3600) == []
    desk.notifier.change(desk.telling)
    assert desk.after() == ["fan: sounds wrong"]
    desk.notifier.change(None)
    desk.alert("close")
    assert desk.after(60) == ["fan: sounds wrong"]
    assert desk.notifier.status.recipients == ()
    desk.notifier.close(1.0)


def test_what_waits_for_somebody_who_is_gone_from_the_file_is_dropped(desk: Desk) -> None:
    desk.post.broken[OPS.key] = "no"
    desk.alert()
    desk.after(10)
    desk.notifier.change(replace(desk.telling, recipients=(BOSS,)))
    assert [r.name for r in desk.notifier.status.recipients] == [BOSS.name]
    assert desk.items.of_kind("notice") == {}


def test_disk_that_takes_nothing_costs_no_message_and_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    desk = Desk(tmp_path / "file" / "below")
    desk.alert()
    assert "can't be written" in " ".join(desk.notifier.troubles)
    assert not desk.notifier.status.durable
    assert desk.after(10) == ["fan: sounds wrong"]


def test_thread_sends_by_itself(tmp_path: Path) -> None:
    desk = Desk(tmp_path, storm_s=0.0)
    heard = threading.Event()
    send = desk.post.send

    def noted(jobs: Sequence[Job], result: Result) -> None:
        send(jobs, result)
        heard.set()

    desk.post.send = noted  # type: ignore[method-assign]
    desk.notifier.start()
    desk.alert()
    assert heard.wait(PATIENT_S)
    desk.notifier.close(PATIENT_S)


def test_defect_in_telling_people_costs_their_message_and_nothing_else(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    told = RememberingTeller()
    publisher = NotifyingPublisher(told, desk.notifier)
    desk.items.put(("fan", "alert", "e1"), "nonsense")
    event = AlertEvent(AlertKind.UPDATE, "e1", desk.now, desk.now, 2.0, 2.0, 1.0, 2, 2)
    publisher.publish_alert("fan", event)
    publisher.publish_state("fan", MachineState(Condition.ALERT, desk.now, event_id="e1"))
    assert [e.event_id for _, e in told.alerts] == ["e1"]
    assert [state for _, state, _ in told.states] == [Condition.ALERT]
    assert "what happened can't be told to people" in caplog.text


def test_defect_in_the_sender_is_a_failed_try(desk: Desk) -> None:
    def fails(jobs: Sequence[Job], result: Result) -> None:
        raise RuntimeError("can't start new thread")

    works, desk.post.send = desk.post.send, fails  # type: ignore[method-assign]
    desk.alert()
    assert desk.after(10) == []
    assert desk.trouble == "RuntimeError, see the log"
    desk.post.send = works  # type: ignore[method-assign]
    assert desk.after(15) == ["fan: sounds wrong"]
