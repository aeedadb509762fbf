"""What is said of a machine in plain words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asd_daemon.web.machine_facts import limit_words, read_learned, rule_words
from asd_daemon.web.words import LOOKS, STATES, count_words

RECORD = {
    "created": "2026-05-03T12:00:00Z", "windows": 120, "source": "device:default", "microphone": "usb-id:1:2",
    "level_dbfs": [-33, -30, -28], "drift": 1.05, "window_states": ["running", "running", "idle"],
}  # fmt: skip


def learned(folder: Path, **other: object) -> str:
    home = folder / "enrolled" / "fan"
    home.mkdir(parents=True, exist_ok=True)
    (home / "enrolled.json").write_text(json.dumps({**RECORD, **other}))
    found = read_learned([folder / "none", folder], "fan")
    assert found is not None
    assert (found.windows, found.states) == ({**RECORD, **other}["windows"], ("running", "idle"))
    word, _, why = found.verdict
    return f"{word}: {' '.join(why)}"


def test_an_enrolment_is_good_or_says_what_would_make_it_so(tmp_path: Path) -> None:
    assert learned(tmp_path).startswith("Good: ")
    assert learned(tmp_path, place=["good_of_a_later_version"]).startswith("Good: ")
    assert "24 windows of 10 s only" in learned(tmp_path, windows=24)
    assert "a day or more" in learned(tmp_path, drift=1.6)
    assert learned(tmp_path, place=["soft", "hum"]).startswith("Fair: It was soft")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"level_dbfs": [-85, -80, -76]}, "very soft at the microphone"),
        ({"place": ["room"]}, "no tone and no rhythm"),
        ({"place": ["gate"]}, "noise suppression"),
        ({"place": ["wind", "hum"], "windows": 30}, "Wind or touches"),
    ],
)
def test_a_machine_that_was_not_heard_is_told_as_that_with_advice(
    tmp_path: Path, what: dict[str, object], words: str
) -> None:
    said = learned(tmp_path, **what)
    assert said.startswith("Can't hear this machine: ")
    assert words in said


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"level_dbfs": [1]}', '{"level_dbfs": ["a", "b", "c"]}'])
def test_a_record_that_can_t_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "enrolled" / "fan").mkdir(parents=True)
    (tmp_path / "enrolled" / "fan" / "enrolled.json").write_text(text)
    assert read_learned([tmp_path], "fan") is None


def test_rules_and_limits_are_said_in_words() -> None:
    assert rule_words({"open_after": 2, "of": 3, "close_after": 6}) == (
        "opens when 2 of 3 windows in a row lie above the limit, closes after 6 quiet ones"
    )
    assert rule_words({"open_after": 1, "of": 1, "close_after": 6}).startswith("opens when a window lies above")
    assert limit_words({"state": "fixed", "windows": 0, "days": 0}) == "set by hand, nothing moves it"
    assert (
        limit_words({"state": "provisional", "windows": 0, "days": 0}) == "still provisional, from its enrolment alone"
    )
    assert limit_words({"state": "calibrated", "windows": 9000, "days": 1}) == "calibrated, from 9000 windows on 1 day"


def test_every_look_of_a_state_has_its_place_in_the_order() -> None:
    assert {look for _, look in STATES.values()} <= set(LOOKS)
    assert LOOKS[0] == STATES["alert"][1]


def test_one_is_one_and_others_are_many() -> None:
    assert [count_words(n, "window") for n in (0, 1, 2)] == ["0 windows", "1 window", "2 windows"]
