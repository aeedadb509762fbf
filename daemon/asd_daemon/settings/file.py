"""The configuration file and the folders beside it: where they lie, how the file is read, and what is said of one that is wrong.

Owns YAML. What keys there are, and what they may hold, is in keys.py.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from asd_daemon.errors import SettingsError
from asd_daemon.settings.bundle import BundleSettings
from asd_daemon.settings.keep import KeepSettings
from asd_daemon.settings.keys import (
    AlarmSettings,
    HealthSettings,
    MachineSettings,
    MqttSettings,
    QualitySettings,
    Settings,
    WebSettings,
)
from asd_daemon.settings.notify import MachineNotifySettings, NotifySettings
from asd_daemon.settings.sections import SourceSettings

_TEXT_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
_PLAIN_WORDS = {
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "path_type": "must be the path of a file or folder",
    "string_type": "must be one text",
}
SYSTEM_FILE = Path("/etc/asd-daemon/asd-daemon.yaml")


def read_password(mqtt: MqttSettings, environment: Mapping[str, str] = os.environ) -> str | None:
    """The password, from its file or from systemd's credential; by hand, without systemd, from where systemd would take it.

    Raises:
        SettingsError: there is none, it can't be read, or it is empty.
    """
    key, file = "mqtt.password_file", mqtt.password_file
    if mqtt.password_credential is not None:
        key = "mqtt.password_credential"
        file = credential_file(key, mqtt.password_credential, "the password", environment)
    if file is None:
        return None
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # Windows' editors put a mark in front
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise SettingsError(f"{key}: {file} can't be read: {reason}") from e
    if not lines or not lines[0]:
        raise SettingsError(f"{key}: {file} is empty; its first line is the password")
    return lines[0]


def credential_file(key: str, name: str, what: str, environment: Mapping[str, str] = os.environ) -> Path:
    """The file that systemd hands over as a credential; by hand, without systemd, the one from which it would take it.

    Args:
        key: what names it in the configuration.
        name: the credential's.
        what: what lies in it, in words.
        environment: where systemd says where credentials are.

    Raises:
        SettingsError: it is not there.
    """
    file = Path(environment.get("CREDENTIALS_DIRECTORY") or SYSTEM_FILE.parent) / name
    if "CREDENTIALS_DIRECTORY" not in environment and not os.access(file, os.R_OK):
        raise SettingsError(
            f"{key}: {file} can't be read, and systemd passed no credential; put {what} there and run"
            f" `asd-daemon service install`, which adds LoadCredential={name}:{file} to the unit"
        )
    return file


def settings_file(given: Path | None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The configuration file to read: the one given, else ASD_CONFIG, else the system's if there is one."""
    if given is not None:
        return given
    if environment.get("ASD_CONFIG"):
        return Path(environment["ASD_CONFIG"])
    return SYSTEM_FILE if SYSTEM_FILE.exists() else None


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where what is learned and kept lies: ASD_STATE_DIR, else systemd's STATE_DIRECTORY, else the user's XDG state folder.

    Raises:
        SettingsError: none of them says so, and the user has no home, as a service's may not.
    """
    if environment.get("ASD_STATE_DIR"):
        return Path(environment["ASD_STATE_DIR"])
    if environment.get("STATE_DIRECTORY"):
        return Path(environment["STATE_DIRECTORY"].split(":")[0])
    if environment.get("XDG_STATE_HOME"):
        return Path(environment["XDG_STATE_HOME"]) / "asd-daemon"
    try:
        return Path.home() / ".local" / "state" / "asd-daemon"
    except RuntimeError as e:
        raise SettingsError("nowhere to keep what is learned: this user has no home folder; set ASD_STATE_DIR") from e


def load_settings(file: Path) -> Settings:
    """Read a configuration file.

    Raises:
        SettingsError: it can't be read, is no YAML, or a key or value is wrong; names the line and the key.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
        raise SettingsError(f"{file}: can't be read: {reason}") from e
    return parse_settings(text, str(file))


def parse_settings(text: str, name: str) -> Settings:
    """Read a configuration from its text.

    Raises:
        SettingsError: as `load_settings`.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as e:
        mark = getattr(e, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark else name
        problem = getattr(e, "problem", None) or str(e).splitlines()[0] or "nested too deeply"
        raise SettingsError(f"{place}: is no YAML: {problem}") from e
    twice = _key_given_twice(root, "", set())
    if twice is not None:
        key, first, second = twice
        raise SettingsError(f"{name}:{second}: {key}: is given twice, on line {first} and here; keep one of them")
    bare = _key_that_is_no_text(root, "", set())
    if bare is not None:
        key, line, text = bare
        raise SettingsError(f"{name}:{line}: {key}: {_to_be_quoted(text)}")
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise SettingsError(f"{name}: must hold keys and values, holds a {type(content).__name__}")
    try:
        return Settings.model_validate(content)
    except ValidationError as e:
        raise SettingsError(explain(e, name, root)) from e


def _key_given_twice(node: yaml.Node | None, path: str, seen: set[int]) -> tuple[str, int, int] | None:
    """The first key that stands twice in one section, with both its lines; YAML would silently forget the first."""
    if not isinstance(node, yaml.MappingNode) or id(node) in seen:  # an alias may stand in itself
        return None
    seen.add(id(node))
    lines: dict[str, int] = {}
    for key, value in node.value:
        here, line = f"{path}{key.value}", key.start_mark.line + 1
        if here in lines:
            return here, lines[here], line
        lines[here] = line
        below = _key_given_twice(value, f"{here}.", seen)
        if below is not None:
            return below
    return None


def _key_that_is_no_text(node: yaml.Node | None, path: str, seen: set[int]) -> tuple[str, int, str] | None:
    """The first key that YAML takes for a number, a date or a yes or no: its path, its line, and how it is written."""
    if not isinstance(node, yaml.MappingNode) or id(node) in seen:
        return None
    seen.add(id(node))
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag not in _TEXT_TAGS:
            return f"{path}{key.value}", key.start_mark.line + 1, str(key.value)
        below = _key_that_is_no_text(value, f"{path}{key.value}.", seen)
        if below is not None:
            return below
    return None


def _to_be_quoted(text: str) -> str:
    read = yaml.safe_load(text)
    return f'YAML reads {text} as {json.dumps(read, default=str)}, where a text is meant; write it in quotes: "{text}"'


def explain(error: ValidationError, name: str, root: yaml.Node | None = None) -> str:
    """The first thing that is wrong, in one line, and how many more there are.

    Args:
        error: what pydantic found.
        name: of the file.
        root: its YAML, where lines can be named.
    """
    first = error.errors()[0]
    location = [part for part in first["loc"] if part != "[key]"]
    line = _line_of(root, location)
    place = f"{name}:{line}" if line else name
    key = ".".join(str(part) for part in location) or "(top)"
    if first["type"] == "extra_forbidden":
        siblings = _keys_at(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), siblings, 1, 0.6)
        hint = f" (did you mean {near[0]}?)" if near else f"; known keys: {', '.join(siblings)}"
        what = f"unknown key{hint}"
    elif first["type"] == "missing":
        what = "is missing"
    elif first["type"] in ("dict_type", "model_type", "model_attributes_type"):
        what = f"must hold keys and values, holds {'nothing' if first['input'] is None else repr(first['input'])}"
    elif first["type"] == "string_type" and isinstance(value_node := _node_at(root, location), yaml.ScalarNode):
        what = _to_be_quoted(value_node.value)
    elif first["type"] in _PLAIN_WORDS:
        what = f"{_PLAIN_WORDS[first['type']]}, got {first['input']!r}"
    else:
        message = first["msg"].removeprefix("Value error, ")
        value = "" if isinstance(first["input"], dict | list) else f", got {first['input']!r}"
        what = message[:1].lower() + message[1:] + value
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place}: {key}: {what}{more}"


def _keys_at(location: list[Any]) -> list[str]:
    """The keys that a section may have, found by walking the models along a path of keys."""
    models: dict[str, type[BaseModel]] = {
        "bundle": BundleSettings,
        "mqtt": MqttSettings,
        "source": SourceSettings,
        "alarm": AlarmSettings,
        "quality": QualitySettings,
        "health": HealthSettings,
        "keep": KeepSettings,
        "web": WebSettings,
        "notify": MachineNotifySettings if location[:1] == ["machines"] else NotifySettings,
    }
    if not location:
        return list(Settings.model_fields)
    if location[0] == "machines" and len(location) == 2:
        return list(MachineSettings.model_fields)
    return list(models[str(location[-1])].model_fields) if location[-1] in models else []


def _node_at(node: yaml.Node | None, location: list[Any]) -> yaml.Node | None:
    """What stands at the end of a path of keys; None where nothing does."""
    for part in location:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((value for key, value in pairs if key.value == str(part)), None)
    return node


def _line_of(node: yaml.Node | None, location: list[Any]) -> int | None:
    """The line, counted from 1, of the deepest key of a path that stands in the file."""
    line = None
    for part in location:
        if not isinstance(node, yaml.MappingNode):
            break
        found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
