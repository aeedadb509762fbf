"""A machine with a second microphone while the daemon runs: din makes no alert, a lost far microphone is told, the share of the hall is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.hear.source import Block, ScriptedSource
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.judge.scoring.verdict import HeardHall
from asd_daemon.run.machine_monitor import MachineMonitor, MonitorCallbacks
from asd_daemon.run.service import Service
from asd_daemon.tell.payloads import PublishedScore
from asd_daemon.watch.systemd import SystemdNotifier
from rig.scripted_sound import Loudness, RememberingTeller, window

RULE = AlarmRule(open_after=2, of=3, close_after=2, update_every_s=0)


@dataclass(frozen=True)
class LoudnessOfTwo(Loudness):
    """A verdict by the near microphone's peak, with what the far one says."""

    hall: HeardHall | None = None


class JudgeOfTwo:
    """The far microphone's peak is the hall's share; above 0.9 the hall drowns the machine."""

    def score(self, waveform: NDArray[np.float32]) -> LoudnessOfTwo:
        if waveform.ndim == 1:
            return LoudnessOfTwo(round(float(np.abs(waveform).max()), 1), hall=HeardHall(None))
        near, far = (round(float(np.abs(waveform[:, column]).max()), 1) for column in (0, 1))
        return LoudnessOfTwo(near, hall=HeardHall(far, far > 0.9))


class Teller(RememberingTeller):
    """Keeps the shares too."""

    def __init__(self) -> None:
        super().__init__()
        self.shares: list[float | None] = []

    def publish_score(self, machine: str, score: PublishedScore) -> None:
        super().publish_score(machine, score)
        self.shares.append(score.hall_share)


def heard(level: float, far: float | None) -> Block:
    return replace(window(level), far=None if far is None else window(far).samples)


def play(script: Iterable[Block]) -> tuple[Teller, Service]:
    teller = Teller()

    def monitors(callbacks: MonitorCallbacks) -> Sequence[MachineMonitor]:
        return [MachineMonitor("fan", ScriptedSource(script), JudgeOfTwo, teller, callbacks, rule=RULE)]

    service = Service(teller, SystemdNotifier({}), monitors)
    service.run()
    return teller, service


def test_the_share_of_the_hall_is_told_with_score_and_alert() -> None:
    teller, _ = play([heard(0.1, 0.2), heard(0.8, 0.3), heard(0.9, 0.4), heard(0.1, 0.1), heard(0.1, 0.1)])
    assert teller.shares == [0.2, 0.3, 0.4, 0.1, 0.1]
    assert [
        (event.kind.value, details.hall_share)
        for (_, event), details in zip(teller.alerts, teller.details, strict=True)
    ] == [
        ("open", 0.4),
        ("close", 0.4),
    ]


def test_din_makes_no_alert_and_is_told_as_unusable() -> None:
    teller, service = play([heard(0.1, 0.2), *[heard(0.9, 1.0)] * 4, heard(0.1, 0.2)])
    assert teller.alerts == []
    assert ("fan", "unusable", "hall") in teller.states
    assert teller.states[-2][1] == "normal"
    assert (service.counts.scored, service.counts.unusable) == (2, 4)


def test_a_lost_far_microphone_is_told_and_the_near_one_judges_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    teller, _ = play([heard(0.1, 0.2), heard(0.1, None), heard(0.9, None), heard(0.9, None), heard(0.1, 0.2)])
    assert teller.shares == [0.2, None, None, None, 0.2]
    assert [event.kind.value for _, event in teller.alerts] == ["open"]
    words = "the far microphone is not heard: judged by the near one alone"
    assert ("fan", "normal", words) in teller.states
    assert caplog.text.count(words) == 1
    assert "the far microphone is back" in caplog.text
