"""The published truth of evaluation test sets: which anonymous clip is which.

Owns the two forms in which the challenge publishes it. Labels go to test clips only.

    list        eval_data_list_<year>.csv: a line with a machine's name alone, then lines of an anonymous file name, the name that it has
                with labels, and in some years the label as 0 or 1
    evaluator   the folder of a year's official evaluator: ground_truth_data/ground_truth_<machine>_section_<number>_test.csv with lines
                of a file name and 1 for an anomaly; ground_truth_domain/ with the same names and 1 for the target domain. In 2021 the
                domain is part of the file's name: …_section_<number>_<domain>_test.csv

Where they disagree (half of ToyCar's labels of 2022) the evaluator's is what official figures were computed with.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from asd_daemon.errors import DataSetError
from asd_trainer.data.clip import Clip, Problem
from asd_trainer.data.dataset import ClipTable
from asd_trainer.data.naming import ClipName, Domain, Label, MisnamedError, parse_name

Word = TypeVar("Word", Label, Domain)

_LABELS: dict[str, Label] = {"0": "normal", "1": "anomaly", "normal": "normal", "anomaly": "anomaly"}
_DOMAINS: dict[str, Domain] = {"0": "source", "1": "target"}
TRUTH, DOMAINS = "ground_truth_data", "ground_truth_domain"
_TRUTH_FILE = re.compile(
    r"ground_truth_(?P<machine>[A-Za-z0-9]+)_section_(?P<section>\d+)(_(?P<domain>source|target))?_test\.csv"
)


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
    rows = _rows(path)
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


def read_ground_truth(folder: Path) -> LabelList:
    """Read what an official evaluator's folder says of each anonymous clip.

    Raises:
        DataSetError: it is no such folder, a file in it can't be read, or says neither 0 nor 1 of a clip.
    """
    names: dict[tuple[str, str], ClipName] = {}
    problems: list[Problem] = []
    for path in sorted((folder / TRUTH).glob("*.csv")):
        said = _TRUTH_FILE.fullmatch(path.name)
        if said is None:
            continue
        labels = dict(_verdicts(path, _LABELS))
        beside = folder / DOMAINS / path.name
        domains = dict(_verdicts(beside, _DOMAINS)) if said["domain"] is None and beside.exists() else {}
        own: Domain | None = None if said["domain"] is None else "target" if said["domain"] == "target" else "source"
        for stem, label in labels.items():
            names[said["machine"], stem] = ClipName(said["section"], domains.get(stem, own), label)
        if without := sorted(stem for stem in labels if own is None and stem not in domains):
            problems.append(
                Problem(beside, f"does not tell the domain of {len(without)} clips, first {without[0]}", used=True)
            )
    if not names:
        raise DataSetError(
            f"{folder}: holds no {TRUTH}/ground_truth_<machine>_section_<number>_test.csv; give the folder of the year's "
            "official evaluator, or a list"
        )
    return LabelList(folder, names, tuple(problems))


def _verdicts(path: Path, words: Mapping[str, Word]) -> Iterator[tuple[str, Word]]:
    """What each line of a file says of a clip: 0 or 1, maybe written as 0.0 or 1.0."""
    for number, row in enumerate(_rows(path), start=1):
        if not any(row):
            continue
        word = words.get(row[1].removesuffix(".0")) if len(row) > 1 else None
        if word is None:
            raise DataSetError(f"{path}: line {number} must be a file name and 0 or 1, not {','.join(row)!r}")
        yield _stem(row[0]), word


def _rows(path: Path) -> list[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise DataSetError(f"{path}: can't be read as a label list: {e}") from e


def with_labels(table: ClipTable, paths: Sequence[Path]) -> ClipTable:
    """The table with labels and domains of its anonymous test clips filled in from lists and evaluators' folders; what they do not
    cover is a problem.

    Raises:
        DataSetError: one of them can't be read, fits no clip, or a name in it fits clips of several years.
    """
    clips = list(table.clips)
    problems = list(table.problems)
    for path in paths:
        listed = read_ground_truth(path) if path.is_dir() else read_label_list(path)
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
