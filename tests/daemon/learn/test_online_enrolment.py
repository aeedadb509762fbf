"""Learning a machine while it is listened to: what is told, what judges meanwhile, and what stays when it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from asd_daemon.cli import enroll
from asd_daemon.errors import UnknownMachineError
from asd_daemon.hear.source import Block, ScriptedSource, SourceHealth
from asd_daemon.judge.alarm.alarm import AlertEvent
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.scoring.scorer import Scorer
from asd_daemon.judge.scoring.verdict import Judge
from asd_daemon.learn import enrolment
from asd_daemon.learn.enrolled_machines import with_enrolled_machine
from asd_daemon.learn.enrolment_record import read_enrolment
from asd_daemon.learn.online_enrolment import EnrolmentTarget, LearningJudge
from asd_daemon.learn.unfinished_collection import unfinished_collection
from asd_daemon.run.machine_monitor import MachineMonitor, MonitorCallbacks
from asd_daemon.settings.keys import MqttSettings
from asd_daemon.tell import commands
from asd_daemon.tell.commands import AskedCommand, Command, parse_command
from asd_daemon.tell.payloads import NO_DETAILS, AlertDetails, MachineState, PublishedScore
from rig.bundles import failing_noise, healthy_noise, write_tiny_bundle
from rig.waiting import PATIENT_S, wait_until

TILT = 2.0
SIXTEEN = 16 / 6  # minutes
MICROPHONE = SourceHealth(identity="usb-id:0d8c:0014")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("lesson") / "tiny")


@pytest.fixture(autouse=True)
def one_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "VIEW_NAMES", ("steady-mean",))


def learning_judge(bundle: Bundle, root: Path, model: str = "pump", hop_samples: int = 160_000) -> LearningJudge:
    def opened() -> Scorer:
        return Scorer(with_enrolled_machine(bundle, root, model), model)

    made = LearningJudge(
        EnrolmentTarget(model, "device:default", root, hop_samples), opened, lambda: bundle, lambda: MICROPHONE
    )
    made.open()
    return made


def asked(**words: object) -> Command:
    return Command.model_validate({"command": "enroll", "minutes": SIXTEEN, **words})


def hears(one: LearningJudge, windows: int, tilt: Callable[[int], float] = lambda _: TILT, seed: int = 0) -> list[str]:
    """What it says of windows it can't judge."""
    rng = np.random.default_rng(seed)
    said = []
    for n in range(windows):
        try:
            one.score(healthy_noise(rng, tilt(n)))
        except UnknownMachineError as e:
            said.append(str(e))
    return said


def wait_for_learning(model: str = "pump") -> None:
    for thread in threading.enumerate():
        if thread.name == f"learn-{model}":
            thread.join(PATIENT_S)
            assert not thread.is_alive()


def test_learning_judge_of_an_unknown_machine_learns_it_and_judges_from_the_next_window_on(
    bundle: Bundle, tmp_path: Path
) -> None:
    one = learning_judge(bundle, tmp_path)
    assert hears(one, 1) == ["not learned yet: learn it at the page, or send the command enroll"]
    assert one.enrol(asked()) is None
    assert one.is_learning
    assert one.status_message() == "0 of 16 windows heard"
    assert len(hears(one, 16)) == 16
    wait_for_learning()
    rng = np.random.default_rng(9)
    assert not one.score(healthy_noise(rng, TILT)).anomalous
    assert one.score(failing_noise(rng, TILT)).anomalous
    assert not one.is_learning
    assert one.status_message() == "learned from 16 windows"
    assert one.status_message() is None
    record = read_enrolment(tmp_path, "pump")
    assert record is not None
    assert record.microphone == "usb-id:0d8c:0014"


def test_learning_judge_judges_by_what_is_known_until_the_new_state_passes(bundle: Bundle, tmp_path: Path) -> None:
    one = learning_judge(bundle, tmp_path, "fan")
    before = one.score(healthy_noise(np.random.default_rng(1), TILT))
    assert before.anomalous  # the fan of the bundle sounds otherwise
    assert one.enrol(asked()) is None
    assert hears(one, 16) == []
    wait_for_learning("fan")
    assert not one.score(healthy_noise(np.random.default_rng(1), TILT)).anomalous


def test_learning_judge_sound_that_is_too_changeable_changes_nothing_and_says_why(
    bundle: Bundle, tmp_path: Path
) -> None:
    one = learning_judge(bundle, tmp_path, "fan")
    rng = np.random.default_rng(3)
    window = healthy_noise(rng)
    before = one.score(window).score
    assert one.enrol(asked(minutes=4)) is None
    hears(one, 24, lambda n: 3.0 * (n // 6))
    wait_for_learning("fan")
    assert one.score(window).score == before
    message = one.status_message()
    assert message is not None
    assert message.startswith("learning failed: fan: the sound was too changeable")
    assert message.endswith("what was known before stays")
    assert read_enrolment(tmp_path, "fan") is None


def test_learning_judge_broken_off_goes_on_with_what_was_collected(bundle: Bundle, tmp_path: Path) -> None:
    one = learning_judge(bundle, tmp_path)
    assert one.enrol(asked()) is None
    hears(one, 10)
    one.close()
    wait_for_learning()
    assert read_enrolment(tmp_path, "pump") is None
    two = learning_judge(bundle, tmp_path)
    assert two.is_learning
    hears(two, 16 - len(list((tmp_path / "pump" / "collecting").glob("window-*"))), seed=1)
    wait_for_learning()
    hears(two, 1, seed=2)
    assert two.status_message() == "learned from 16 windows"


def test_learning_judge_refuses_a_second_enrolment_and_one_that_does_not_say_what_becomes_of_the_first(
    bundle: Bundle, tmp_path: Path
) -> None:
    one = learning_judge(bundle, tmp_path)
    assert one.enrol(asked()) is None
    assert one.enrol(asked()) == "the machine is being learned already"
    hears(one, 16)
    wait_for_learning()
    hears(one, 1)
    refused = one.enrol(asked())
    assert refused is not None
    assert '"mode": "add" extends that, "relearn" replaces it' in refused
    assert one.enrol(asked(mode="relearn")) is None
    hears(one, 16, seed=5)
    wait_for_learning()
    hears(one, 1)
    assert one.status_message() == "learned from 16 windows"


def test_learning_judge_windows_that_overlap_are_forwarded_once(bundle: Bundle, tmp_path: Path) -> None:
    one = learning_judge(bundle, tmp_path, hop_samples=80_000)
    assert one.enrol(asked()) is None
    hears(one, 32)
    wait_for_learning()
    hears(one, 1)
    assert one.status_message() == "learned from 16 windows"


def test_command_enroll_has_minutes_of_its_own_and_a_mode() -> None:
    assert parse_command(b'{"command": "enroll"}').learning_minutes == 20
    assert parse_command(b'{"command": "enroll", "minutes": 45, "mode": "add"}').learning_minutes == 45
    assert parse_command(b'{"command": "mute"}').minutes == 60
    with pytest.raises(ValueError, match="mode"):
        parse_command(b'{"command": "enroll", "mode": "forget"}')


class Quiet:
    """Keeps states, lets all else pass."""

    def __init__(self) -> None:
        self.states: list[tuple[str, str | None]] = []
        self.on_command: Callable[[str, Command], None] = lambda *_: None

    def start(self, failed: Callable[[Exception], None]) -> None: ...

    def publish_state(self, machine: str, state: MachineState) -> None:
        self.states.append((state.condition.value, state.reason))

    def publish_score(self, machine: str, score: PublishedScore) -> None: ...

    def publish_alert(
        self, machine: str, event: AlertEvent, details: AlertDetails = NO_DETAILS, memory: bytes | None = None
    ) -> None: ...

    def republish_alert(self, machine: str, event: AlertEvent) -> None: ...

    def close(self, timeout_s: float) -> None: ...


def states_of(
    learner: LearningJudge | None, open_judge: Callable[[], Judge], windows: int
) -> list[tuple[str, str | None]]:
    """What a monitor tells that was asked to learn before its first window."""
    publisher, ended = Quiet(), threading.Event()
    failures: list[Exception] = []

    def failed(_: str, error: Exception) -> None:
        failures.append(error)
        ended.set()

    callbacks = MonitorCallbacks(lambda _: None, lambda _: None, lambda _: ended.set(), failed)
    rng = np.random.default_rng(0)
    source = ScriptedSource([Block(healthy_noise(rng)) for _ in range(windows)])
    rule = AlarmRule(open_after=2, of=3, close_after=2, update_every_s=0)
    monitor = MachineMonitor("fan", source, open_judge, publisher, callbacks, rule=rule, learner=learner)
    monitor.command(AskedCommand(asked()))
    monitor.start()
    monitor.listen()
    assert ended.wait(PATIENT_S)
    assert not failures
    monitor.stop()
    assert monitor.join(PATIENT_S)
    return publisher.states


def test_monitor_says_learning_with_how_far_it_is_and_refuses_where_that_is_not_allowed(
    bundle: Bundle, tmp_path: Path
) -> None:
    one = learning_judge(bundle, tmp_path, "fan")
    states = states_of(one, one.open, 3)
    assert states[0] == ("starting", None)
    assert states[1] == ("learning", "0 of 16 windows heard")
    assert {condition for condition, _ in states[1:]} == {"learning"}
    wait_for_learning("fan")
    refused = states_of(None, lambda: Scorer(bundle, "fan"), 2)
    assert refused == [
        ("starting", None),
        (
            "starting",
            "enroll refused: a recording, or a simulation that is only tried out, is learned by `asd-daemon enroll`",
        ),
        ("normal", None),
    ]


def test_settings_enrolment_needs_commands() -> None:
    with pytest.raises(ValidationError, match="enrolment needs commands: true"):
        MqttSettings(host="broker", enrolment=True)
    assert MqttSettings(host="broker", commands=True, enrolment=True).enrolment


def test_learning_for_minutes_goes_on_after_a_restart_unless_it_was_stopped_or_is_of_another_day(
    bundle: Bundle, tmp_path: Path
) -> None:
    one = learning_judge(bundle, tmp_path)
    assert one.enrol(asked()) is None
    assert len(hears(one, 3)) == 3
    wait_until(lambda: one.report.windows == 3, "they are taken")
    one.close()
    wait_for_learning()
    again = learning_judge(bundle, tmp_path)
    assert again.is_learning
    wait_until(lambda: again.report.windows == 3, "it goes on where it was")
    assert (again.report.is_learning, again.report.wanted) == (True, 16)
    assert again.enrol(Command.model_validate({"command": "enroll", "undo": True})) is None
    wait_for_learning()
    hears(again, 1)
    assert not again.report.is_learning
    assert not again.report.failed
    assert "is forgotten" in (again.report.words or "")
    assert not learning_judge(bundle, tmp_path).is_learning
    assert (
        again.enrol(Command.model_validate({"command": "enroll", "undo": True})) == "the machine is not being learned"
    )

    assert again.enrol(asked()) is None
    hears(again, 2)
    wait_until(lambda: again.report.windows == 2, "they are taken")
    again.close()
    wait_for_learning()
    home = tmp_path / "pump"
    assert unfinished_collection(home) is not None
    assert unfinished_collection(home, datetime.now(UTC) + timedelta(days=2)) is None


def test_learning_that_is_spread_over_time_goes_on_after_a_restart(bundle: Bundle, tmp_path: Path) -> None:
    one = learning_judge(bundle, tmp_path)
    asked_spread = Command.model_validate({"command": "enroll", "over": "1d", "windows": 16, "state": "product B"})
    assert one.enrol(asked_spread) is None
    assert len(hears(one, 2)) == 2
    one.close()
    wait_for_learning()
    again = learning_judge(bundle, tmp_path)
    assert again.is_learning
    assert "of 16 windows heard" in (again.status_message() or "")
    again.close()
    wait_for_learning()
    (tmp_path / "pump" / "collecting" / "note.json").unlink()
    assert not learning_judge(bundle, tmp_path).is_learning


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ({"over": "3x"}, "must be a time"),
        ({"over": "60d"}, "must be a time"),
        ({"over": "1m"}, "do not fit"),
        ({"windows": 50}, "with over only"),
        ({"over": "3d", "minutes": 5}, "minutes, or over"),
        ({"state": "\n"}, "state"),
    ],
)
def test_command_that_spreads_what_can_not_be_spread_is_refused(words: dict[str, object], wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        Command.model_validate({"command": "enroll", **words})


def test_command_line_and_command_take_the_same_number_of_windows() -> None:
    assert (enroll.LEARNING_WINDOWS, enroll.MOST_WINDOWS) == (commands.LEARNING_WINDOWS, commands.MOST_WINDOWS)
