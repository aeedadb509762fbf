"""The tables attributes_<section>.csv of machines: what their clips were recorded under.

Owns their form, and what is told of a table that is of no use. Which clips they are asked for, `listing` says.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from asd_daemon.sound_file import SOUND_SUFFIXES
from asd_trainer.data.clip import Clip, Problem
from asd_trainer.data.naming import Attributes, hides_attributes, looks_like_dcase, table_attributes

_NAME = re.compile(r"attributes_(?P<section>\d+)\.csv")
_DELIMITERS = ",;\t"  # as published, and as spreadsheets save it


class AttributeTables:
    """The tables of many machines, each read once."""

    def __init__(self) -> None:
        self._rows: dict[Path, dict[str, Attributes]] = {}
        self._unreadable: dict[Path, str] = {}
        self._machines: dict[Path, dict[str, Attributes]] = {}

    def of(self, machine: Path) -> dict[str, Attributes]:
        """Attributes by bare file name of all tables in a machine's folder."""
        if machine not in self._machines:
            found: dict[str, Attributes] = {}
            for path in _tables(machine):
                try:
                    self._rows[path] = attribute_rows(path)
                except (OSError, UnicodeDecodeError, csv.Error) as e:
                    self._unreadable[path] = f"can't be read as csv: {e}"
                found |= self._rows.get(path, {})
            self._machines[machine] = found
        return self._machines[machine]

    def problems(self, clips: Sequence[Clip]) -> Iterator[Problem]:
        """Tables that can't be read, those of which no row is a clip's, and those that leave training clips without a row."""
        for path, why in self._unreadable.items():
            yield Problem(path, why)
        machines: dict[Path, list[Clip]] = {machine: [] for machine in self._machines}
        for clip in clips:
            machines.get(clip.path.parent.parent, []).append(clip)
        for path, rows in self._rows.items():
            what = _useless(path, rows, machines[path.parent])
            if what:
                yield Problem(path, what, used=True)


def _useless(path: Path, rows: dict[str, Attributes], clips: Sequence[Clip]) -> str:
    """What is wrong with a table for the clips of its machine; empty where nothing is."""
    section = _NAME.fullmatch(path.name)
    own = [clip for clip in clips if section and clip.section == section["section"]]
    if own and rows and not any(clip.path.stem in rows for clip in own):
        first = f"the first of its {len(rows)} names {next(iter(rows))!r}"
        return f"no row names a clip of {path.parent.name}, {first}: it gives no attributes"
    silent = [
        clip.path.name
        for clip in own
        if clip.split == "train"
        and clip.path.stem not in rows
        and not clip.attributes
        and not hides_attributes(clip.path.stem)
    ]
    if silent:
        return f"has no row for {len(silent)} training clip(s), first {silent[0]}: they are without attributes"
    return ""


def attribute_rows(path: Path) -> dict[str, Attributes]:
    """Attributes by bare file name: the first column may have a path and a suffix, or neither; the others are names and values in turns.

    A first line that names no clip is the head.

    Raises:
        OSError, UnicodeDecodeError, csv.Error: the file can't be read, is no text or no table.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        delimiter = max(_DELIMITERS, key=file.readline().count)
        file.seek(0)
        rows = [row for row in csv.reader(file, delimiter=delimiter) if row]
    has_head = bool(rows) and not looks_like_dcase(_bare_stem(rows[0][0]))
    return {_bare_stem(row[0]): table_attributes(row[1:]) for row in rows[has_head:]}


def _tables(machine: Path) -> list[Path]:
    """The tables in a folder; none where it can't be listed, which is told by who walks it."""
    try:
        return [machine / name for name in sorted(os.listdir(machine)) if _NAME.fullmatch(name)]
    except OSError:
        return []


def _bare_stem(cell: str) -> str:
    name = re.split(r"[/\\]", cell.strip())[-1]
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in SOUND_SUFFIXES else name
