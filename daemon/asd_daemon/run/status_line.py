"""One line for `systemctl status`: each machine with its state and score."""

from __future__ import annotations

from collections.abc import Sequence

from asd_daemon.run.machine_monitor import MachineMonitor
from asd_daemon.watch.counters import Counts


def status_line(monitors: Sequence[MachineMonitor], counts: Counts) -> str:
    """The line, and how many windows all of them have heard."""
    parts = []
    for monitor in monitors:
        state = monitor.state
        score = "" if state.score is None else f" (score {state.score:.4g} of {state.threshold:.4g})"
        reason = "" if state.reason is None else f": {state.reason}"
        parts.append(f"{monitor.machine} {state.condition.value}{reason}{score}")
    return f"{'; '.join(parts)}; {counts.heard} windows heard"
