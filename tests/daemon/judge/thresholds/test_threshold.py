"""What people are told of a threshold."""

from __future__ import annotations

import pytest

from asd_daemon.judge.thresholds.threshold import Threshold


@pytest.mark.parametrize(
    ("threshold", "words"),
    [
        (Threshold(1.8, "fixed"), "fixed by alarm.threshold"),
        (Threshold(1.8, "provisional"), "provisional, by enrolment alone"),
        (Threshold(1.8, "provisional", 8640, 1), "provisional, from 8640 windows on 1 day"),
        (
            Threshold(1.8, "provisional", 9000, 3, 1.5, "limit"),
            "provisional, from 9000 windows on 3 days; it would be 1.5 but does not fall before it is calibrated",
        ),
        (
            Threshold(1.8, "calibrated", 90_000, 9, 2.5, "limit"),
            "calibrated, from 90000 windows on 9 days; it would be 2.5 but goes no farther from the enrolled one",
        ),
        (
            Threshold(1.8, "calibrated", 90_000, 9, 2.5, "drift"),
            "calibrated, from 90000 windows on 9 days; it would be 2.5 but does not rise while scores have drifted",
        ),
    ],
)
def test_words_say_from_what_it_is_and_what_holds_it(threshold: Threshold, words: str) -> None:
    assert threshold.words == words
