"""A learned machine into one file, as `asd-daemon machines export` does: a process of its own, since what it needs is large.

    python -m asd_daemon.web.backup STATE_FOLDER MACHINE FILE

Asked for by the page (`upkeep.py`), which needs none of it otherwise.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from asd_daemon.errors import AsdError
from asd_daemon.learn.machine_archive import export_machine


def main(words: list[str]) -> int:
    """The program; exit code 1 and a sentence where it can't be done."""
    os.nice(19)
    folder, machine, file = Path(words[0]), words[1], Path(words[2])
    try:
        export_machine(folder / "enrolled", machine, file)
    except AsdError as e:
        sys.stderr.write(f"{e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
