"""The published truth of evaluation test sets: which anonymous clip is which.

Owns the format of the challenge's lists (eval_data_list_<year>.csv): a line with a machine's name alone, then lines of an anonymous file
name, the name that it has with labels, and in some years the label as 0 or 1. Labels go to test clips only.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asd_daemon.errors import DataSetError
from asd_trainer.clip import Clip, Problem
from asd_trainer.dataset import ClipTable
from asd_trainer.naming import ClipName, Label, MisnamedError, parse_name

_LABELS: dict[str, Label] = {"0": "normal", "1": "anomaly", "normal": "normal", "anomaly": "anomaly"}


@dataclass(frozen=True)
class LabelList:
    """What a list says of each anonymous clip, by machine and bare file name, and the lines that can't be true."""

    path: Path
    names: Mapping[tuple[str, str], ClipName]
    problems: tuple[Problem, ...]


def read_label_list(path: Path) -> LabelList:
    """Read a list; lines that contradict themselves or each other are problems, and their clips get no label.

    Raises:
        DataSetError: the file can't be read, or is no such list.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise DataSetError(f"{path}: can't be read as a label list: {e}") from e
    machine = None
    names: dict[tuple[str, str], ClipName] = {}
    wrong: dict[tuple[str, str], str] = {}
    for number, row in enumerate(rows, start=1):
        cells = [cell for cell in row if cell]
        if len(cells) == 1:
            machine = cells[0]
        elif len(cells) > 1:
            if machine is None:
                raise DataSetError(f"{path}: line {number} comes before any machine's name; is this a list of labels?")
            key = (machine, _stem(cells[0]))
            try:
                name = _labelled(cells)
            except MisnamedError as e:
                wrong[key] = f"line {number}: {cells[1]}: {e}"
                continue
            if names.setdefault(key, name) != name:
                wrong[key] = f"line {number}: {machine} {cells[0]} is listed before as something else"
    if not names:
        reason = next(iter(wrong.values()), "it has no line of names")
        raise DataSetError(f"{path}: names no clip with its label; {reason}")
    sound = {key: name for key, name in names.items() if key not in wrong}
    return LabelList(path, sound, tuple(Problem(path, f"{reason}; the clip has no label") for reason in wrong.values()))


def with_labels(table: ClipTable, paths: Sequence[Path]) -> ClipTable:
    """The table with labels and domains of its anonymous test clips filled in from lists; what the lists do not cover is a problem.

    Raises:
        DataSetError: a list can't be read, fits no clip, or a name in it fits clips of several years.
    """
    clips = list(table.clips)
    problems = list(table.problems)
    for path in paths:
        listed = read_label_list(path)
        problems.extend(listed.problems)
        rows = [
            row
            for row, clip in enumerate(clips)
            if clip.split == "test" and clip.label is None and _key(clip) in listed.names
        ]
        if not rows:
            if any(clip.split == "test" and _key(clip) in listed.names for clip in clips):
                continue  # a list given twice
            raise DataSetError(
                f"{path}: none of its names is a test clip of this data; is it the list of another year?"
            )
        several = [key for key, count in Counter(_key(clips[row]) for row in rows).items() if count > 1]
        if several:
            machine, stem = several[0]
            raise DataSetError(f"{path}: {machine} {stem} fits several clips of the data; give the data of one year")
        for row in rows:
            clips[row] = _told(clips[row], listed.names[_key(clips[row])])
        machines = {machine for machine, _ in listed.names}
        without = [c for c in clips if c.split == "test" and c.label is None and c.machine in machines]
        if without:
            what = f"does not tell what {len(without)} of the machines' test clips are, first {without[0].path}"
            problems.append(Problem(path, what, used=True))
    return replace(table, clips=tuple(clips), problems=tuple(problems))


def _labelled(cells: Sequence[str]) -> ClipName:
    """What the labelled name says.

    Raises:
        MisnamedError: it follows no layout, has no label, or contradicts its line's label or section.
    """
    name = parse_name(_stem(cells[1]), "test")
    if name.label is None:
        raise MisnamedError("has no label in it")
    if len(cells) > 2 and cells[2].lower() in _LABELS and _LABELS[cells[2].lower()] != name.label:
        raise MisnamedError(f"the line's label is {cells[2]}")
    anonymous = parse_name(_stem(cells[0]), "test")
    if anonymous.section != name.section:
        raise MisnamedError(f"the anonymous clip {cells[0]} is of another section")
    if anonymous.domain is not None and anonymous.domain != name.domain:
        raise MisnamedError(f"the anonymous clip {cells[0]} is of another domain")
    return name


def _told(clip: Clip, name: ClipName) -> Clip:
    return replace(
        clip, label=name.label, domain=name.domain or clip.domain, attributes=name.attributes or clip.attributes
    )


def _key(clip: Clip) -> tuple[str, str]:
    return clip.machine, clip.path.stem


def _stem(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".wav")
