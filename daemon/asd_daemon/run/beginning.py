"""What is begun before all else is loaded: these machines are ours on this box, and their microphones record.

The recorders and the libraries that judging needs both take seconds on a small board. What is heard meanwhile waits to be read. Imports
little: neither NumPy nor what judges, publishes or keeps.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from types import TracebackType

from asd_daemon.hear.source import begin_early
from asd_daemon.run.free_memory import free_ram_bytes, taken_bytes, too_little_memory
from asd_daemon.run.opened_sources import OpenedSource, sources_of
from asd_daemon.settings.file import state_folder
from asd_daemon.settings.plan import Plan
from asd_daemon.tell.storage.machine_locks import MachineLocks

_LOG = logging.getLogger(__name__)


class Beginning(AbstractContextManager["Beginning"]):
    """Begins at once; what the service has not ended itself is ended with the context.

    Args:
        plan: what shall run.
        waits: keep trying where a microphone or command isn't there at the start.

    Raises:
        CannotStartError: another daemon of this box hears one of the machines.
        AsdError: a source can't be used.
    """

    def __init__(self, plan: Plan, *, waits: bool) -> None:
        recorders = sum(spec.kind in ("device", "command") for spec in plan.sources.values())
        if recorders and (words := too_little_memory(recorders, free_ram_bytes() + taken_bytes())) is not None:
            _LOG.warning("%s", words)
        self.locks = MachineLocks(state_folder(), plan.machines)
        self.sources: dict[str, OpenedSource] = {}
        """Of each machine."""
        try:
            self.sources = sources_of(plan, plan.machines, waits=waits)
            for opened in self.sources.values():
                begin_early(opened.source)
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the recorders, and let others hear the machines; any number of times."""
        for opened in self.sources.values():
            opened.source.close()
        self.locks.close()
