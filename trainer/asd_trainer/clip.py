"""One recording of a data set, and what is said of a file that can't be one.

Owns the words that the rest of the trainer uses for clips. It finds none and reads none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asd_trainer.naming import Attributes, Domain, Label, Split, Supplement


@dataclass(frozen=True)
class Clip:
    """One recording."""

    path: Path
    machine: str
    section: str
    """Number as in the name ("00"); the machine's id in 2020."""
    split: Split
    domain: Domain | None
    """None where there are no domains (2020, plain recordings) or the name hides it."""
    label: Label | None
    """None where it is not known."""
    attributes: Attributes
    """Names and values as text, in the order of the name; empty where there are none or they are withheld."""
    supplement: Supplement | None
    """What a supplemental clip holds alone."""
    year: int | None


@dataclass(frozen=True)
class Problem:
    """A file or folder that can't be used."""

    path: Path
    reason: str
