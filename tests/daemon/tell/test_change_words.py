"""One sentence for each kind of change."""

from __future__ import annotations

import pytest

from asd_daemon.judge.features.change import Change, ChangeKind
from asd_daemon.tell.change_words import MOST_CHARACTERS, NOTHING_NAMED, change_text

SENTENCES = {
    Change(ChangeKind.KNOCKS, 3.0, 6.1, 83.1, True, 14.0, 3000, 6200): (
        "Knocks 83.1 times a second, stronger and weaker 14 times a second, from 3000 to 6200 Hz"
    ),
    Change(ChangeKind.KNOCKS, 3.0, 6.1, 1.4, False, None, 600, 1400): (
        "Knocks unevenly, about 1.4 times a second, from 600 to 1400 Hz"
    ),
    Change(ChangeKind.HISS, 3.0, 6.4, from_hz=2540): "Hisses above 2540 Hz, 6 dB louder than usual",
    Change(ChangeKind.HISS, 3.0, 6.4, 22.1, True, from_hz=1008, to_hz=2540): (
        "Hisses from 1008 to 2540 Hz, 6 dB louder than usual, pulsing 22.1 times a second"
    ),
    Change(ChangeKind.PULSING, 3.0, rate_hz=22.1, even=True): "Gets louder and softer 22.1 times a second",
    Change(ChangeKind.TONE, 3.0, 12.0, tone_hz=234.4): "A new tone at 234 Hz",
    Change(ChangeKind.TONE, 3.0, 12.0, 22.1, tone_hz=66.3, multiple=3): (
        "A new tone at 66 Hz, 3 times the rate of 22.1 a second"
    ),
    Change(
        ChangeKind.TONE, 3.0, 12.0, 22.1, tone_hz=22.1, multiple=1
    ): "A new tone at 22 Hz, the rate of 22.1 a second",
    Change(ChangeKind.DULLER, 3.0, 8.2, from_hz=2540): "Duller above 2540 Hz, 8 dB softer than usual",
    Change(ChangeKind.STROKES, 3.0, rate_hz=0.55): "Strokes come late, doubled or not at all (usually one every 1.8 s)",
    Change(ChangeKind.FASTER, 3.0, percent=5.1): "Runs 5.1 % faster",
    Change(ChangeKind.SLOWER, 3.0, percent=12.0): "Runs 12 % slower",
    Change(ChangeKind.LOUDER, 3.0, 5.9, from_hz=100, to_hz=317): "6 dB louder than usual from 100 to 317 Hz",
    Change(ChangeKind.SOFTER, 3.0, 4.0): "4 dB softer than usual",
}


@pytest.mark.parametrize(("change", "sentence"), SENTENCES.items(), ids=lambda value: getattr(value, "kind", ""))
def test_each_kind_has_its_sentence(change: Change, sentence: str) -> None:
    assert change_text([change]) == sentence


def test_every_kind_is_said() -> None:
    assert {change.kind for change in SENTENCES} == set(ChangeKind)


def test_several_changes_are_one_sentence_that_fits() -> None:
    longest = change_text(list(SENTENCES))
    assert len(longest) <= MOST_CHARACTERS
    tone = Change(ChangeKind.TONE, 3.0, 12.0, tone_hz=234.4)
    pulsing = Change(ChangeKind.PULSING, 3.0, rate_hz=22.1, even=True)
    assert change_text([pulsing, tone]) == "Gets louder and softer 22.1 times a second; a new tone at 234 Hz"


def test_change_without_a_name_is_said_to_have_none() -> None:
    assert change_text([]) == NOTHING_NAMED
