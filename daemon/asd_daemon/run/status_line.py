"""One line for `systemctl status`: each machine with its state and score."""

from __future__ import annotations

from collections.abc import Sequence

from asd_daemon.run.machine_monitor import MachineMonitor
from asd_daemon.watch.counters import Counts
from asd_daemon.wording import counted, score_of


def status_line(monitors: Sequence[MachineMonitor], counts: Counts) -> str:
    """The line, and how many windows all of them have heard."""
    parts = []
    for monitor in monitors:
        state = monitor.state
        score = "" if state.score is None else f" ({_score_words(monitor)})"
        reason = "" if state.reason is None else f": {state.reason}"
        parts.append(f"{monitor.machine} {state.condition.value}{reason}{score}")
    return f"{'; '.join(parts) or 'no machine yet'}; {counted(counts.heard, 'window')} heard"


def _score_words(monitor: MachineMonitor) -> str:
    state, above = monitor.state, monitor.above
    score = f"score {score_of(state.score or 0.0, state.threshold or 0.0)}"
    return f"{score}, {above.windows} of {above.opens_at} above" if above else score
