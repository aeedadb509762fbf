"""What the System page says of a rollout."""

from __future__ import annotations

from typing import Any

import pytest

from asd_daemon.rollout.rollout_state import Phase
from asd_daemon.web.rollout_words import BADGES, long_span, rollout_words
from rig.page import ROLLOUT_FACTS


def said(**changes: object) -> tuple[str, str]:
    words = rollout_words({**ROLLOUT_FACTS, **changes}, 1)
    return words.badge, words.now


def test_every_phase_has_a_badge() -> None:
    assert set(BADGES) == {phase.value for phase in Phase}


@pytest.mark.parametrize(
    ("changes", "badge", "now"),
    [
        ({}, "Nothing new", "Nothing new is offered."),
        ({"reason": "ring plant waits"}, "Nothing new", "Nothing new for this box: ring plant waits."),
        ({"phase": "fetching", "percent": 43}, "Being fetched", "plant 2 is being fetched: 43 % is here."),
        ({"phase": "fetching"}, "Being fetched", "plant 2 is being fetched."),
        (
            {"phase": "waiting", "reason": "for the window 02:00-04:00"},
            "Waits",
            "plant 2 has passed its trial, and waits for the window 02:00-04:00.",
        ),
        (
            {"phase": "untried", "reason": "its start: was killed; tried twice"},
            "Not tried yet",
            "plant 2 is here. The box was too busy to test it, which says nothing of the bundle: its start: was killed; tried twice.",
        ),
        ({"phase": "installed"}, "Installed", "plant 2 was installed and judges."),
        (
            {"phase": "installed", "reason": "the one before it judges still: could not be tried now"},
            "Installed",
            "plant 2 was installed: the one before it judges still: could not be tried now.",
        ),
        (
            {"phase": "refused", "reason": "it does not know fan"},
            "Stays out",
            "plant 2 is not used: it does not know fan.",
        ),
        (
            {"phase": "returned", "reason": "judging fails: fan: broken"},
            "Given up",
            "plant 2 judged for a while and was given up: judging fails: fan: broken. The one before it judges again.",
        ),
        (
            {"reason": "https://bundles.plant/asd: refused", "failures": 3},
            "Not reached",
            "The server did not answer as it should 3 times in a row: https://bundles.plant/asd: refused."
            " It is asked again, less and less often.",
        ),
    ],
)
def test_what_is_said_of_a_phase(changes: dict[str, Any], badge: str, now: str) -> None:
    assert said(**changes) == (badge, now)


def test_trial_says_its_time_and_the_false_alarms_of_both() -> None:
    trial = {"seconds": 183_600, "of_s": 259_200, "windows": 18_360, "left_out": 2, "present": 1, "new": 0}
    assert said(phase="trial", reason="beside the present one for 3d", trial=trial) == (
        "In trial",
        "plant 2 judges beside the present one, for 2 d 3 h of 3 d, without telling anybody. False alarms: 0 of it, 1 of the present"
        " one, in 18360 windows. 2 windows were left out.",
    )


def test_bundle_in_its_first_hours_is_watched() -> None:
    assert said(phase="installed", is_watched=True)[1].endswith("it is watched, and given up if it is worse.")


@pytest.mark.parametrize(
    ("judges", "machines", "words"),
    [
        (["fan"], 1, "fan"),
        (["fan", "pump"], 4, "fan, pump; 2 other machines learned here, whatever the bundle"),
        ([], 2, "no machine: all were learned here, and are judged alike with every bundle"),
    ],
)
def test_whom_the_bundle_judges(judges: list[str], machines: int, words: str) -> None:
    assert rollout_words({**ROLLOUT_FACTS, "judges": judges}, machines).judges == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(183_600, "2 d 3 h"), (259_200, "3 d"), (19_200, "5 h 20 min"), (59, "59 s"), (0, "0 s"), (86_460, "1 d")],
)
def test_long_spans(seconds: float, words: str) -> None:
    assert long_span(seconds) == words
