"""How figures are written where people read them: scores in sensible digits, counts with their noun."""

from __future__ import annotations

import math

_DIGITS, _MOST_DECIMALS = 4, 12


def score_text(score: float, beside: float = 0.0) -> str:
    """A score with four digits that count, never with an exponent.

    Args:
        score: a score or a threshold.
        beside: the threshold that it is read with: digits that are nothing beside that are left out.
    """
    largest = max(abs(score), abs(beside))
    if not math.isfinite(largest):
        return str(score)
    digits_before = math.floor(math.log10(largest)) + 1 if largest else 1
    decimals = min(max(_DIGITS - digits_before, 0), _MOST_DECIMALS)
    text = f"{score:.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def score_of(score: float, threshold: float) -> str:
    """A score and the threshold that it is compared with: 0.9468 of 1.367."""
    return f"{score_text(score, threshold)} of {score_text(threshold)}"


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """A number and what it counts: 0 alerts, 1 alert, 2 alerts.

    Args:
        count: how many.
        noun: of one.
        nouns: of several, where that is not the noun with an s.
    """
    return f"{count} {noun if count == 1 else nouns or f'{noun}s'}"


def times_words(count: int) -> str:
    """How often: once, twice, 3 times."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
