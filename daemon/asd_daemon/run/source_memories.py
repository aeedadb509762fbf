"""What is remembered of each machine's source from run to run, and where it lies."""

from __future__ import annotations

from asd_daemon.hear.source_spec import SourceSpec
from asd_daemon.hear.sources.source_memory import SourceMemory
from asd_daemon.settings.file import state_folder


def source_memory_of(machine: str, spec: SourceSpec) -> SourceMemory | None:
    """What is remembered of a machine's microphone or command; nothing of recordings and simulations, which may be of anything."""
    if spec.kind not in ("device", "command"):
        return None
    return SourceMemory(state_folder() / "machines" / machine / "source.json")
