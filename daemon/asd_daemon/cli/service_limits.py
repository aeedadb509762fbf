"""How much memory and how many tasks a unit may take, by the machines that it hears: some times what they need, so that a defect is stopped
before it takes the box along, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Mapping

from asd_daemon.settings.keys import MachineSettings

BASE_MB, BASE_TASKS = 600, 64
_MACHINE_MB, _MACHINE_TASKS = 20, 8
"""Two threads in our process, and room for learning."""
_CHILD_MB, _CHILD_TASKS = 200, 32
"""A recorder is a Python of its own, a command may be ffmpeg with threads for each processor."""


def with_limits(unit: str, machines: Mapping[str, MachineSettings]) -> str:
    """The unit with limits that fit so many machines in one process; for one the template's stay."""
    memory_mb, tasks = limits(machines)
    return unit.replace(f"MemoryMax={BASE_MB}M", f"MemoryMax={memory_mb}M", 1).replace(
        f"TasksMax={BASE_TASKS}", f"TasksMax={tasks}", 1
    )


def limits(machines: Mapping[str, MachineSettings]) -> tuple[int, int]:
    """Megabytes and tasks; the first machine and the first child are within the template's."""
    specs = [machine.source.spec() for machine in machines.values()]
    commands = sum(spec.kind == "command" for spec in specs)
    devices = len({(spec.target, spec.options.get("rate_hz")) for spec in specs if spec.kind == "device"})
    children, further = max(0, commands + devices - 1), max(0, len(specs) - 1)
    return (
        BASE_MB + _MACHINE_MB * further + _CHILD_MB * children,
        BASE_TASKS + _MACHINE_TASKS * further + _CHILD_TASKS * children,
    )
