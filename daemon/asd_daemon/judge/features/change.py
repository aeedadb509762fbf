"""A change of a sound that has a name: its kind and its figures.

Owns the terms in which rules, payloads and words speak of a change. It finds none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ChangeKind(StrEnum):
    """Kinds of change, the most specific first: what the former ones explain, the latter need not say again."""

    FASTER = "faster"
    SLOWER = "slower"
    STROKES = "strokes"
    """Strokes that came at even times come late, doubled or not at all."""
    DULLER = "duller"
    """Softer above a frequency."""
    KNOCKS = "knocks"
    HISS = "hiss"
    """A rush above a frequency, louder than usual."""
    PULSING = "pulsing"
    """Louder and softer, evenly."""
    TONE = "tone"
    LOUDER = "louder"
    SOFTER = "softer"


@dataclass(frozen=True)
class Change:
    """One change; what is None has no meaning for its kind or isn't known."""

    kind: ChangeKind
    strength: float
    """1 and more is worth saying."""
    db: float | None = None
    """By how much it is louder (softer, for what is softer or duller) than usual."""
    rate_hz: float | None = None
    """Times a second: of knocks, of pulsing, of a hiss that pulses, of strokes where they are usual."""
    even: bool = False
    """Whether that rate is even, as of what turns; else it is a count."""
    swell_hz: float | None = None
    """How often a second knocks become stronger and weaker."""
    from_hz: float | None = None
    to_hz: float | None = None
    """Where it is heard, in frequency."""
    tone_hz: float | None = None
    multiple: int | None = None
    """The tone is this multiple of `rate_hz`."""
    percent: float | None = None
    """By how much it is faster or slower."""

    @property
    def certainty(self) -> float:
        """How clearly it stands out, 0 to 1; 0.5 is the least that is said."""
        return round(self.strength / (1 + self.strength), 2)
