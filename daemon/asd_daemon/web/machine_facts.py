"""What is known of a machine, in plain words: when an alert opens, where its limit comes from, what was learned and how good that is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asd_daemon.web.places import ENROLLED, RECORD
from asd_daemon.web.words import count_words

_MOST_RECORD_BYTES = 2**20
_STEADY_DRIFT = (
    1.3  # later windows of the enrolment lie so many times farther from the earlier ones than these from each other
)
_FAINT_DBFS, _FEW_WINDOWS = -75.0, 60
_CANNOT_HEAR = ("room", "too_quiet", "gate", "wind")
_PLACES = {
    "room": "The microphone heard only noise as of a room: no tone and no rhythm. Bring it nearer to the machine, and learn it anew.",
    "too_quiet": "It was very soft at the microphone: bring that much nearer, or turn its gain up, and learn it anew.",
    "gate": "Sound was cut off between louder moments: turn off the microphone's noise suppression, and learn it anew.",
    "wind": "Wind or touches drowned the machine: fix the microphone firmly out of the draught, and learn it anew.",
    "soft": "It was soft at the microphone: nearer is better.",
    "loud": "It was near the end of the scale: a failing machine is louder; turn the gain down a little.",
    "hum": "Most of it was hum at the mains' frequency: of the machine, or of the cable? Listen with the machine off.",
}


@dataclass(frozen=True)
class Learned:
    """From what a machine was learned on this box."""

    created: str
    windows: int
    source: str
    microphone: str | None
    level_dbfs: tuple[float, float, float]
    drift: float
    states: tuple[str, ...]
    place: tuple[str, ...] = ()
    """What disturbed at the microphone's place, most of the time."""

    @property
    def verdict(self) -> tuple[str, str, tuple[str, ...]]:
        """How good that is in a word, how the word looks, and why with what would be better."""
        bad = [_PLACES[kind] for kind in self.place if kind in _CANNOT_HEAR]
        if self.level_dbfs[1] < _FAINT_DBFS and not bad:
            bad.append(_PLACES["too_quiet"])
        if bad:
            return "Can't hear this machine", "bad", tuple(bad)
        fair = [_PLACES[kind] for kind in self.place if kind in _PLACES]
        if self.windows < _FEW_WINDOWS:
            fair.append(
                f"It was learned from {count_words(self.windows, 'window')} of 10 s only: let it hear more with “Add to what is known”."
            )
        if self.drift > _STEADY_DRIFT:
            fair.append(
                "It did not sound the same from beginning to end: learn it again over a longer time, a day or more."
            )
        if fair:
            return "Fair", "doubt", tuple(fair)
        return "Good", "good", ("Enough windows, a good level, and it sounded the same throughout.",)


def read_learned(folders: Sequence[Path], machine: str) -> Learned | None:
    """What the daemons' folders say of it; None where it was not learned on this box, or that can't be read.

    Args:
        folders: state folders.
        machine: a name that is known, never one that a browser has made up.
    """
    for folder in folders:
        try:
            content = (folder / ENROLLED / machine / RECORD).read_bytes()
            record = json.loads(content) if len(content) <= _MOST_RECORD_BYTES else {}
            low, middle, high = map(float, record["level_dbfs"])
            states = [str(state) for state in record.get("window_states") or ()]
            return Learned(
                str(record["created"]),
                int(record["windows"]),
                str(record["source"]),
                record.get("microphone"),
                (low, middle, high),
                float(record["drift"]),
                tuple(dict.fromkeys(states)),
                tuple(str(kind) for kind in record.get("place") or ()),
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def rule_words(rule: Mapping[str, Any] | None) -> str:
    """When an alert opens and closes."""
    if rule is None:
        return "not known while nobody listens"
    opens = (
        f"{rule['open_after']} of {rule['of']} windows in a row lie above the limit"
        if rule["of"] > 1
        else "a window lies above the limit"
    )
    return f"opens when {opens}, closes after {rule['close_after']} quiet ones"


def limit_words(calibration: Mapping[str, Any] | None) -> str:
    """Where the limit comes from."""
    if calibration is None:
        return "no window has been judged yet"
    state, windows, days = calibration["state"], calibration["windows"], calibration["days"]
    if state == "fixed":
        return "set by hand, nothing moves it"
    learned = (
        f"from {count_words(windows, 'window')} on {count_words(days, 'day')}"
        if windows
        else "from its enrolment alone"
    )
    certainty = {"provisional": "still provisional", "calibrated": "calibrated"}.get(state, str(state))
    return f"{certainty}, {learned}"
