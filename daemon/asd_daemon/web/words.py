"""States and spans of time in the words of people who look after machines."""

from __future__ import annotations

from datetime import UTC, datetime

STATES = {
    "starting": ("Starting", "wait"),
    "normal": ("Normal", "good"),
    "alert": ("Alert", "bad"),
    "learning": ("Learning", "wait"),
    "unusable": ("Can't judge", "doubt"),
    "unknown_state": ("Unknown state", "doubt"),
    "mic_lost": ("No sound", "doubt"),
    "wrong_device": ("Wrong microphone", "doubt"),
    "overloaded": ("Box too slow", "doubt"),
    "stopped": ("Stopped", "off"),
    "off": ("Off", "off"),
    "not_running": ("Not running", "off"),
}
"""The words for a state, and how it looks: good, bad, doubt, wait or off."""

LOOKS = ("bad", "doubt", "wait", "good", "off")
"""First what somebody should look at."""

OUTCOMES = {
    "open": ("Open", "bad"),
    "normal": ("Quiet again", "good"),
    "unknown": ("Ended unknown", "doubt"),
    "accepted": ("Called normal", "good"),
}


def state_words(state: str) -> tuple[str, str]:
    """The words for a state, and how it looks; a state of a later version is shown by its own name."""
    return STATES.get(state, (state.replace("_", " ").capitalize(), "doubt"))


def of_limit(score: float | None, threshold: float | None) -> str | None:
    """A score as a share of the threshold; None where either is not known."""
    if score is None or not threshold:
        return None
    return f"{100 * score / threshold:.0f} % of the limit"


def span_words(seconds: float) -> str:
    """40 s, 12 min, 3 h 20 min, 5 days."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
    return f"{round(minutes / 1440)} days"


def count_words(number: int, what: str) -> str:
    """1 window, 2 windows."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def iso(unix_ms: int) -> str:
    """UTC time for a `<time>`."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def utc(unix_ms: int) -> str:
    """UTC time for people, until the browser shows it in theirs."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%d %b %Y %H:%M UTC")
