"""Commands that other programs of this box leave for the daemon, and its answers: files of the state folder, so that no port is needed.

    ROOT/<machine>/<id>.json          a command; the daemon takes it away
    ROOT/<machine>/<id>.answer        what came of it; whoever asked takes it away

Names begin with the time, so that commands are taken in the order in which they were given. Owns these files.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from asd_daemon.private_files import make_private_folder, write_private
from asd_daemon.tell.commands import Answer, Command, parse_command

MOST_BYTES = 65_536
_ANSWERS_LIVE_S = 3600.0


class CommandSpool:
    """The folder of them.

    Args:
        root: where the machines' folders lie.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, machine: str, command: Command) -> str:
        """Leave a command for whoever hears a machine, now or later; its id.

        Raises:
            OSError: the disk refuses.
        """
        folder = self._root / machine
        make_private_folder(folder)
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        write_private(folder / f"{name}.json", command.model_dump_json(exclude_unset=True) + "\n")
        return name

    def take(self, machines: Collection[str]) -> list[tuple[str, str, Command | str]]:
        """Take away what waits for some machines: machine, id, and the command or why it is none; in order."""
        taken: list[tuple[str, str, Command | str]] = []
        for machine in machines:
            folder = self._root / machine
            try:
                names = sorted(entry.name for entry in os.scandir(folder))
            except OSError:  # nobody has left anything
                continue
            for name in names:
                file = folder / name
                if name.endswith(".answer"):
                    self._forget_old(file)
                elif name.endswith(".json") and not name.startswith("."):
                    taken.append((machine, name.removesuffix(".json"), _taken(file)))
        return sorted(taken, key=lambda each: each[1])

    def answer(self, machine: str, name: str, answer: Answer) -> None:
        """Say what came of a command.

        Raises:
            OSError: the disk refuses.
        """
        write_private(self._root / machine / f"{name}.answer", json.dumps(asdict(answer), ensure_ascii=False) + "\n")

    def wait(self, machine: str, name: str, timeout_s: float, look_every_s: float = 0.1) -> Answer | None:
        """The answer to a command, waiting for it; None where none has come."""
        file, until_s = self._root / machine / f"{name}.answer", time.monotonic() + timeout_s
        while True:
            try:
                said = json.loads(file.read_bytes())
            except FileNotFoundError:
                if time.monotonic() >= until_s:
                    return None
                time.sleep(look_every_s)
                continue
            file.unlink(missing_ok=True)
            return Answer(bool(said["ok"]), str(said["text"]))

    @staticmethod
    def _forget_old(file: Path) -> None:
        """Delete an answer that nobody has taken away."""
        try:
            if abs(time.time() - file.stat().st_mtime) > _ANSWERS_LIVE_S:
                file.unlink()
        except FileNotFoundError:  # whoever asked has taken it just now
            return


def _taken(file: Path) -> Command | str:
    """A command's file, read and taken away; or why it is no command."""
    try:
        with file.open("rb") as f:
            content = f.read(MOST_BYTES)
        file.unlink()
        return parse_command(content)
    except (OSError, ValueError) as e:
        return str(e)
