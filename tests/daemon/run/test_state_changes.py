"""Windows of starts, stops and changes count for nothing; those of a failure all count, two windows later at most."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from asd_daemon.hear.windows.window import Window
from asd_daemon.run.state_changes import JudgedWindow, StateChanges

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Scored:
    score: float
    operating_state: str | None
    threshold: float = 1.5
    enrolled: None = None
    is_off: bool = False

    @property
    def anomalous(self) -> bool:
        return self.score > self.threshold


class Machine:
    """Gives one window after the other."""

    def __init__(self) -> None:
        self.changes, self.windows = StateChanges(), 0

    def hear(self, score: float, state: str | None) -> str:
        """What is known then, a letter a window: C counts, p passes."""
        if state == "off":
            return letters(self.changes.off(state))
        self.windows += 1
        at = START + timedelta(seconds=10 * self.windows)
        return letters(self.changes.take(Window(np.zeros(1, np.float32), at), Scored(score, state)))


def letters(judged: list[JudgedWindow]) -> str:
    times = [one.window.started_at for one in judged]
    assert times == sorted(times), "the oldest first"
    return "".join("C" if one.counts else "p" for one in judged)


def test_machine_without_states_is_judged_window_by_window() -> None:
    machine = Machine()
    assert [machine.hear(score, None) for score in (1, 2, 2, 1)] == ["C"] * 4


def test_failure_counts_whole_with_its_third_window() -> None:
    machine = Machine()
    assert [machine.hear(score, "running") for score in (1, 2, 2, 2, 2)] == ["C", "", "", "CCC", ""]


def test_failure_that_passes_in_the_same_state_counts() -> None:
    machine = Machine()
    assert [machine.hear(score, "running") for score in (1, 2, 2, 1)] == ["C", "", "", "CCC"]


def test_change_from_state_to_state_passes() -> None:
    machine = Machine()
    machine.hear(1, "running")
    assert machine.hear(2, "running") == ""
    assert machine.hear(2, "idle") == ""
    assert machine.hear(1, "idle") == "ppC"
    assert machine.hear(2, "idle") == ""
    assert machine.hear(1, "idle") == "CC", "it was idle before and after"


def test_stop_passes_and_so_does_the_start_behind_it() -> None:
    machine = Machine()
    machine.hear(1, "running")
    machine.hear(2, "running")
    assert machine.hear(0, "off") == "p"
    assert [machine.hear(score, "running") for score in (9, 9, 1)] == ["p", "p", "C"]
    assert [machine.hear(score, "running") for score in (9, 9, 9)] == ["", "", "CCC"]


def test_failure_from_the_start_counts_behind_the_start() -> None:
    machine = Machine()
    machine.hear(0, "off")
    assert [machine.hear(9, "running") for _ in range(5)] == ["p", "p", "", "", "CCC"]


def test_state_is_that_of_two_windows_in_a_row_or_off_at_once() -> None:
    machine = Machine()
    told = []
    for state in ("running", "idle", "running", "idle", "idle", "off", "running"):
        machine.hear(1, state)
        told.append(machine.changes.state)
    assert told == ["running", "running", "running", "running", "idle", "off", "running"]
