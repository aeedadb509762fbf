"""How far a bundle that a server offers has come on this box, in words for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asd_daemon.web.words import count_words

BADGES = {
    "idle": ("Nothing new", "good"),
    "fetching": ("Being fetched", "wait"),
    "untried": ("Not tried yet", "doubt"),
    "trial": ("In trial", "wait"),
    "waiting": ("Waits", "wait"),
    "installed": ("Installed", "good"),
    "refused": ("Stays out", "bad"),
    "returned": ("Given up", "bad"),
}
UNREACHED = ("Not reached", "doubt")


@dataclass(frozen=True)
class RolloutWords:
    """What the page says."""

    badge: str
    look: str
    """How the badge looks: good, bad, doubt, wait or off."""
    now: str
    """What happens, a sentence or two."""
    follows: str
    """Channel and ring."""
    checked_at: str | None
    """ISO 8601; None where no answer has come yet."""
    asks: bool
    """Whether the server is being asked at this moment."""
    judges: str
    """Whom the bundle judges."""


def rollout_words(facts: Mapping[str, Any], machines: int) -> RolloutWords:
    """What is said of a rollout.

    Args:
        facts: as the daemon gives them (`asd_daemon.rollout.account`).
        machines: how many the daemon hears.
    """
    phase, offered = str(facts["phase"]), facts["offered"]
    badge, look = BADGES.get(phase, (phase.replace("_", " ").capitalize(), "doubt"))
    if facts["failures"] and phase in ("idle", "fetching"):
        badge, look = UNREACHED
    ring = facts["ring"] or "by the name of this box"
    return RolloutWords(
        badge,
        look,
        _now(phase, offered or "A bundle", facts),
        f"channel {facts['channel']}, ring {ring}",
        facts["checked_at"],
        bool(facts["is_asking"]),
        _judges(facts["judges"], machines),
    )


def _now(phase: str, offered: str, facts: Mapping[str, Any]) -> str:
    reason, failures = facts["reason"], facts["failures"]
    if failures and phase in ("idle", "fetching"):
        why = reason or "the log says why"
        return (
            f"The server did not answer as it should {_times(failures)}: {why}. It is asked again, less and less often."
        )
    if phase == "fetching":
        percent = facts["percent"]
        return f"{offered} is being fetched{'' if percent is None else f': {percent} % is here'}."
    if phase == "trial" and facts["trial"] is not None:
        pauses = f" It pauses: {reason}." if reason and not reason.startswith("beside") else ""
        return _trial(offered, facts["trial"]) + pauses
    if phase == "installed" and reason:
        return f"{offered} was installed: {reason}."
    if phase == "installed":
        watched = " For its first six hours it is watched, and given up if it is worse." if facts["is_watched"] else ""
        return f"{offered} was installed and judges.{watched}"
    words = {
        "idle": f"Nothing new for this box: {reason}." if reason else "Nothing new is offered.",
        "untried": f"{offered} is here. The box was too busy to test it, which says nothing of the bundle: {reason}.",
        "trial": f"{offered} is tried beside the present one.",
        "waiting": f"{offered} has passed its trial, and waits {reason}.",
        "refused": f"{offered} is not used: {reason or 'it was refused before'}.",
        "returned": f"{offered} judged for a while and was given up: {reason}. The one before it judges again.",
    }
    return words.get(phase, f"{offered}: {phase}{f', {reason}' if reason else ''}.")


def _trial(offered: str, trial: Mapping[str, Any]) -> str:
    past, whole = long_span(trial["seconds"]), long_span(trial["of_s"])
    left_out = f" {count_words(trial['left_out'], 'window')} were left out." if trial["left_out"] else ""
    return (
        f"{offered} judges beside the present one, for {past} of {whole}, without telling anybody. False alarms: {trial['new']} of it,"
        f" {trial['present']} of the present one, in {count_words(trial['windows'], 'window')}.{left_out}"
    )


def _judges(names: list[str], machines: int) -> str:
    """Whom the bundle judges, and that the others need none."""
    others = machines - len(names)
    if not names:
        return "no machine: all were learned here, and are judged alike with every bundle"
    rest = f"; {count_words(others, 'other machine')} learned here, whatever the bundle" if others > 0 else ""
    return ", ".join(names) + rest


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times in a row"


def long_span(seconds: float) -> str:
    """2 d 3 h, 3 d, 5 h 20 min, 12 min, 40 s."""
    minutes, rest_s = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest_s, "s")]
    first = next((n for n, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number) or "0 s"
