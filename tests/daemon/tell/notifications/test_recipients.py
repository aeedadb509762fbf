"""The file of addresses: its two forms, its tags, and errors that name the line and never show it."""

from __future__ import annotations

from pathlib import Path

import pytest

from asd_daemon.errors import SettingsError
from asd_daemon.tell.notifications.recipients import Recipient, chosen, read_recipients, unknown_tags

TEXT = """\
# the crew
ops = ntfys://ntfy.example.com/fans
ops, boss = mailto://box:hunter2@example.com

; everybody
json://localhost/hook?token=abc=def
"""
YAML = """\
version: 1
urls:
  - ntfys://ntfy.example.com/fans:
      - tag: ops
  - url: mailto://box:hunter2@example.com
    tag: [ops, boss]
  - json://localhost/hook?token=abc=def
"""


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "urls"
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.mark.parametrize("text", [TEXT, YAML])
def test_file_is_read_in_both_forms_that_apprise_has(text: str, tmp_path: Path) -> None:
    fans, mail, hook = read_recipients(written(tmp_path, text))
    assert [r.url for r in (fans, mail, hook)] == [
        "ntfys://ntfy.example.com/fans",
        "mailto://box:hunter2@example.com",
        "json://localhost/hook?token=abc=def",
    ]
    assert [r.tags for r in (fans, mail, hook)] == [{"ops"}, {"ops", "boss"}, frozenset()]
    assert chosen((fans, mail, hook), ()) == [fans, mail, hook]
    assert chosen((fans, mail, hook), ("boss",)) == [mail]
    assert unknown_tags((fans, mail, hook), ("ops", "nobody")) == ["nobody"]


def test_recipient_shows_its_tags_kind_and_line_and_nothing_of_its_address(tmp_path: Path) -> None:
    recipients = read_recipients(written(tmp_path, TEXT))
    assert [r.name for r in recipients] == [
        "ops (ntfys, line 2)",
        "ops, boss (mailto, line 3)",
        "no tag (json, line 6)",
    ]
    for secret in ("example", "hunter2", "abc"):
        assert secret not in repr(recipients) + "".join(r.key for r in recipients)


def test_address_that_stands_there_twice_is_one_recipient_and_keeps_its_key(tmp_path: Path) -> None:
    (one,) = read_recipients(written(tmp_path, "a = json://h\nb = json://h\n"))
    (same,) = read_recipients(written(tmp_path, "\n\nc = json://h\n"))
    assert (one.tags, one.key) == (frozenset({"a", "b"}), same.key)
    assert isinstance(one, Recipient)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ops = json://h\nhunter2\n", ":2: is no address"),
        ("ops = json://h\nops = hunter2@h\n", ":2: is no address"),
        ("urls:\n  - json://h\n  - hunter2\n", ":3: is no address"),
        ("urls:\n  - [hunter2]\n", ":2: must be an address"),
        ("urls: hunter2\n", ":1: has no list"),
        ("urls:\n  - {hunter2\n", "is no YAML"),
        ("# nobody\n", "holds no address"),
        ("x" * 100_001, "longer than"),
        ("\n".join(f"json://h/{n}" for n in range(101)), "100 are the most"),
    ],
)
def test_file_that_is_wrong_is_refused_by_key_file_and_line_without_its_words(
    text: str, words: str, tmp_path: Path
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(SettingsError) as refused:
        read_recipients(file)
    assert words in str(refused.value)
    assert str(refused.value).startswith(f"notify.urls_file: {file}")
    assert "hunter2" not in str(refused.value)


def test_file_that_everybody_may_read_is_refused_unless_it_was_handed_over(tmp_path: Path) -> None:
    file = written(tmp_path, TEXT, 0o644)
    with pytest.raises(SettingsError, match=r"mode 0644.*chmod 600"):
        read_recipients(file)
    assert len(read_recipients(file, is_handed_over=True)) == 3
    file.chmod(0o640)
    assert len(read_recipients(file)) == 3


def test_file_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"notify.urls_file: .*missing can't be read: No such file"):
        read_recipients(tmp_path / "missing")
