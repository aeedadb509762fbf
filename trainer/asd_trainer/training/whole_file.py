"""Files that are there whole or as they were before, whenever the process is killed."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a text file in one go, in place of the one that may be there.

    Raises:
        OSError: it can't be written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # several processes may write the same
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
