"""Files that are there whole or as they were before, whenever the process is killed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any


def write_whole(path: Path, text: str) -> None:
    """Write a text file in one go, in place of the one that may be there.

    Raises:
        OSError: it can't be written.
    """
    partial = path.with_name(
        f"{path.name}.{secrets.token_hex(4)}.partial"
    )  # processes of several hosts may write the same
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def fill_whole(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Let a binary file be filled, and then put it in place of the one that may be there.

    Raises:
        OSError: it can't be written.
        whatever `fill` raises; nothing is left then.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("wb") as file:
            fill(file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
