"""`asd-daemon web`: who may look is asked before anything answers, and passwords are set without being shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from asd_daemon.cli.program import cli
from asd_daemon.web.options import WebOptions, parse_options
from asd_daemon.web.sessions import OPERATOR, VIEWER, read_passwords, role_of_password
from rig.daemon import ask


def configured(folder: Path, **web: object) -> Path:
    file = folder / "c.json"
    file.write_text(json.dumps({"web": web}))
    return file


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "line-3.local"])
def test_the_network_is_not_answered_without_a_word_on_who_may_look(tmp_path: Path, host: str) -> None:
    done = ask("web", "--config", configured(tmp_path, host=host), home=tmp_path)
    assert done.returncode == 2
    assert f"web.host: {host} is open to the network" in done.stderr
    assert "--set-login operator" in done.stderr


def test_a_password_file_that_is_not_there_is_named_before_anything_answers(tmp_path: Path) -> None:
    file = tmp_path / "none"
    done = ask("web", "--config", configured(tmp_path, host="0.0.0.0", password_file=str(file)), home=tmp_path)
    assert done.returncode == 2
    assert f"web.password_file: {file} can't be read" in done.stderr
    assert "Traceback" not in done.stderr


def test_user_without_a_home_is_shown_the_services_of_the_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobodys_home(_: type[Path]) -> Path:
        raise RuntimeError("Could not determine home directory.")  # as pathlib says it to a unit with DynamicUser

    for name in ("ASD_STATE_DIR", "STATE_DIRECTORY", "XDG_STATE_HOME", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", classmethod(nobodys_home))
    started: list[str] = []
    monkeypatch.setattr("os.execv", lambda _, words: started.extend(words))
    done = CliRunner().invoke(cli, ["web", "--config", str(configured(tmp_path))])
    assert done.exit_code == 0, done.output
    options = parse_options(started[-1])
    assert options.state_folders == ("/var/lib/asd-daemon", "/var/lib/asd-daemon/*")
    assert options.status_folders == ("/run/asd-daemon", "/run/asd-daemon/*")


def test_a_password_is_asked_for_and_kept_as_a_hash(tmp_path: Path) -> None:
    file = configured(tmp_path, password_file=str(tmp_path / "passwords"))
    for role, password in ((OPERATOR, "operator's own"), (VIEWER, "for everybody")):
        words = ["web", "--config", str(file), "--set-login", role]
        done = CliRunner().invoke(cli, words, input=f"{password}\n{password}\n", standalone_mode=False)
        assert done.exception is None
        assert password not in done.output
    hashes = read_passwords(tmp_path / "passwords")
    assert role_of_password(hashes, "operator's own") == OPERATOR
    assert role_of_password(hashes, "for everybody") == VIEWER
    assert role_of_password(hashes, "neither") is None


def test_a_password_needs_a_place(tmp_path: Path) -> None:
    done = ask("web", "--config", configured(tmp_path), "--set-login", "operator", home=tmp_path)
    assert done.returncode == 2
    assert "web.password_file is not configured" in done.stderr


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = ask("web", "--port", taken.getsockname()[1], home=tmp_path)
    assert done.returncode == 3
    assert "can't be used: Address already in use; choose another port" in done.stderr
    assert "http://" not in done.stderr
    assert "Traceback" not in done.stderr


def test_options_come_over_the_command_line_as_they_were() -> None:
    options = WebOptions("::1", 1, ("a",), ("b", "c"), ("d",), "e", "f", "g", 2.5, "h", "i")
    assert parse_options(options.to_json()) == options
