"""Who reports on the daemon itself: status file, metrics, dead-man ping, as the settings want it."""

from __future__ import annotations

from importlib import metadata

from asd_daemon.settings.file import state_folder
from asd_daemon.settings.plan import Plan
from asd_daemon.watch.report import DeliveryReports, HealthReporter
from asd_daemon.watch.status import StatusFile, status_file, status_folder


def make_health_reporters(plan: Plan, delivery_report: DeliveryReports) -> list[HealthReporter]:
    """Those who look on and tell: the status file always, metrics and the dead-man ping where they are configured."""
    health = plan.settings.health
    file = status_file(status_folder(state_folder()), plan.machines)
    version = metadata.version("asd-edge")
    health_reporters: list[HealthReporter] = [
        StatusFile(file, node=plan.settings.node, version=version, delivery_report=delivery_report)
    ]
    if health.metrics_port is not None:
        from asd_daemon.watch.metrics import MetricsServer

        health_reporters.append(MetricsServer(health.metrics_host, health.metrics_port, delivery_report))
    if health.ping_url is not None:
        from asd_daemon.watch.dead_man_ping import DeadManPing

        health_reporters.append(DeadManPing(health.ping_url, health.ping_every_s))
    return health_reporters
