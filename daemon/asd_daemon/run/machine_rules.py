"""By which rules a machine's windows are judged from now on: what may change while it is heard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asd_daemon.hear.windows.fitness import FitnessLimits
from asd_daemon.judge.scoring.verdict import Judge
from asd_daemon.run.machine_alerts import AlertRules


@dataclass(frozen=True)
class MachineRules:
    """New rules of one machine; what is None stays as it is."""

    alerts: AlertRules | None = None
    limits: FitnessLimits | None = None
    open_judge: Callable[[], Judge] | None = None
    """Opens what scores its windows by the new budget."""
