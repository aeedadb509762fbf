"""What a service that sees no homes and no temporary folders could not run is refused before anything is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from asd_daemon.cli import service_visibility
from asd_daemon.cli.service_visibility import check_visibility, interpreter_of, steps
from asd_daemon.errors import UsageError


@pytest.fixture
def hides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for a home; the real ones, in which tests may run, are seen."""
    home = tmp_path / "home"
    home.mkdir()
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == Path.home().stat().st_uid and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    monkeypatch.setattr(service_visibility, "HIDDEN", (str(home),))
    return home


def script(file: Path, *lines: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o755)
    return file


def test_program_in_a_home_is_refused_and_one_in_a_folder_that_begins_alike_is_not(hides: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"asd-daemon: the service sees nothing below {hides}; sudo /usr/bin/python3"):
        check_visibility(hides / "bin" / "asd-daemon")
    check_visibility(script(tmp_path / "homestead" / "asd-daemon", "no script of Python"))


def test_program_that_a_link_on_the_way_leads_through_a_home_is_refused(hides: Path, tmp_path: Path) -> None:
    """In a home lies only a link, which leads out again: the service could not follow it."""
    real = script(tmp_path / "opt" / "asd-daemon", "no script of Python")
    (hides / "current").symlink_to(real.parent)
    (tmp_path / "apps").symlink_to(Path("home") / "current")
    with pytest.raises(UsageError, match="sees nothing below"):
        check_visibility(tmp_path / "apps" / "asd-daemon")


def test_environment_whose_python_lies_in_a_home_is_refused(hides: Path, tmp_path: Path) -> None:
    """As pyenv and uv make them: the script is seen, its Python is a link into the home."""
    (hides / "versions").symlink_to(Path(sys.executable).parent)
    venv = tmp_path / "opt" / "bin"
    venv.mkdir(parents=True)
    (venv / "python3").symlink_to(hides / "versions" / Path(sys.executable).name)
    program = script(venv / "asd-daemon", f"#!{venv}/python3", "import asd_daemon")
    with pytest.raises(UsageError, match=f"asd-daemon: its Python lies at {hides}/versions/"):
        check_visibility(program)


def test_packages_that_lie_in_a_home_are_refused(hides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout that is installed as editable, say: everything but the package itself is seen."""
    package = Path(service_visibility.__file__).parents[1]
    monkeypatch.setattr(service_visibility, "HIDDEN", (str(package),))
    program = script(tmp_path / "asd-daemon", f"#!{sys.executable}", "import asd_daemon")
    with pytest.raises(UsageError, match=f"asd-edge lies at {package}/__init__.py: the service sees nothing below"):
        check_visibility(program)


def test_program_that_others_may_not_read_is_refused_with_the_command_that_opens_it(
    hides: Path, tmp_path: Path
) -> None:
    program = script(tmp_path / "opt dir" / "bin" / "asd-daemon", "no script of Python")
    program.parent.parent.chmod(0o700)
    with pytest.raises(UsageError, match=f"may not read {tmp_path}/opt dir; sudo chmod o\\+rX '{tmp_path}/opt dir'"):
        check_visibility(program)


def test_python_that_has_no_asd_edge_and_program_that_is_not_there_are_refused(hides: Path, tmp_path: Path) -> None:
    fake = script(tmp_path / "python3", "#!/bin/sh", "echo No module named asd_daemon >&2; exit 1")
    program = script(tmp_path / "asd-daemon", f"#!{fake}")
    with pytest.raises(UsageError, match=r"does not run asd-edge: No module named asd_daemon"):
        check_visibility(program)
    with pytest.raises(UsageError, match="there is no .*none; give the right --program"):
        check_visibility(tmp_path / "none")


@pytest.mark.parametrize(
    ("lines", "interpreter"),
    [
        (("#!/opt/x/bin/python3",), "/opt/x/bin/python3"),
        (("#!/opt/x/bin/python3.13 -I",), "/opt/x/bin/python3.13"),
        (("#!/bin/sh", "'''exec' '/opt/a b/bin/python3' \"$0\" \"$@\"", "' '''"), "/opt/a b/bin/python3"),
        (("#!/bin/sh", "'''exec' /opt/long/bin/python \"$0\" \"$@\""), "/opt/long/bin/python"),
        (("#!/bin/sh", "exec something"), None),
        (("\x7fELF",), None),
    ],
)
def test_interpreter_is_read_as_pip_and_uv_write_it(
    lines: tuple[str, ...], interpreter: str | None, tmp_path: Path
) -> None:
    found = interpreter_of(script(tmp_path / "asd-daemon", *lines))
    assert found == (Path(interpreter) if interpreter else None)


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert len(list(steps(tmp_path / "a"))) < 50
