"""One recording of a data set, and what is said of a file that can't be one.

Owns the words that the rest of the trainer uses for clips. It finds none and reads none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from asd_trainer.data.naming import Attributes, Domain, Label, Split, Supplement


class MachineSection(NamedTuple):
    """What has normal sound of its own: one section of a machine in one year's data. Machines of one name in two years are two."""

    machine: str
    year: int
    """0 where no year is known."""
    section: str


@dataclass(frozen=True, slots=True)
class Shard:
    """A Parquet file that holds the sound of many clips."""

    url: str
    """A path, or an address that fsspec opens."""
    size_bytes: int
    sha256: str
    simulated: bool = False
    """Its clips are of simulated machines."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording."""

    path: Path
    """Its file; of a clip in a shard its own path below the shard's, where there is no file: `sound.py` opens both."""
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
    shard: Shard | None = None
    """Where its sound is, if it has no file of its own."""
    row: int = 0
    """Of the shard."""

    @property
    def unit(self) -> MachineSection:
        """What its scores are compared within."""
        return MachineSection(self.machine, self.year or 0, self.section)

    def at(self, path: Path) -> Clip:
        """What is said of it, of another file, which is no part of a shard."""
        return replace(self, path=path, shard=None, row=0)


@dataclass(frozen=True)
class Problem:
    """A file or folder that can't be used, or not as it is."""

    path: Path
    reason: str
    used: bool = False
    """Its clips are used all the same."""


def unit_words(
    unit: MachineSection, among: Iterable[MachineSection], section_word: str = "section "
) -> tuple[str, ...]:
    """The machine, with the year and the section where others of its name differ in them."""
    of_machine = [other for other in among if other.machine == unit.machine]
    words = [unit.machine]
    if len({other.year for other in of_machine}) > 1:
        words.append(str(unit.year or "other"))
    if len({other.section for other in of_machine}) > 1:
        words.append(f"{section_word}{unit.section}")
    return tuple(words)
