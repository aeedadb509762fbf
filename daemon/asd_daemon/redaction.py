"""Secrets in texts that leave the process: log, payloads, status, error lines. Whoever writes there passes the text through here.

What sources and brokers say may hold whatever somebody typed: `rtsp://user:password@camera`, `?token=…`, `--password …`. Owns what counts
as a secret. Where it is in doubt it takes too much rather than too little.
"""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"
_SURE = (
    r"[\w.-]*(?:password|passwd|passphrase|passwort|pwd|secret|token|api[_-]?key|access[_-]?key|auth|credential|signature"
    r"|session[_-]?id|user-?pw)[\w.-]*|pass|pw"
)
_NAMED = rf"{_SURE}|key|sig"
_VALUE = r"(?:\"[^\"]*\"|'[^']*'|[^\s'\"<>&;,)\]}]+)"
_WORDS = re.compile(r"[^\s'\"<>]+")
_PORT = re.compile(r"\d{1,5}[/?#]")
_RULES = (  # name=value; "name": "value"; --name value; -u name:value; Bearer value
    (re.compile(rf"(?i)(?<!\w)((?:{_NAMED})['\"]?\s?=\s?){_VALUE}"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)(?<!\w)(['\"](?:{_NAMED})['\"]\s?:\s?){_VALUE}"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)(?<!\S)(--?(?:{_SURE})\s+)(?:\"[^\"]*\"|'[^']*'|\S+)"), rf"\1{HIDDEN}"),
    (re.compile(r"(?<!\S)((?:-u|--user)\s+)[^\s:]+:\S+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)\b((?:basic|bearer|digest)\s+)[A-Za-z0-9+/=._~-]{8,}"), rf"\1{HIDDEN}"),
)


def redact(text: str) -> str:
    """The text with `***` in the place of every secret."""
    if "@" in text:
        text = _WORDS.sub(lambda word: _without_user(word[0]), text)
    for pattern, hidden in _RULES:
        text = pattern.sub(hidden, text)
    return text


def redact_all(content: Any) -> Any:
    """The same of every text in what is about to become JSON; keys stay as they are."""
    if isinstance(content, str):
        return redact(content)
    if isinstance(content, dict):
        return {key: redact_all(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [redact_all(value) for value in content]
    return content


def _without_user(word: str) -> str:
    """A word without what stands before an @ to log in: `scheme://user:password@host`, `scheme://token@host`, `user:password@host`.

    A password may hold signs that belong escaped there, so all up to the last @ is taken for it.
    """
    at = word.rfind("@")
    scheme = word.find("://")
    if at < 0:
        return word
    if scheme < 0 or scheme > at:
        user = re.search(r"(?<![^/=,;|(\[{])[^/=,;|(\[{:@]+:", word[:at])
        is_login = (
            user is not None and word[user.end() : user.end() + 2] != "//" and word[at + 1 : at + 2] not in ("", "/")
        )
        return f"{word[: user.start()]}{HIDDEN}{word[at:]}" if user is not None and is_login else word
    while 0 <= scheme < at:
        begin = scheme + 3
        name, colon, rest = word[begin:at].partition(":")
        is_name = not set(name) & set("/?#")
        if is_name and not (colon and _PORT.match(rest)):
            return f"{word[:begin]}{HIDDEN}{word[at:]}"
        scheme = word.find("://", begin)
    return word
