"""From a plan to a daemon that can run: which machines, which bundle, which source, whom to tell.

Owns how the parts are put together. Nothing is opened here that the service does not own.
"""

from __future__ import annotations

import logging
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

from asd_daemon.hear.source_spec import SourceSpec
from asd_daemon.run.about_reporting import AboutReporting
from asd_daemon.run.beginning import Beginning
from asd_daemon.run.choosing import Choosing
from asd_daemon.run.command_giving import CommandGiving
from asd_daemon.run.command_inbox import CommandInbox
from asd_daemon.run.configuration_troubles import ConfigurationTroubles
from asd_daemon.run.health_reporting import HealthReporting
from asd_daemon.run.judge_tap import JudgeTap
from asd_daemon.run.machine_monitor import MachineMonitor, MonitorCallbacks
from asd_daemon.run.monitor_assembly import MonitorAssembly
from asd_daemon.run.publishing import make_publisher, publish_answer
from asd_daemon.run.reloading import Reloading
from asd_daemon.run.rollout_when_asked import RolloutWhenAsked
from asd_daemon.run.service import Service
from asd_daemon.run.shared_bundle import SharedBundle, listened_models, needs_models
from asd_daemon.run.stores import Stores
from asd_daemon.run.telling_people import make_notifier
from asd_daemon.run.trial_listening import TrialListening
from asd_daemon.run.upkeep import Upkeep
from asd_daemon.settings.file import state_folder
from asd_daemon.settings.plan import CommandLineOptions, Plan
from asd_daemon.settings.value_words import chosen_lines, facts_of
from asd_daemon.tell.notifications.notifying_publisher import NotifyingPublisher
from asd_daemon.watch.live_socket import LiveSocket
from asd_daemon.watch.live_sound import LiveSound
from asd_daemon.watch.live_view import LiveView
from asd_daemon.watch.report import DeliveryReport
from asd_daemon.watch.status import status_folder
from asd_daemon.watch.systemd import SystemdNotifier

if TYPE_CHECKING:
    from asd_daemon.rollout.rollout import Rollout

_LOG = logging.getLogger(__name__)


def make_service(
    plan: Plan,
    begun: Beginning,
    *,
    wait_for_broker: bool,
    options: CommandLineOptions | None = None,
    view: LiveView | None = None,
) -> Service:
    """The daemon, ready to run.

    Args:
        plan: what shall run.
        begun: its sources, and that nobody else hears them.
        options: what the plan was made from, to make it anew where the configuration shall be read again.
        view: shows what happens where there is no broker; None: JSON lines.
        wait_for_broker: keep trying where the broker refuses us, rather than fail.

    Raises:
        AsdError: something of it can't be made.
    """
    keeps_sound = plan.settings.keep.keeps_enrolment_sound
    shared_bundle = SharedBundle(
        plan.bundle,
        plan.settings.bundle_key,
        keeps_sound=keeps_sound,
        uses_models=needs_models(plan),
        listened=listened_models(plan),
        trusts_own=plan.trusts_own,
    )
    stores = Stores(state_folder(), plan.settings.keep, list(plan.machines), begun.locks)
    publisher = make_publisher(plan, stores, wait_for_broker=wait_for_broker, view=view)
    notifier = make_notifier(plan, stores)
    telling = NotifyingPublisher(publisher, notifier)
    troubles = ConfigurationTroubles()
    troubles.change(plan.laid.troubles)
    for line in (*plan.laid.troubles, *chosen_lines(plan)):
        _LOG.log(logging.WARNING if line in plan.laid.troubles else logging.INFO, "%s", line)
    live_sound = LiveSound()

    def trouble_words() -> tuple[str, ...]:
        return (*troubles.words(), *notifier.troubles)

    tap = JudgeTap()
    assembly = MonitorAssembly(shared_bundle, telling, stores, trouble_words, live_sound, tap)

    def make_monitors(callbacks: MonitorCallbacks) -> list[MachineMonitor]:
        return assembly.monitors(plan, begun.sources, callbacks)

    def delivery_report() -> DeliveryReport:
        return DeliveryReport(publisher.broker_status, stores.store_report, notifier.status)

    health = HealthReporting(plan, delivery_report)

    def heard() -> dict[str, tuple[SourceSpec, str | None]]:
        running = {monitor.machine: monitor.source_health.identity for monitor in service.monitors}
        return {name: (spec, running.get(name)) for name, spec in reloading.plan.sources.items()}

    trials = TrialListening(live_sound, heard)
    live_socket = LiveSocket(
        status_folder(state_folder()),
        live_sound,
        stores.scores,
        lambda: {monitor.machine: monitor.alarm_rule for monitor in service.monitors},
        lambda *asked: giving.give(*asked),  # noqa: PLW0108  # which is made below
        node=plan.settings.node,
        version=metadata.version("asd-edge"),
        facts=lambda: facts_of(reloading.plan),
        bundle=lambda: shared_bundle.words,
        rollout=lambda: rollout.account(),  # noqa: PLW0108  # which is made below
        trials=None if options is None or options.machines else trials,
    )
    about = AboutReporting(
        plan.settings.node,
        state_folder(),
        lambda: shared_bundle.words,
        lambda machine: reloading.plan.machines[machine].title if machine in reloading.plan.machines else None,
        lambda machine: reloading.plan.scoring_of(machine) if machine in reloading.plan.machines else "auto",
        publisher.publish_about,
        lambda: rollout.report(),  # noqa: PLW0108  # which is made below
    )
    reporters = [*health.reporters, live_socket, about]
    service = Service(telling, SystemdNotifier(), make_monitors, reporters, stores, shared_bundle.abandon)
    inbox = CommandInbox(stores.spool, service.command)
    service.on_tick = lambda: inbox.look([monitor.machine for monitor in service.monitors])
    known = options or CommandLineOptions(machines=tuple(plan.machines))
    reloading = Reloading(plan, known, service, assembly, publisher, notifier, stores, health, troubles)

    def make_rollout() -> Rollout:
        from asd_daemon.run import rolling_out

        return rolling_out.make_rollout(lambda: reloading.plan, known, service, assembly, shared_bundle, tap)

    rollout = RolloutWhenAsked(
        lambda: known.bundle is None and reloading.plan.settings.bundle.url is not None, make_rollout
    )
    reporters.append(rollout)
    choosing = Choosing(reloading, known, state_folder(), trials.release)
    upkeep = Upkeep(state_folder(), service, reloading, choosing, assembly, stores)
    giving = CommandGiving(
        service, choosing, upkeep, plan.settings.mqtt, partial(publish_answer, publisher, plan.settings.node)
    )
    publisher.on_command = giving.give_by_mqtt
    service.on_reload = reloading.reload
    return service
