"""Who can be told: a file of addresses as apprise reads them, with tags by which the configuration names them.

    # one a line, or YAML with a list `urls:`
    ops = ntfys://ntfy.example.com/fans
    ops, boss = mailto://box:password@example.com

Owns the form of the file. An address is a secret: no error, name or representation shows more of it than its kind (`ntfys`).
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from asd_daemon.errors import SettingsError

_LINE = re.compile(r"(?:(?P<tags>[\w.,\s-]+?)\s*=\s*)?(?P<url>[A-Za-z][\w.+-]*://\S(?:.*\S)?)")
_TAG = re.compile(r"[\w.-]{1,64}")
_MOST_BYTES, _MOST_RECIPIENTS = 100_000, 100
_HANDED_OVER = Path("/run/secrets")  # containers' secrets can be read by all users of the container


def checked_tag(tag: str) -> str:
    """A tag, where it is one.

    Raises:
        ValueError: it is not; says what a tag is made of.
    """
    if not _TAG.fullmatch(tag):
        raise ValueError("a tag is 1 to 64 letters, digits, _, . and -")
    return tag


@dataclass(frozen=True)
class Recipient:
    """One address."""

    key: str
    """By which what waits for it is known, from run to run."""
    name: str
    """For people: its tags, its kind and its line."""
    tags: frozenset[str]
    url: str = field(repr=False)


def read_recipients(
    file: Path, key: str = "notify.urls_file", *, is_handed_over: bool = False
) -> tuple[Recipient, ...]:
    """The addresses of a file.

    Args:
        file: the file.
        key: what names it in the configuration.
        is_handed_over: whether systemd has given it to us, which sees to who may read it.

    Raises:
        SettingsError: it can't be read, others may read it, or a line is no address; names the line, never what is in it.
    """
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        with file.open(encoding="utf-8-sig") as opened:
            text = opened.read(_MOST_BYTES + 1)
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise SettingsError(f"{key}: {file} can't be read: {reason}") from e
    if mode & stat.S_IRWXO and not is_handed_over and not file.is_relative_to(_HANDED_OVER):
        raise SettingsError(
            f"{key}: {file} holds passwords and everybody may read it (mode {mode:04o}): chmod 600 {file}"
        )
    if len(text) > _MOST_BYTES:
        raise SettingsError(f"{key}: {file} is longer than {_MOST_BYTES} characters; it holds one address a line")
    found = _merged(_yaml_entries(text, file, key) if _is_yaml(text) else _text_entries(text, file, key))
    if not found:
        raise SettingsError(f"{key}: {file} holds no address; one a line, such as ops = ntfy://ntfy.example.com/fans")
    if len(found) > _MOST_RECIPIENTS:
        raise SettingsError(f"{key}: {file} holds {len(found)} addresses; {_MOST_RECIPIENTS} are the most")
    return found


def chosen(recipients: Iterable[Recipient], tags: Collection[str]) -> list[Recipient]:
    """Those who have one of the tags; all where no tag is named."""
    return [recipient for recipient in recipients if not tags or recipient.tags & set(tags)]


def unknown_tags(recipients: Sequence[Recipient], tags: Iterable[str]) -> list[str]:
    """Tags that nobody has."""
    known = {tag for recipient in recipients for tag in recipient.tags}
    return [tag for tag in dict.fromkeys(tags) if tag not in known]


@dataclass(frozen=True)
class _Entry:
    line: int
    url: str = field(repr=False)
    tags: tuple[str, ...]


def _is_yaml(text: str) -> bool:
    lines = (line.strip() for line in text.splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), "")
    return first == "---" or re.match(r"-\s|(urls|version|groups|tag)\s*:(\s|$)", first) is not None


def _text_entries(text: str, file: Path, key: str) -> Iterator[_Entry]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip()
        if not words or words[0] in "#;":
            continue
        yield _entry(words, number, file, key)


def _entry(words: str, number: int, file: Path, key: str, more_tags: Sequence[str] = ()) -> _Entry:
    found = _LINE.fullmatch(words)
    if found is None:
        raise _wrong(
            file, number, key, "is no address: KIND://… is meant, with tags before it as in ops, boss = KIND://…"
        )
    tags = [*re.split(r"[\s,]+", (found["tags"] or "").strip()), *more_tags]
    named = tuple(tag for tag in tags if tag)
    if any(not _TAG.fullmatch(tag) for tag in named):
        raise _wrong(file, number, key, "a tag is letters, digits, _, . and -")
    return _Entry(number, found["url"], named)


def _yaml_entries(text: str, file: Path, key: str) -> Iterator[_Entry]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as e:  # whose own words would show the line
        mark = getattr(e, "problem_mark", None)
        raise _wrong(file, mark.line + 1 if mark else 1, key, "is no YAML") from None
    urls = root
    if isinstance(root, yaml.MappingNode):
        urls = next((value for name, value in root.value if name.value == "urls"), None)
    if not isinstance(urls, yaml.SequenceNode):
        raise _wrong(file, 1, key, "has no list `urls:`")
    for node in urls.value:
        number = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            yield _entry(node.value, number, file, key)
            continue
        if not isinstance(node, yaml.MappingNode) or not node.value:
            raise _wrong(file, number, key, "must be an address, or `url:` and `tag:`")
        keys = {str(name.value): value for name, value in node.value}
        if "url" in keys:
            yield _entry(str(keys["url"].value), number, file, key, _tags_of(node))
        else:  # as apprise writes it: the address is the key, what belongs to it lies below
            name, below = node.value[0]
            yield _entry(str(name.value), number, file, key, _tags_of(below))


def _tags_of(node: yaml.Node) -> list[str]:
    """The tags that stand in a mapping, or in the mappings of a list."""
    if isinstance(node, yaml.SequenceNode):
        return [tag for below in node.value for tag in _tags_of(below)]
    tags: list[str] = []
    for name, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if name.value in ("tag", "tags"):
            parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
            tags += [tag for part in parts for tag in re.split(r"[\s,]+", str(part.value))]
    return tags


def _merged(entries: Iterable[_Entry]) -> tuple[Recipient, ...]:
    """An address that stands there twice is one recipient with the tags of both."""
    by_url: dict[str, _Entry] = {}
    for entry in entries:
        first = by_url.get(entry.url)
        by_url[entry.url] = entry if first is None else _Entry(first.line, first.url, (*first.tags, *entry.tags))
    return tuple(_recipient(entry) for entry in by_url.values())


def _recipient(entry: _Entry) -> Recipient:
    digest = hashlib.blake2b(entry.url.encode(), digest_size=8).hexdigest()
    tags = ", ".join(dict.fromkeys(entry.tags)) or "no tag"
    kind = entry.url.partition("://")[0].lower()
    return Recipient(digest, f"{tags} ({kind}, line {entry.line})", frozenset(entry.tags), entry.url)


def _wrong(file: Path, line: int, key: str, what: str) -> SettingsError:
    return SettingsError(f"{key}: {file}:{line}: {what}")
