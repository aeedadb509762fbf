"""What people see while it happens: bars, alerts, many machines, narrow terminals."""

from __future__ import annotations

import re
from datetime import UTC
from typing import Any

import pytest

from asd_daemon.watch.live_view import LiveView, score_bar

AT = "2026-01-31T12:00:00.000Z"
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def score(machine: str, value: float, threshold: float = 1.25) -> dict[str, Any]:
    return {"machine": machine, "at": AT, "score": value, "threshold": threshold, "anomalous": value > threshold}


def state(machine: str, name: str, reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"machine": machine, "state": name, "reason": reason, "since": AT, "event_id": None, "troubles": [], **more}


def alert(machine: str, kind: str, text: str | None = None, **more: Any) -> dict[str, Any]:
    figures = {"peak_score": 2.5, "threshold": 1.25, "anomalous_windows": 2, "windows": 3, "text": text}
    return {"machine": machine, "kind": kind, "at": AT, **figures, **more}


def view(width: int | None = None, machines: int = 1) -> LiveView:
    made = LiveView(width, UTC, clock_s=iter(range(0, 1000, 6)).__next__)
    made.expect([f"m{n:03}" for n in range(machines)])
    return made


@pytest.mark.parametrize(
    ("share", "drawn"),
    [
        (0.0, "[    |    ]"),
        (0.5, "[##  |    ]"),
        (1.0, "[####|    ]"),
        (1.5, "[####|##  ]"),
        (2.0, "[####|####]"),
        (99.0, "[####|####]"),
        (-1.0, "[    |    ]"),
    ],
)
def test_bar_has_the_threshold_in_its_middle(share: float, drawn: str) -> None:
    assert score_bar(share, 8) == drawn


def test_window_is_a_line_with_time_bar_score_and_verdict() -> None:
    assert list(view().lines("score", score("m000", 0.625))) == [
        "12:00:00  m000  [######      |            ]   0.625 of 1.25  normal"
    ]
    (line,) = view().lines("score", score("m000", 2.5))
    assert line.endswith("[############|############]     2.5 of 1.25  anomalous")


def test_threshold_of_zero_draws_no_bar_and_breaks_nothing() -> None:
    assert "0.5 of 0  anomalous" in next(view().lines("score", score("m000", 0.5, 0.0)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            alert("m000", "open", "Knocks, 3 a second"),
            ">>  ALERT, score up to 2.5 of 1.25, 2 of 3 windows above: Knocks, 3 a second",
        ),
        (alert("m000", "update"), ">>  ALERT goes on, score"),
        (alert("m000", "close", outcome="normal"), ">>  ALERT is over, score"),
        (alert("m000", "close", outcome="unknown"), ">>  ALERT ends as unknown: the machine can't be judged, score"),
        (alert("m000", "open", repeated=True), ">>  ALERT is still open, score"),
    ],
)
def test_alert_says_what_happens(content: dict[str, Any], words: str) -> None:
    (line,) = view().lines("alert", content)
    assert words in line


def test_state_is_said_when_it_changes_and_a_trouble_once() -> None:
    shown = view()
    assert list(shown.lines("state", state("m000", "normal"))) == ["12:00:00  m000  normal"]
    assert list(shown.lines("state", state("m000", "normal"))) == []
    assert list(shown.lines("state", state("m000", "mic_lost", "unplugged"))) == ["12:00:00  m000  mic_lost: unplugged"]
    full = state("m000", "mic_lost", "unplugged", troubles=["the disk is full"])
    assert list(shown.lines("state", full)) == ["12:00:00  m000  trouble: the disk is full"]
    assert list(shown.lines("state", full)) == []


@pytest.mark.parametrize("width", [40, 80, 120])
def test_lines_fit_the_width_whatever_they_say(width: int) -> None:
    shown = LiveView(width, UTC)
    name = "a-machine-with-a-name-of-64-letters".ljust(64, "x")
    shown.expect([name])
    told = [
        *shown.lines("score", score(name, 1.234567)),
        *shown.lines("state", state(name, "mic_lost", "no sound for 2 s " * 20)),
        *shown.lines("alert", alert(name, "open", "Knocks unevenly, about twice a second " * 6)),
        *shown.note("fan: the simulated fan runs faster than real time " * 5),
    ]
    assert all(len(line) <= width for line in told), [line for line in told if len(line) > width]
    assert not any(CONTROL.search(line) for line in told)
    assert "".join(told).count("Knocks") == 6, "wrapped, not cut"


def test_of_many_machines_the_ordinary_is_summed_up_now_and_then() -> None:
    shown = view(80, machines=200)
    lines: list[str] = []
    for number in range(200):
        machine = f"m{number:03}"
        lines += shown.lines("state", state(machine, "starting"))
        lines += shown.lines("state", state(machine, "normal"))
    assert lines == []
    lines += shown.lines("state", state("m007", "mic_lost", "unplugged"))
    assert lines == ["12:00:00  m007  mic_lost: unplugged"]
    assert list(shown.lines("score", score("m001", 0.5))) == []
    said = list(shown.lines("score", score("m002", 2.0)))
    assert "2 of 1.25  anomalous" in said[0]
    assert " ".join(" ".join(said[1:]).split()) == (
        "12:00:00 200 machines: 199 normal, 1 mic_lost (m007); highest m002 2 of 1.25"
    )
    back = list(shown.lines("state", state("m007", "normal")))
    assert back == ["12:00:00  m007  normal"], "what was out of the ordinary and is not any more is said too"
