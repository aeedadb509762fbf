"""Texts of the configuration that must have a form: names, topics, URLs. What is wrong is said in words, never as a pattern."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def is_name(name: str) -> bool:
    """Whether a machine or box can be called so."""
    return _NAME.fullmatch(name) is not None


def checked_name(name: str) -> str:
    """The name of a machine or box, where topics, files and units can have it.

    Raises:
        ValueError: they can't; says what a name is made of.
    """
    if not is_name(name):
        raise ValueError(
            "a name is 1 to 64 letters (a-z), digits, _, . and -, without blanks, and begins with a letter or digit"
        )
    return name


def _in_words(pattern: str, words: str) -> AfterValidator:
    """A check of a text by a pattern, which people never see."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(words)
        return text

    return AfterValidator(check)


Name = Annotated[str, AfterValidator(checked_name)]
Credential = Annotated[
    str,
    _in_words(
        r"[A-Za-z0-9_.-]{1,100}",
        "must be the name of a file in /etc/asd-daemon, without a path: letters (a-z), digits, _, . and - only",
    ),
]
Words = Annotated[
    str,
    _in_words(
        r"[^\x00-\x1f\x7f\s]([^\x00-\x1f\x7f]{0,58}[^\x00-\x1f\x7f\s])?", "must be 1 to 60 characters in one line"
    ),
]
Topic = Annotated[
    str,
    _in_words(r"[^/+#\s]([^+#\s]*[^/+#\s])?", "must be a topic without +, # and blanks, and without / at its ends"),
]
Url = Annotated[str, _in_words(r"https?://[^\s/]+\S*", "must be a URL: http:// or https://, and no blanks")]
