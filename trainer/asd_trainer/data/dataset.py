"""The clips of a data set: folders of recordings → one table.

Owns which files are clips, of what machine, split and condition; `naming` reads the names, `shards` what was written as shards. Two
layouts of folders are known:

    DCASE Task 2, 2020 to 2026   …/<machine>/{train,test,source_test,target_test,test_rename,supplemental}/*.wav, attributes_00.csv
    plain recordings             …/<machine>/*.wav                   normal sound to train on
                                 …/<machine>/normal/*.wav            to test with, and
                                 …/<machine>/{abnormal,anomaly}/*    to test with, anomalous

A folder with one of DCASE's sub-folders is a DCASE machine; where its train or test files follow no DCASE name at all, they are taken
for plain recordings. Any other folder that holds sound files, or a normal or anomaly sub-folder, is a plain machine. Above machines any
number of folders is allowed (dcase2025t2, dev_data, raw). Clips in test/ without labels give way to the same clips in test_rename/.

Attributes are what the file name says; attributes_<section>.csv answers where the name is silent, and is compared where it is not. Where a
name says that attributes are withheld (noAttribute) they are withheld: tables of the hidden truth (…_correspondence.csv) are never read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_daemon.judge.bundle.manifest import MACHINE_NAME
from asd_daemon.sound_file import printable
from asd_trainer.data.clip import Clip, MachineSection, Problem
from asd_trainer.data.listing import Listing
from asd_trainer.data.naming import Domain, Label, Split, Supplement
from asd_trainer.data.shard_index import holds_shards
from asd_trainer.data.shards import read_shards
from asd_trainer.data.sound import load_clip
from asd_trainer.data.storage import DataRoot

__all__ = [
    "Clip",
    "ClipTable",
    "MachineSection",
    "Problem",
    "class_labels",
    "load_clip",
    "read_dataset",
    "refuse_unfit_names",
    "training_clips",
]


@dataclass(frozen=True)
class ClipTable:
    """All clips, sorted by machine, split and path, and all that could not be used, or contradicts itself."""

    clips: tuple[Clip, ...]
    problems: tuple[Problem, ...] = ()

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)

    def __len__(self) -> int:
        return len(self.clips)

    @cached_property
    def machines(self) -> tuple[str, ...]:
        """Names of the machines, sorted."""
        return tuple(sorted({clip.machine for clip in self.clips}))

    def select(
        self,
        *,
        split: Split | None = None,
        machine: str | None = None,
        section: str | None = None,
        domain: Domain | None = None,
        label: Label | None = None,
        supplement: Supplement | None = None,
        year: int | None = None,
    ) -> tuple[Clip, ...]:
        """The clips for which everything that is given holds."""
        given: dict[str, object] = {"split": split, "machine": machine, "section": section, "domain": domain}
        given |= {"label": label, "supplement": supplement, "year": year}
        clips: Sequence[Clip] = self.clips
        for name, value in given.items():
            if value is not None:
                of = attrgetter(name)
                clips = [clip for clip in clips if of(clip) == value]
        return tuple(clips)

    def report(self) -> str:
        """Every problem on a line of its own, under headings; empty where there is none."""
        lines: list[str] = []
        for used, heading in (
            (False, "file(s) or folder(s) can't be used"),
            (True, "doubt(s); the clips are used"),
        ):
            reasons = [
                f"  {printable(problem.path)}: {problem.reason}" for problem in self.problems if problem.used == used
            ]
            lines += [f"{len(reasons)} {heading}:", *reasons] if reasons else []
        return "\n".join(lines)


def read_dataset(roots: Sequence[DataRoot]) -> ClipTable:
    """List the clips below folders, each at any level: a collection, a year, dev_data, raw, a machine or one of its splits.

    Of shards (a folder that holds their index, or an address) the table is read, and nothing is listed. What can't be used (unreadable,
    misnamed, too short or unfit files, folders that can't be opened) is in `ClipTable.problems`.

    Raises:
        DataSetError: a root is missing, is no folder, or has no sound file below it; shards are damaged or can't be reached.
    """
    listing = Listing()
    for root in roots:
        if not holds_shards(root):
            listing.add_root(Path(root))
    parts = [(listing.checked_clips(), listing.problems)]
    parts += [read_shards(root) for root in dict.fromkeys(roots) if holds_shards(root)]
    sound = [clip for clips, _ in parts for clip in clips]
    problems = [problem for _, told in parts for problem in told]
    if len(parts) != 2 or parts[0][0]:  # shards are sorted, and the words to sort by would take much memory
        sound.sort(key=lambda clip: (clip.machine, clip.split, str(clip.path)))
    return ClipTable(tuple(sound), tuple(sorted(problems, key=lambda problem: str(problem.path))))


def class_labels(clips: Sequence[Clip]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Classes of normal sound to tell apart: machine × domain × attributes (paper, section 2.2), sections and years being other units.

    Returns:
        The class of each clip, int64 (N,), and the names of the classes, sorted.
    """
    names = [_class_name(clip) for clip in clips]
    classes = sorted(set(names))
    number = {name: position for position, name in enumerate(classes)}
    return np.array([number[name] for name in names], np.int64), tuple(classes)


def _class_name(clip: Clip) -> str:
    unit = [clip.machine, *([str(clip.year)] if clip.year is not None else []), clip.section]
    return "/".join([*unit, clip.domain or "-", *(f"{name}={value}" for name, value in clip.attributes)])


def refuse_unfit_names(table: ClipTable) -> None:
    """Refuse machines that no bundle could hold by their names, before hours are spent on them.

    Raises:
        DataSetError: names the machine, its folder and what a name may hold.
    """
    for clip in table.select(split="train"):
        if not re.fullmatch(MACHINE_NAME, clip.machine):
            raise DataSetError(
                f"{printable(clip.path.parent)}: machine {printable(clip.machine)!r} can't go into a bundle: a name is up to 64 letters "
                "(A to Z), digits, '.', '_' and '-', the first a letter or a digit; rename the folder"
            )


def training_clips(table: ClipTable) -> tuple[Clip, ...]:
    """The normal clips of the train split, in the order of the table.

    Raises:
        DataSetError: there are none.
    """
    clips = tuple(clip for clip in table.select(split="train") if clip.label != "anomaly")
    if not clips:
        raise DataSetError("the data has no normal training clips; expected files under <machine>/train/")
    return clips
