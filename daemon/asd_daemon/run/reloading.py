"""A running daemon reads its configuration anew: it takes on what it can without touching machines that stay, and says what it can't.

    machines                 added, removed, or begun anew where source, model or hop is another one
    alarm, quality, title    taken on between two windows of the machine
    health                   metrics and dead-man ping are exchanged
    notify                   whoever is told from now on; the file of addresses is read again
    bundle.url and the like  asked and installed by from now on
    node, mqtt, keep, bundle.folder, log   hold from the next start on, and are named until then

A configuration that can't be used is refused as a whole: what runs goes on. A choice of people (`choosing.py`) comes the same way.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from asd_daemon.errors import AsdError, SettingsError
from asd_daemon.run.configuration_troubles import ConfigurationTroubles
from asd_daemon.run.health_reporting import HealthReporting
from asd_daemon.run.machine_alerts import AlertRules
from asd_daemon.run.machine_rules import MachineRules
from asd_daemon.run.monitor_assembly import MonitorAssembly
from asd_daemon.run.opened_sources import OpenedSource, sources_of
from asd_daemon.run.publishing import change_topics
from asd_daemon.run.rules import alarm_rule, fitness_limits, threshold_rule
from asd_daemon.run.service import Service
from asd_daemon.run.stores import Stores
from asd_daemon.run.telling_people import telling_of
from asd_daemon.settings.file import read_password
from asd_daemon.settings.plan import CommandLineOptions, Plan, make_plan
from asd_daemon.settings.plan_changes import NEED_A_RESTART, PlanChanges, needs_another_judge, plan_changes
from asd_daemon.tell.notifications.notifier import Notifier
from asd_daemon.watch.log import ANSWER

if TYPE_CHECKING:
    from asd_daemon.run.publishing import ProcessPublisher

_LOG = logging.getLogger(__name__)


class Reloading:
    """Of one process; from the service's thread.

    Args:
        plan: what runs.
        options: the command line, which is laid over the configuration again.
        service: runs the monitors.
        assembly: makes others.
        publisher: who publishes.
        notifier: who tells people.
        stores: what is kept.
        health: who reports on the daemon itself.
        troubles: told what of the configuration does not hold.
    """

    def __init__(
        self,
        plan: Plan,
        options: CommandLineOptions,
        service: Service,
        assembly: MonitorAssembly,
        publisher: ProcessPublisher,
        notifier: Notifier,
        stores: Stores,
        health: HealthReporting,
        troubles: ConfigurationTroubles,
    ) -> None:
        self._plan, self._options, self._service, self._assembly = plan, options, service, assembly
        self._publisher, self._stores, self._health, self._troubles = publisher, stores, health, troubles
        self._notifier = notifier
        self._password = _password(plan)

    @property
    def plan(self) -> Plan:
        """What runs."""
        return self._plan

    def reload(self) -> None:
        """Read the configuration and take on what has changed."""
        if self._plan.file is None:
            _LOG.warning("asked to read the configuration anew, but the daemon was started without one", extra=ANSWER)
            return
        try:
            wanted = make_plan(self._options)
            if self._plan.machines and not wanted.machines:
                raise SettingsError(f"{wanted.file} configures none of the machines that are heard, and no other")
            self.change_to(wanted, "configuration read anew")
        except AsdError as e:
            self._refuse(e)

    def change_to(self, wanted: Plan, why: str) -> None:
        """Take on what is different in another plan.

        Args:
            wanted: what shall run.
            why: begins each line of the log.

        Raises:
            AsdError: it can't be used; what runs goes on.
        """
        changes = plan_changes(self._plan, wanted)
        password, telling = _password(wanted), telling_of(wanted)
        self._stores.add(changes.added)
        after = _with_what_needs_a_restart(wanted, self._plan)
        try:
            anew = [name for name in after.machines if name in (*changes.added, *changes.replaced)]
            sources = sources_of(after, anew, waits=True)
        except AsdError as e:
            self._stores.release(changes.added)
            whose = [name for name in anew if after.sources[name].target in str(e)]
            file = wanted.file if not whose or whose[0] in wanted.configured.machines else wanted.chosen.file
            place = f"{file or 'the command line'}{f': machines.{whose[0]}.source' if whose else ''}"
            raise SettingsError(f"{place}: {e}") from e
        for line in changes.lines or ["nothing that could be taken on has changed"]:
            _LOG.info("%s: %s", why, line, extra=ANSWER)
        self._notifier.take_up(changes.added)
        self._take_on(after, changes, sources)
        self._notifier.change(telling)
        self._notifier.let_go(changes.removed)
        later = list(changes.needs_restart)
        if password != self._password and not any(key.startswith("mqtt") for key in later):
            later.append("mqtt (another password)")
        words = [f"{wanted.file}: {key} is another one and holds from the next restart on" for key in later]
        failed = self._health.change(after, self._service.exchange_reporters)
        if failed is not None:
            words.append(f"{wanted.file}: {failed}; it stays as it was")
            after = replace(after, settings=after.settings.model_copy(update={"health": self._plan.settings.health}))
        for line in words:
            _LOG.warning("%s", line, extra=ANSWER)
        self._plan = after
        self._tell((*words, *wanted.laid.troubles))

    def _take_on(self, after: Plan, changes: PlanChanges, sources: dict[str, OpenedSource]) -> None:
        """Exchange monitors, and give the others their new rules."""
        if changes.changes_machines:
            self._service.exchange_monitors(
                (*changes.removed, *changes.replaced),
                tuple(sources),
                lambda callbacks: self._assembly.monitors(after, sources, callbacks),
            )
            self._stores.release(changes.removed)
        change_topics(self._publisher, after)
        for monitor in self._service.monitors:
            if monitor.machine not in changes.adjusted:
                continue
            before, machine = self._plan.machines[monitor.machine], after.machines[monitor.machine]
            opens = None
            if needs_another_judge(before, machine):
                opens = self._assembly.judge_opener(after, monitor.machine, monitor.callbacks)
            alerts = AlertRules(alarm_rule(machine.alarm), threshold=threshold_rule(machine))
            monitor.change_rules(MachineRules(alerts, fitness_limits(machine.quality), opens))

    def _refuse(self, error: AsdError) -> None:
        _LOG.error("the configuration is refused, and what runs goes on: %s", error, extra=ANSWER)
        self._tell((f"the configuration is refused, and would be at the next start: {error}",))

    def _tell(self, words: tuple[str, ...]) -> None:
        """Have every machine say what of the configuration does not hold."""
        if self._troubles.change(words):
            for monitor in self._service.monitors:
                monitor.change_rules(MachineRules())


def _with_what_needs_a_restart(wanted: Plan, running: Plan) -> Plan:
    """The new plan with what holds from the next start on only as it is now."""
    stays: dict[str, object] = {key: getattr(running.settings, key) for key in NEED_A_RESTART}
    stays["bundle"] = wanted.settings.bundle.model_copy(update={"folder": running.settings.bundle.folder})
    return replace(wanted, settings=wanted.settings.model_copy(update=stays), bundle=running.bundle)


def _password(plan: Plan) -> str | None:
    return None if plan.settings.mqtt is None else read_password(plan.settings.mqtt)
