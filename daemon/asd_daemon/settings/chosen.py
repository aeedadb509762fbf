"""What people have chosen while the daemon ran: `chosen.yaml` of the state folder, laid over the configuration.

    STATE_DIR/chosen.yaml           made like a configuration, of keys of the table alone; the daemon writes it, its owner may read it
    STATE_DIR/chosen-unusable-….yaml    one that could not be read as a whole, kept when the next choice was made

A choice is above the configuration, also above one that is edited later. What can't be used is named and ignored, and stops nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from asd_daemon.private_files import make_private_file, make_private_folder, write_private
from asd_daemon.settings.chosen_keys import SOURCE, Choice, choices_in, content_of
from asd_daemon.settings.file import explain
from asd_daemon.settings.keys import MachineSettings, Settings
from asd_daemon.settings.text_formats import is_name

CHOSEN = "chosen.yaml"
_MOST_BYTES = 1_000_000
_HEAD = "# What was chosen at the page or by `asd-daemon settings`; it is above the configuration. `asd-daemon settings list` shows it.\n"


@dataclass(frozen=True)
class Chosen:
    """What a file holds."""

    file: Path
    choices: tuple[Choice, ...] = ()
    troubles: tuple[str, ...] = ()
    """What of it can't be read or may not be chosen, one sentence each."""

    def find(self, machine: str | None, key: str) -> Choice | None:
        """The choice for a key."""
        return next((one for one in self.choices if (one.machine, one.key) == (machine, key)), None)

    def with_choice(self, choice: Choice) -> Chosen:
        """The same with one choice more, in place of an earlier one for the same key."""
        others = [one for one in self.choices if (one.machine, one.key) != (choice.machine, choice.key)]
        return Chosen(self.file, (*others, choice))

    def without(self, machine: str | None, key: str) -> Chosen:
        """The same without a choice; without its source an added machine is no more, and what was chosen for it goes too."""
        if key == SOURCE and machine is not None:
            return self.without_machine(machine)
        return Chosen(self.file, tuple(one for one in self.choices if (one.machine, one.key) != (machine, key)))

    def without_machine(self, machine: str) -> Chosen:
        """The same without all that was chosen of a machine."""
        return Chosen(self.file, tuple(one for one in self.choices if one.machine != machine))

    def renamed(self, machine: str, new: str) -> Chosen:
        """The same for a machine that has another name now."""
        return Chosen(
            self.file, tuple(replace(one, machine=new) if one.machine == machine else one for one in self.choices)
        )


def chosen_file(folder: Path) -> Path:
    """Where it lies below a state folder."""
    return folder / CHOSEN


def read_chosen(folder: Path) -> Chosen:
    """What was chosen; a file that can't be used is one without choices, and says why."""
    file = chosen_file(folder)
    try:
        with file.open("rb") as f:
            text = f.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            return Chosen(file, troubles=(f"{file}: is larger than 1 MB and is ignored",))
        content = yaml.safe_load(text.decode("utf-8-sig"))
    except FileNotFoundError:
        return Chosen(file)
    except OSError as e:
        return Chosen(file, troubles=(f"{file}: can't be read and is ignored: {e.strerror or e}",))
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        mark = getattr(e, "problem_mark", None)
        place = f"{file}:{mark.line + 1}" if mark else f"{file}"
        problem = getattr(e, "problem", None) or str(e).splitlines()[0]
        return Chosen(file, troubles=(f"{place}: is no YAML and is ignored: {problem}",))
    if not isinstance(content, dict | None):
        return Chosen(file, troubles=(f"{file}: must hold keys and values, and is ignored",))
    found = list(choices_in(content or {}))
    return Chosen(
        file,
        tuple(one for one in found if isinstance(one, Choice)),
        tuple(f"{file}: ignored: {one}" for one in found if isinstance(one, str)),
    )


def write_chosen(before: Chosen, after: Chosen) -> None:
    """Replace the file; what could not be read of the one before is kept beside it.

    Raises:
        OSError: the disk refuses; the file before stays.
    """
    make_private_folder(after.file.parent)
    if before.troubles and before.file.exists():
        kept = before.file.with_name(f"chosen-unusable-{datetime.now(UTC):%Y%m%dT%H%M%S}.yaml")
        write_private(kept, before.file.read_bytes().decode("utf-8", "replace"))
    written = yaml.safe_dump(content_of(after.choices), allow_unicode=True, sort_keys=False)
    write_private(after.file, _HEAD + written)
    folder = os.open(after.file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Have nobody else read and write the file meanwhile: several daemons may share a state folder.

    Raises:
        OSError: the folder can't be written.
    """
    make_private_folder(folder)
    lock = folder / f".{CHOSEN}.lock"
    make_private_file(lock)
    with lock.open("rb+") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def change_choices(folder: Path, machine: str, change: Callable[[Chosen], Chosen]) -> Chosen:
    """Change what was chosen of a machine, where anything was; what was chosen before.

    Raises:
        OSError: the folder can't be written.
    """
    before = read_chosen(folder)
    if not any(choice.machine == machine for choice in before.choices):
        return before
    with only_writer(folder):
        before = read_chosen(folder)
        write_chosen(before, change(before))
    return before


@dataclass(frozen=True)
class LaidOver:
    """A configuration with choices laid over it."""

    settings: Settings
    alone: dict[str, MachineSettings]
    """Machines that are no part of it, since the command line alone names them."""
    held: tuple[Choice, ...] = ()
    """The choices that hold."""
    notes: tuple[str, ...] = ()
    """What was chosen of machines that there are not: it holds when they come."""
    troubles: tuple[str, ...] = ()
    """What of the choices can't be used."""


def lay_over(chosen: Chosen, settings: Settings, named: Collection[str] = ()) -> LaidOver:
    """Lay choices over a configuration; one that does not fit is left out and named.

    Args:
        chosen: what was chosen.
        settings: the configuration.
        named: machines of the command line, which the configuration need not know.
    """
    unknown = [name for name in named if name not in settings.machines and is_name(name)]
    alone = [name for name in unknown if chosen.find(name, SOURCE) is None]
    wanted, notes = _wanted(chosen, settings, alone)
    troubles: list[str] = list(chosen.troubles)
    try:
        merged = _merged(settings, wanted, alone)
    except ValidationError:  # one after the other, to find those that do not fit
        merged, fitting = _merged(settings, [], alone), list[Choice]()
        for choice in wanted:
            try:
                merged = _merged(settings, [*fitting, choice], alone)
                fitting.append(choice)
            except ValidationError as e:
                troubles.append(f"{explain(e, str(chosen.file))}; it is ignored")
        wanted = fitting
    machines = dict(merged.machines)
    apart = {name: machines.pop(name) for name in alone if name in machines}
    laid = merged.model_copy(update={"machines": machines}) if wanted else settings
    return LaidOver(laid, apart, tuple(wanted), tuple(notes), tuple(troubles))


def _wanted(chosen: Chosen, settings: Settings, alone: Collection[str]) -> tuple[list[Choice], list[str]]:
    """The choices for machines that there are, sources first, and what is said of the others."""
    wanted, notes = [], []
    added = {one.machine for one in chosen.choices if one.key == SOURCE}
    for choice in sorted(chosen.choices, key=lambda one: one.key != SOURCE):
        if choice.machine is None or choice.machine in alone:
            wanted.append(choice)
        elif choice.key == SOURCE and choice.machine in settings.machines:
            notes.append(f"{choice.path} of {chosen.file} is ignored: the configuration says where it is heard")
        elif choice.machine not in settings.machines and choice.machine not in added:
            notes.append(f"{choice.path} of {chosen.file} waits: no machine {choice.machine} is configured")
        else:
            wanted.append(choice)
    return wanted, notes


def _merged(settings: Settings, choices: Collection[Choice], alone: Collection[str]) -> Settings:
    content: dict[str, Any] = settings.model_dump(exclude_unset=True)
    machines = content.setdefault("machines", {})
    for name in alone:
        machines[name] = {}
    _lay(content_of(tuple(choices)), content)
    return Settings.model_validate(content)


def _lay(over: dict[str, Any], content: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(content.get(key), dict) and key != SOURCE:
            _lay(value, content[key])
        else:
            content[key] = value
