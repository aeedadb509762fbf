"""Commands that other programs of this box have left in the state folder, handed to the machines that they are for.

Looked at between two windows of time by the service; owns that each is answered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from asd_daemon.tell.commands import Answer, AskedCommand
from asd_daemon.tell.storage.command_spool import CommandSpool

_LOG = logging.getLogger(__name__)


class CommandInbox:
    """One process's.

    Args:
        spool: where they lie.
        give: takes a command for a machine of this process.
    """

    def __init__(self, spool: CommandSpool, give: Callable[[str, AskedCommand], None]) -> None:
        self._spool, self._give = spool, give

    def look(self, machines: Collection[str]) -> None:
        """Hand over what waits for these machines."""
        for machine, name, command in self._spool.take(machines):
            if isinstance(command, str):
                _LOG.warning("%s: command refused: %s", machine, command)
                self._answer(machine, name, Answer(False, command))
            else:
                _LOG.info("%s: asked to %s", machine, command.command.value)
                self._give(machine, AskedCommand(command, self._replier(machine, name)))

    def _replier(self, machine: str, name: str) -> Callable[[Answer], None]:
        return lambda answer: self._answer(machine, name, answer)

    def _answer(self, machine: str, name: str, answer: Answer) -> None:
        try:
            self._spool.answer(machine, name, answer)
        except OSError as e:
            _LOG.warning("%s: the answer to a command can't be written: %s", machine, e.strerror or e)
