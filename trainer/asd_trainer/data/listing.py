"""Folders → clips: which files are clips, and of what.

Owns the walk through folders, the attribute tables and the check of headers; `naming` reads the names, `dataset` says what layouts there
are. Of data sets in the DCASE layout the clips to train on are read through, so that none is learned that a daemon would not judge; of
plain folders, which may be any sound by the million, headers alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from asd_daemon.errors import DataSetError, RecordingError
from asd_daemon.hear.windows.quality import unfit_reason
from asd_daemon.sound_file import SOUND_SUFFIXES, SoundFile, is_sound, printable
from asd_daemon.waveform import LEAST_S, WINDOW_SAMPLES, read_waveform, refuse_low_rate
from asd_trainer.data.attribute_table import AttributeTables
from asd_trainer.data.clip import Clip, Problem
from asd_trainer.data.naming import (
    ClipName,
    Domain,
    Label,
    MisnamedError,
    Split,
    looks_like_dcase,
    parse_name,
    same_attributes,
)

_SPLITS: dict[str, tuple[Split, Domain | None]] = {
    "train": ("train", None),
    "test": ("test", None),
    "source_test": ("test", "source"),
    "target_test": ("test", "target"),
    "test_rename": ("test", None),
    "supplemental": ("supplemental", None),
}
_LABELLED: dict[str, Label] = {"normal": "normal", "abnormal": "anomaly", "anomaly": "anomaly"}
_YEAR = re.compile(r"dcase_?(20\d\d)", re.IGNORECASE)
_PLAIN_SECTION = "00"
_HEADERS_AT_ONCE = 64  # files a thread checks before it takes the next


class Listing:
    """Walks folders; collects clips whose headers are still to be checked, and problems."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._clips: list[Clip] = []
        self._seen: set[Path] = set()
        self._tables = AttributeTables()

    def add_root(self, root: Path) -> None:
        """List what is below a folder.

        Raises:
            DataSetError: it is missing, is no folder, or has no sound file below it.
        """
        if not root.is_dir():
            what = "is a file" if root.exists() else "there is no such folder"
            raise DataSetError(f"{root}: {what}; give a folder of recordings or of a DCASE data set")
        before = len(self._clips) + len(self.problems)
        known = len(self._seen)
        root = root.absolute()
        if root.name in _SPLITS:
            self._split(root, root.parent)
        else:
            self._walk(root)
        repeated = len(self._seen) == known
        if len(self._clips) + len(self.problems) == before and not repeated:
            raise DataSetError(
                f"{root}: no sound file ({', '.join(SOUND_SUFFIXES[:6])}, …) there; expected <machine>/train/*.wav as in DCASE Task 2, or "
                "a folder of recordings of one machine"
            )

    def checked_clips(self) -> list[Clip]:
        """The clips whose files can be read and are fit to be learned; the others become problems.

        Clips that are to be judged, or that hold the place alone, stay though they are unfit (a test split has a score for each of its
        clips), and are named too.
        """
        self.problems.extend(self._tables.problems(self._clips))
        chunks = [self._clips[i : i + _HEADERS_AT_ONCE] for i in range(0, len(self._clips), _HEADERS_AT_ONCE)]
        with ThreadPoolExecutor(thread_name_prefix="headers") as pool:
            found = [problem for chunk in pool.map(_problems, chunks) for problem in chunk]
        self.problems.extend(problem for problem in found if problem is not None)
        pairs = zip(self._clips, found, strict=True)
        return [clip for clip, problem in pairs if problem is None or problem.used]

    def _walk(self, folder: Path) -> None:
        if not self._enter(folder):
            return
        folders, sounds = self._list(folder)
        names = {sub.name for sub in folders}
        if names & _SPLITS.keys():
            self._dcase_machine(folder, folders, sounds)
            return
        self._plain(sounds, folder.name, "train", "normal")
        for sub in folders:
            if sub.name in _LABELLED:
                self._plain(self._sounds_below(sub), folder.name, "test", _LABELLED[sub.name])
            else:
                self._walk(sub)

    def _dcase_machine(self, machine: Path, folders: Sequence[Path], sounds: Sequence[Path]) -> None:
        for path in sounds:
            self.problems.append(
                Problem(path, f"lies beside {machine.name}'s train and test folders, not in one of them")
            )
        for folder in folders:
            if folder.name in _SPLITS:
                self._split(folder, machine)
            elif count := len(self._sounds_below(folder)):
                self.problems.append(
                    Problem(folder, f"is none of {', '.join(_SPLITS)}; its {count} sound file(s) are not used")
                )

    def _split(self, folder: Path, machine: Path) -> None:
        if not self._enter(folder):
            return
        split, domain = _SPLITS[folder.name]
        folders, sounds = self._list(folder)
        if split != "supplemental" and not any(looks_like_dcase(path.stem) for path in sounds):
            self._plain(sounds, machine.name, split, "normal" if split == "train" else None)
            for sub in folders:
                if split == "test" and sub.name in _LABELLED:
                    self._plain(self._sounds_below(sub), machine.name, "test", _LABELLED[sub.name])
            folders = [sub for sub in folders if split != "test" or sub.name not in _LABELLED]
        else:
            renamed = folder.name == "test" and any(map(_is_sound, _names(machine / "test_rename")))
            self._dcase_clips(sounds, machine, split, domain, renamed)
        for sub in folders:
            if count := len(self._sounds_below(sub)):
                self.problems.append(
                    Problem(sub, f"a folder inside {folder.name}; its {count} sound file(s) are not used")
                )

    def _dcase_clips(
        self, sounds: Sequence[Path], machine: Path, split: Split, domain: Domain | None, renamed: bool
    ) -> None:
        table = self._tables.of(machine)
        year = year_of(machine)
        contradictions = []
        for path in sounds:
            try:
                name = parse_name(path.stem, split)
            except MisnamedError as e:
                self.problems.append(Problem(path, str(e)))
                continue
            if domain is not None and name.domain not in (None, domain):
                self.problems.append(Problem(path, f"its name says {name.domain}, its folder {domain}"))
                continue
            if renamed and name.label is None:
                continue  # the same clip lies in test_rename with its label
            listed = table.get(path.stem, ())
            if name.attributes and listed and not same_attributes(name.attributes, listed):
                contradictions.append((name.section, path.name))
            attributes = name.attributes or (() if name.hidden else listed)
            label: Label | None = "normal" if split == "train" else name.label
            self._clips.append(
                Clip(
                    path=path,
                    machine=machine.name,
                    section=name.section,
                    split=split,
                    domain=name.domain or domain,
                    label=label,
                    attributes=attributes,
                    supplement=name.supplement,
                    year=_year_of(name, domain, year),
                )
            )
        if contradictions:
            section, first = contradictions[0]
            what = (
                f"disagrees with the names of {len(contradictions)} {split} file(s), first {first}; the names were used"
            )
            self.problems.append(Problem(machine / f"attributes_{section}.csv", what, used=True))

    def _plain(self, sounds: Sequence[Path], machine: str, split: Split, label: Label | None) -> None:
        for path in sounds:
            self._clips.append(Clip(path, machine, _PLAIN_SECTION, split, None, label, (), None, None))

    def _list(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Sub-folders and sound files of a folder, sorted, hidden ones left out."""
        folders, sounds = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        folders.append(folder / entry.name)
                    elif is_sound(folder / entry.name) or _is_dangling(folder / entry.name):
                        sounds.append(folder / entry.name)
        except OSError as e:
            self.problems.append(Problem(folder, f"can't be listed: {e.strerror}"))
        return sorted(folders), sorted(sounds)

    def _enter(self, folder: Path) -> bool:
        """Whether a folder is new; it is not where two roots overlap or links go in a circle."""
        entered = folder.resolve()
        new = entered not in self._seen
        self._seen.add(entered)
        return new

    def _sounds_below(self, folder: Path) -> list[Path]:
        if not self._enter(folder):
            return []
        folders, sounds = self._list(folder)
        return [*sounds, *(path for sub in folders for path in self._sounds_below(sub))]


def _problems(clips: Sequence[Clip]) -> list[Problem | None]:
    return [_problem(clip) for clip in clips]


def _problem(clip: Clip) -> Problem | None:
    """Why a file can't be a clip, or is none that should be trusted; None where it is well."""
    try:
        with SoundFile(clip.path) as file:
            refuse_low_rate(file)
            seconds = (file.promised_samples or 0) / file.rate_hz
        if 0 < seconds < LEAST_S:
            return Problem(clip.path, f"too short: {seconds:.2g} s; at least {LEAST_S:g} s are needed")
        unfit = unfit_reason(read_waveform(clip.path)[:WINDOW_SAMPLES])
    except RecordingError as e:
        return Problem(clip.path, str(e).removeprefix(f"{printable(clip.path)}: "))
    if unfit is None:
        return None
    is_learned = clip.split == "train" and not (clip.section == _PLAIN_SECTION and clip.domain is None)
    return Problem(clip.path, f"is not usable: {unfit.value}", used=not is_learned)


def _is_dangling(path: Path) -> bool:
    """A link to a recording that is gone: it was meant to be one, and is told."""
    return path.is_symlink() and not path.exists() and path.suffix.lower() in SOUND_SUFFIXES


def _names(folder: Path) -> list[str]:
    """Names in a folder; none where it is missing or can't be listed, which `Listing` reports by itself."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _is_sound(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SOUND_SUFFIXES


def year_of(machine: Path) -> int | None:
    """The year of the challenge that a folder above this one names, the nearest first; None where none does."""
    matches: Iterator[re.Match[str] | None] = (_YEAR.search(parent.name) for parent in machine.parents)
    return next((int(match[1]) for match in matches if match), None)


def _year_of(name: ClipName, folder_domain: Domain | None, folder_year: int | None) -> int | None:
    if folder_year is not None:
        return folder_year
    if name.of_2020:
        return 2020
    return 2021 if folder_domain is not None else None
