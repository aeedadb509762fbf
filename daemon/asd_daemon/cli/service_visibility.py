"""Whether the service could see and read the program that its unit calls: the unit hides homes and temporary folders from it.

A virtual environment is seldom in one place: its Python is a link into /usr, or into the home where pyenv or uv keep theirs, and its
packages may lie in a checkout. Owns what is looked at; changes nothing.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from asd_daemon.errors import UsageError

HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108  # by ProtectHome and PrivateTmp
_MOST_LINKS = 40
_SERVICE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REMEDY = "sudo /usr/bin/python3 -m venv /opt/asd-edge, install asd-edge there, and give --program /opt/asd-edge/bin/asd-daemon"
_QUESTION = """
import json, os, sys
import asd_daemon, numpy
print(json.dumps({"its Python": sys.executable, "its Python's library": os.__file__, "asd-edge": asd_daemon.__file__,
                  "NumPy": numpy.__file__}))
"""


def check_visibility(program: Path) -> None:
    """Follow a program to all that it needs.

    Raises:
        UsageError: it is not there, or the service could not see or read a part of it; says which and what to do.
    """
    _check_hidden("", program, program)
    parts = {"": program}
    interpreter = interpreter_of(program) if program.exists() else None
    if interpreter is not None:
        _check_hidden("its Python", interpreter, program)
        parts |= {what: Path(path) for what, path in _ask(interpreter, program).items()}
    for what, path in parts.items():
        _check_hidden(what, path, program)
    for path in parts.values():
        _check_readable(path, program)


def _check_hidden(what: str, path: Path, program: Path) -> None:
    for step in steps(path):
        hidden = next((folder for folder in HIDDEN if _lies_below(step, Path(folder))), None)
        if hidden is not None:
            where = f"{what} lies at {step}: the" if what else "the"
            raise UsageError(f"{program}: {where} service sees nothing below {hidden}; {_REMEDY}")


def _check_readable(path: Path, program: Path) -> None:
    if not path.exists():
        raise UsageError(f"{program}: there is no {path}; give the right --program FILE")
    closed = unreadable_by_others(path.resolve())
    if closed is not None:
        raise UsageError(
            f"{program}: the service's user may not read {closed}; sudo chmod o+rX {shlex.quote(str(closed))}"
        )


def steps(path: Path) -> Iterator[Path]:
    """A path as it is written, and again for each link on the way, until it names the thing itself."""
    yield path
    for _ in range(_MOST_LINKS):
        link = next((p for p in (*reversed(path.parents), path) if p.is_symlink()), None)
        if link is None:
            return
        rest = path.relative_to(link)
        path = _without_dots(link.parent / link.readlink() / rest)
        yield path


def interpreter_of(program: Path) -> Path | None:
    """The Python of a script, by its first lines; None where it is no script of Python."""
    try:
        with program.open("rb") as f:
            first, second = f.readline(4096).decode(errors="replace"), f.readline(4096).decode(errors="replace")
    except OSError:
        return None
    if not first.startswith("#!"):
        return None
    words = first[2:].split()
    if words and words[0].endswith("/sh") and (started := re.match(r"'''exec'\s+(.+?)\s+\"\$0\"", second)):
        words = shlex.split(started[1])  # as pip and uv write it where the path is long or has a blank
    if words and words[0].endswith("/env"):
        found = shutil.which(words[-1], path=_SERVICE_PATH)
        words = [found] if found else []
    return Path(words[0]) if words and "python" in Path(words[0]).name else None


def unreadable_by_others(path: Path) -> Path | None:
    """The outermost part of a path, itself included, that users of no right may not read or pass."""
    for part in (*reversed(path.parents), path):
        mode = part.stat().st_mode
        needed = stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
        if not mode & needed:
            return part
    return None


def _ask(interpreter: Path, program: Path) -> dict[str, str]:
    """Where a Python finds itself and its packages."""
    asked = [str(interpreter), "-I", "-c", _QUESTION]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60)
        paths: dict[str, str] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as e:
        said = (getattr(e, "stderr", None) or str(e)).strip().splitlines()
        raise UsageError(f"{program}: its Python {interpreter} does not run asd-edge: {said[-1] if said else e}") from e
    return paths


def _lies_below(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder) or path.is_relative_to(folder.resolve())


def _without_dots(path: Path) -> Path:
    """The path without `..`, none of whose folders before it is a link any more."""
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts = parts[:-1] or parts
        else:
            parts.append(part)
    return Path(*parts)
