"""The sources of a plan's machines, each with what is remembered of it from run to run. Nothing is heard yet."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from asd_daemon.hear.opening import open_sources
from asd_daemon.hear.source import Source
from asd_daemon.hear.sources.source_memory import SourceMemory
from asd_daemon.run.source_memories import source_memory_of
from asd_daemon.settings.plan import Plan


@dataclass(frozen=True)
class OpenedSource:
    """A machine's source, and what is remembered of it from run to run."""

    source: Source
    memory: SourceMemory | None


def sources_of(plan: Plan, names: Collection[str], *, waits: bool) -> dict[str, OpenedSource]:
    """The sources of some machines of a plan.

    Args:
        plan: what shall run.
        names: the machines.
        waits: keep trying where a microphone or command isn't there at the start.

    Raises:
        AsdError: one of them can't be used.
    """
    memories = {name: source_memory_of(name, plan.sources[name]) for name in names}
    checks = {name: memory.check_device for name, memory in memories.items() if memory is not None}
    opened = open_sources({name: plan.sources[name] for name in names}, wait=waits, device_checks=checks)
    return {name: OpenedSource(opened[name], memories[name]) for name in names}
