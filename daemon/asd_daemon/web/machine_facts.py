"""What is known of a machine, in plain words: when an alert opens, where its limit comes from, what was learned and how good that is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asd_daemon.web.places import ENROLLED

_MOST_RECORD_BYTES = 2**20
_STEADY_DRIFT = (
    1.3  # later windows of the enrolment lie so many times farther from the earlier ones than these from each other
)


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

    @property
    def advice(self) -> str:
        """How good that was, and what would be better."""
        if self.windows < 60:
            return f"From {self.windows} windows, ten minutes or less: learn it again for 20 minutes or more."
        if self.level_dbfs[1] < -70:
            return "It is very soft at the microphone: place that nearer, and learn it again."
        if self.drift > _STEADY_DRIFT:
            return "It did not sound the same from beginning to end: learn it again over a longer time, with --over."
        return "Good: enough windows, a good level, and it sounded the same throughout."


def read_learned(folders: Sequence[Path], machine: str) -> Learned | None:
    """What the daemons' folders say of it; None where it was not learned on this box, or that can't be read.

    Args:
        folders: state folders.
        machine: a name that is known, never one that a browser has made up.
    """
    for folder in folders:
        try:
            content = (folder / ENROLLED / machine / "enrolled.json").read_bytes()
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
        f"from {windows} windows on {days} day{'' if days == 1 else 's'}" if windows else "from its enrolment alone"
    )
    certainty = {"provisional": "still provisional", "calibrated": "calibrated"}.get(state, str(state))
    return f"{certainty}, {learned}"
