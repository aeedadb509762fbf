"""What has changed in a machine's sound, in one plain sentence for whoever stands before the machine.

Owns the wording. What has changed is found by `sound_changes`; nothing here decides it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from asd_daemon.judge.features.change import Change, ChangeKind

MOST_CHARACTERS = 140
NOTHING_NAMED = "Sounds different, in no way that has a name"


def change_text(changes: Sequence[Change]) -> str:
    """All changes, the most telling first, as long as they fit into 140 characters."""
    if not changes:
        return NOTHING_NAMED
    text = _phrase(changes[0])
    for change in changes[1:]:
        longer = f"{text}; {_phrase(change)}"
        if len(longer) > MOST_CHARACTERS:
            break
        text = longer
    return text[0].upper() + text[1:]


def _phrase(change: Change) -> str:
    """One change; at most 110 characters."""
    return _PHRASES[change.kind](change)


def _knocks(change: Change) -> str:
    swelling = f", stronger and weaker {_times(change.swell_hz)}" if change.swell_hz else ""
    if change.even:
        return f"knocks {_times(change.rate_hz)}{swelling}, {_where(change)}"
    return f"knocks unevenly, about {_times(change.rate_hz)}, {_where(change)}"


def _hiss(change: Change) -> str:
    pulsing = f", pulsing {_times(change.rate_hz)}" if change.rate_hz else ""
    return f"hisses {_where(change)}, {_db(change)} louder than usual{pulsing}"


def _strokes(change: Change) -> str:
    usually = f" (usually one every {1 / change.rate_hz:.1f} s)" if change.rate_hz else ""
    return f"strokes come late, doubled or not at all{usually}"


def _level(change: Change) -> str:
    where = f" {_where(change)}" if change.from_hz is not None else ""
    return f"{_db(change)} {change.kind.value} than usual{where}"


def _tone(change: Change) -> str:
    times = "" if change.multiple == 1 else f"{change.multiple} times "
    multiple = f", {times}the rate of {change.rate_hz:g} a second" if change.multiple else ""
    return f"a new tone at {change.tone_hz or 0:.0f} Hz{multiple}"


def _times(rate_hz: float | None) -> str:
    return f"{rate_hz:g} times a second" if rate_hz else "again and again"


def _where(change: Change) -> str:
    if change.to_hz is None:
        return f"above {change.from_hz or 0:.0f} Hz"
    return f"from {change.from_hz or 0:.0f} to {change.to_hz:.0f} Hz"


def _db(change: Change) -> str:
    return f"{change.db or 0:.0f} dB"


_PHRASES: Mapping[ChangeKind, Callable[[Change], str]] = {
    ChangeKind.FASTER: lambda change: f"runs {change.percent or 0:g} % faster",
    ChangeKind.SLOWER: lambda change: f"runs {change.percent or 0:g} % slower",
    ChangeKind.STROKES: _strokes,
    ChangeKind.DULLER: lambda change: f"duller {_where(change)}, {_db(change)} softer than usual",
    ChangeKind.KNOCKS: _knocks,
    ChangeKind.HISS: _hiss,
    ChangeKind.PULSING: lambda change: f"gets louder and softer {_times(change.rate_hz)}",
    ChangeKind.TONE: _tone,
    ChangeKind.LOUDER: _level,
    ChangeKind.SOFTER: _level,
}
