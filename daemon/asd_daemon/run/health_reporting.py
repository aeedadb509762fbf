"""Who reports on the daemon itself: status file, metrics, dead-man ping, as the settings want it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from asd_daemon.errors import CannotStartError
from asd_daemon.settings.file import state_folder
from asd_daemon.settings.keys import HealthSettings
from asd_daemon.settings.plan import Plan
from asd_daemon.settings.value_words import chosen_lines
from asd_daemon.watch.report import DeliveryReports, HealthReporter
from asd_daemon.watch.status import StatusFile, status_file, status_folder

Exchange = Callable[[Sequence[HealthReporter], Sequence[HealthReporter]], None]


class HealthReporting:
    """Those who look on and tell: the status file always, metrics and the dead-man ping where they are configured.

    Args:
        plan: what runs.
        delivery_report: how the delivery of alerts gets on.
    """

    def __init__(self, plan: Plan, delivery_report: DeliveryReports) -> None:
        self._delivery_report = delivery_report
        self._status = StatusFile(
            _status_file(plan),
            node=plan.settings.node,
            version=metadata.version("asd-edge"),
            delivery_report=delivery_report,
            state_folder=state_folder(),
            chosen=lambda: self._chosen,
        )
        self._chosen = list(chosen_lines(plan))
        self._health = plan.settings.health
        self._configured = self._make(plan.settings.health)

    @property
    def reporters(self) -> list[HealthReporter]:
        """All of them, in the order in which they start."""
        return [self._status, *self._configured.values()]

    def change(self, plan: Plan, exchange: Exchange) -> str | None:
        """Report as another plan wants it; what is configured as before goes on. Why that can't be, in words; then it is as it was.

        Args:
            plan: what shall run.
            exchange: closes some and starts others; raises CannotStartError.
        """
        self._chosen = list(chosen_lines(plan))
        self._status.move(_status_file(plan))
        self._status.progressed()
        before, after = self._health, plan.settings.health
        failed = None
        for kind, keys in _KEYS.items():
            if all(getattr(before, key) == getattr(after, key) for key in keys):
                continue
            gone = [self._configured.pop(kind)] if kind in self._configured else []
            coming = {k: made for k, made in self._make(after).items() if k == kind}
            try:
                exchange(gone, list(coming.values()))
            except CannotStartError as e:
                failed = str(e)
                coming = {k: made for k, made in self._make(before).items() if k == kind}
                exchange((), list(coming.values()))
            self._configured |= coming
        if failed is None:
            self._health = after
        return failed

    def _make(self, health: HealthSettings) -> dict[str, HealthReporter]:
        made: dict[str, HealthReporter] = {}
        if health.metrics_port is not None:
            from asd_daemon.watch.metrics import MetricsServer

            made["metrics"] = MetricsServer(health.metrics_host, health.metrics_port, self._delivery_report)
        if health.ping_url is not None:
            from asd_daemon.watch.dead_man_ping import DeadManPing

            made["ping"] = DeadManPing(health.ping_url, health.ping_every_s)
        return made


_KEYS = {"metrics": ("metrics_port", "metrics_host"), "ping": ("ping_url", "ping_every_s")}


def _status_file(plan: Plan) -> Path:
    return status_file(status_folder(state_folder()), plan.machines)
